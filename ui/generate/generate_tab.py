"""The tab that makes pictures: prompt and settings on the left, adapters below them, pictures on the right."""

from __future__ import annotations

from types import SimpleNamespace

import gradio as gr

from lily_diffusion.base_model import FOLDERS
from ui.events import FOLDER, HIDDEN, PIPELINE, PRIVATE, QUICK
from ui.generate import adapter_rows, generate_wiring, library
from ui.generate.asking import FIXED, NEW, OWN_SCHEDULER, SEED_MODES
from ui.generate.keep_actions import ALL_DAYS
from ui.keeping.recipe import BLENDS, MAX_GUIDANCE, MAX_NAME, MAX_PROMPT, MAX_STEPS, SUM
from ui.pipeline import schedulers
from ui.pipeline.orders import MAX_COUNT
from ui.session import Session
from ui.style import progress_bar
from ui.turn import Turn, buttons

__all__ = ["FIXED", "FOLDER", "PIPELINE", "PRIVATE", "QUICK", "build"]
PREVIEW_STEPS = 4
RESCAN_SECONDS = 5


def build(session: Session, demo: gr.Blocks, base: gr.Textbox) -> SimpleNamespace:
    """Make the tab's components and wire them to the session; returns them by name.

    ``base`` holds the label of the base model that the page shows.
    """
    with gr.Row(elem_id="page"):
        with gr.Column(elem_id="ask"):
            ui = _ask(session)
        with gr.Column(elem_id="show"):
            _show(ui)
            _history(ui)
        with gr.Column(elem_id="set"):
            _adapters(ui, session)
            _settings(ui, session)
            _presets(ui)
            _base_model(ui, session)
    ui.base_shown = base
    ui.used = gr.JSON(visible=HIDDEN, elem_id="used")
    ui.limit, ui.version = gr.State(library.SHOWN), gr.State(-1)
    ui.made, ui.past, ui.hand, ui.marked = gr.State([]), gr.State([]), gr.State(""), gr.State("")
    ui.timer = gr.Timer(RESCAN_SECONDS)
    generate_wiring.wire(ui, session, demo)
    return ui


def _ask(session: Session) -> SimpleNamespace:
    example = "a cat on a red background" if session.base.label in FOLDERS else "what the picture shows"
    ui = SimpleNamespace()
    ui.prompt = gr.Textbox(
        label="Prompt", placeholder=example, lines=3, max_length=MAX_PROMPT, autofocus=True, elem_id="prompt"
    )
    with gr.Row(elem_id="go"):
        ui.go = gr.Button("Generate", variant="primary", scale=3, min_width=120, elem_id="generate")
        ui.stop, ui.leave = buttons("", "Interrupt", scale=1, min_width=90)
        ui.skip = gr.Button("Skip", interactive=False, scale=1, min_width=70, elem_id="skip")
    with gr.Accordion("Styles and earlier prompts", open=False, elem_id="texts"):
        ui.styles = gr.Dropdown(
            [], value=[], multiselect=True, label="Styles", info="Added to the prompts when you generate.",
            elem_id="styles",
        )  # fmt: skip
        ui.earlier = gr.Dropdown([], value=None, label="Earlier prompts", elem_id="earlier")
        with gr.Row(equal_height=True):
            ui.style_name = gr.Textbox(
                show_label=False, container=False, placeholder="Name of a style", max_length=MAX_NAME, min_width=120,
                elem_id="style-name",
            )  # fmt: skip
            ui.save_style = gr.Button("Save the prompts as a style", size="sm", min_width=150, elem_id="save-style")
            ui.drop_style = gr.Button("Delete chosen", size="sm", min_width=90, elem_id="delete-styles")
    return ui


def _show(ui: SimpleNamespace) -> None:
    ui.progress = gr.HTML(progress_bar(0, ""), elem_id="progress")
    ui.turn = Turn(ui.progress, ui.stop, ui.leave)
    ui.preview = gr.HTML(elem_id="preview")
    ui.gallery = gr.Gallery(
        label="Pictures", show_label=False, columns=2, height="auto", object_fit="contain", format="png",
        interactive=False, buttons=["download", "fullscreen"], elem_id="gallery",
    )  # fmt: skip
    with gr.Row(visible=False, elem_id="tools") as ui.tools:
        ui.send_back = gr.Button("Use its settings", size="sm", min_width=110, elem_id="send-back")
        ui.compare = gr.Button("Compare", size="sm", min_width=90, elem_id="compare")
        ui.on_card = gr.Button("Put on its card", size="sm", min_width=100, elem_id="on-card")
        ui.delete = gr.Button("Delete", size="sm", min_width=80, elem_id="delete")
    ui.note = gr.Markdown(elem_id="note", elem_classes=["quiet"])
    ui.both = gr.ImageSlider(
        show_label=False, visible=HIDDEN, interactive=False, format="png", buttons=["fullscreen"], elem_id="both"
    )
    ui.info = gr.Textbox(label="Recipe of the picture", lines=3, max_lines=8, interactive=False, buttons=["copy"],
                         visible=HIDDEN, elem_id="info")  # fmt: skip
    ui.dropped = gr.File(
        label="Settings from a saved picture", file_types=[".png", ".jpg", ".jpeg", ".webp", ".json"], height=80,
        elem_id="restore", elem_classes=["drop"],
    )  # fmt: skip


def _history(ui: SimpleNamespace) -> None:
    with gr.Accordion("History", open=False, elem_id="history") as ui.past_box:
        with gr.Row():
            ui.day = gr.Dropdown([ALL_DAYS], value=ALL_DAYS, show_label=False, container=False, min_width=120,
                                 label="Day", elem_id="day")  # fmt: skip
            ui.past_search = gr.Textbox(
                placeholder="Search in prompts", show_label=False, container=False, max_length=100, min_width=120,
                elem_id="past-search",
            )  # fmt: skip
        ui.past_gallery = gr.Gallery(
            show_label=False, columns=5, height="auto", object_fit="contain", interactive=False, allow_preview=False,
            buttons=[], elem_id="past",
        )  # fmt: skip


def _adapters(ui: SimpleNamespace, session: Session) -> None:
    with gr.Row(elem_classes=["heading"]):
        gr.Markdown("### Adapters")
        ui.rescan = gr.Button("Rescan", size="sm", scale=0, min_width=90, elem_id="rescan")
    ui.hint = gr.Markdown("Click a card to use its adapter.", elem_classes=["quiet"], elem_id="hint")
    ui.rows = adapter_rows.build(ui.prompt)
    with gr.Row(visible=False, elem_id="pager") as ui.pager:
        ui.back = gr.Button("‹", size="sm", scale=0, min_width=34, elem_id="rows-back")
        ui.page = gr.Markdown(elem_classes=["quiet"])
        ui.on = gr.Button("›", size="sm", scale=0, min_width=34, elem_id="rows-on")
    with gr.Row(elem_id="find"):
        ui.search = gr.Textbox(
            placeholder="Search adapters", show_label=False, container=False, max_length=100,
            visible=False, scale=2, min_width=160, elem_id="search",
        )  # fmt: skip
        ui.folder = gr.Dropdown([("All folders", "")], value="", show_label=False, container=False, visible=False,
                                label="Folder", min_width=140, elem_id="folder")  # fmt: skip
    ui.empty = gr.Markdown(visible=False, elem_id="empty")
    ui.cards = gr.HTML(js_on_load=library.JS, elem_id="library")
    ui.none_found = gr.Markdown(visible=HIDDEN, elem_classes=["quiet"])
    ui.upload = gr.File(
        label="Add an adapter (.safetensors)", file_types=[".safetensors"], height=80,
        visible=session.allow_uploads, elem_id="upload", elem_classes=["drop"],
    )  # fmt: skip


def _settings(ui: SimpleNamespace, session: Session) -> None:
    fits = session.base.defaults
    with gr.Row(elem_classes=["heading"]):
        gr.Markdown("### Settings")
        ui.reuse = gr.Button("Keep the last seed", size="sm", scale=0, min_width=140, elem_id="reuse")
    with gr.Group():
        ui.negative = gr.Textbox(label="Negative prompt", placeholder="what it should not show", lines=1,
                                 max_length=MAX_PROMPT, elem_id="negative")  # fmt: skip
        with gr.Row():
            ui.steps = gr.Slider(1, MAX_STEPS, fits.steps, step=1, label="Steps", min_width=140, elem_id="steps")
            ui.guidance = gr.Slider(0, MAX_GUIDANCE, fits.guidance_scale, step=0.1, label="Guidance", min_width=140,
                                    elem_id="guidance")  # fmt: skip
        with gr.Row():
            ui.width = gr.Number(fits.width, label="Width", precision=0, step=fits.size_step, min_width=90,
                                 elem_id="width")  # fmt: skip
            ui.height = gr.Number(fits.height, label="Height", precision=0, step=fits.size_step, min_width=90,
                                  elem_id="height")  # fmt: skip
            ui.count = gr.Number(1, label="Pictures", precision=0, minimum=1, maximum=MAX_COUNT, min_width=80,
                                 elem_id="count")  # fmt: skip
        with gr.Row():
            ui.seed = gr.Number(-1, label="Seed", precision=0, min_width=110, elem_id="seed")
            ui.mode = gr.Dropdown(list(SEED_MODES), value=NEW, label="Seeds", min_width=120, elem_id="seed-mode")
        with gr.Row():
            ui.scheduler = gr.Dropdown(
                [OWN_SCHEDULER, *schedulers.names(session.base.pipe)[1:]], value=OWN_SCHEDULER, label="Scheduler",
                min_width=120, elem_id="scheduler",
            )  # fmt: skip
            ui.blend = gr.Dropdown(list(BLENDS), value=SUM, label="Blend", min_width=120, elem_id="blend")
        with gr.Row():
            ui.preview_on = gr.Checkbox(True, label="Live preview", min_width=120, elem_id="preview-on")
            ui.every = gr.Slider(1, 20, PREVIEW_STEPS, step=1, label="Every so many steps", min_width=140,
                                 elem_id="every")  # fmt: skip


def _presets(ui: SimpleNamespace) -> None:
    with gr.Accordion("Presets", open=False, elem_id="presets"):
        ui.preset = gr.Dropdown([], value=None, label="Saved settings with adapters", elem_id="preset")
        with gr.Row():
            ui.load_preset = gr.Button("Load", size="sm", min_width=70, elem_id="load-preset")
            ui.delete_preset = gr.Button("Delete", size="sm", min_width=70, elem_id="delete-preset")
        with gr.Row(equal_height=True):
            ui.preset_name = gr.Textbox(
                show_label=False, container=False, placeholder="Name of a preset", max_length=MAX_NAME, min_width=120,
                elem_id="preset-name",
            )  # fmt: skip
            ui.save_preset = gr.Button("Save these settings", size="sm", min_width=120, elem_id="save-preset")


def _base_model(ui: SimpleNamespace, session: Session) -> None:
    with gr.Accordion(f"Base model: {session.base.label}", open=False) as ui.base_box:
        ui.base = gr.Dropdown(
            session.base_labels, value=session.base.label, label="Loaded now", elem_id="base",
            info="Choose from the list, or write a Hub id such as owner/name." if session.allow_hub else None,
            allow_custom_value=session.allow_hub,
        )  # fmt: skip
        ui.load = gr.Button("Load this base model", size="sm", elem_id="load-base")
        ui.base_note = gr.Markdown(elem_classes=["quiet"])
