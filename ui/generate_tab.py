"""The tab that makes pictures: prompt and settings on the left, adapters below them, pictures on the right."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gradio as gr

from lily_diffusion.base_model import FOLDERS
from ui import adapter_rows
from ui.actions import Actions
from ui.recipe import MAX_GUIDANCE, MAX_PROMPT, MAX_STEPS
from ui.session import MAX_COUNT, Session
from ui.style import progress_bar

PRIVATE: dict[str, Any] = {"api_visibility": "private"}
PIPELINE: dict[str, Any] = {**PRIVATE, "concurrency_id": "pipeline", "concurrency_limit": 1}
FOLDER: dict[str, Any] = {**PRIVATE, "concurrency_id": "folder", "concurrency_limit": 4, "show_progress": "hidden"}
QUICK: dict[str, Any] = {**PRIVATE, "queue": False, "show_progress": "hidden"}  # its errors are not shown


def build(session: Session, demo: gr.Blocks) -> None:
    """Make the tab's components and wire them to the session."""
    with gr.Row(elem_id="page"):
        with gr.Column(elem_id="ask"):
            ui = _ask(session)
        with gr.Column(elem_id="show"):
            _show(ui)
        with gr.Column(elem_id="set"):
            _adapters(ui, session)
            _settings(ui, session)
            _base_model(ui, session)
    ui.ids, ui.recipes = gr.State([]), gr.State([])
    actions = Actions(session, ui)
    _wire_adapters(ui, actions, demo)
    _wire_pictures(ui, actions)


def _ask(session: Session) -> SimpleNamespace:
    example = "a cat on a red background" if session.base.label in FOLDERS else "what the picture shows"
    prompt = gr.Textbox(
        label="Prompt", placeholder=example, lines=3, max_length=MAX_PROMPT, autofocus=True, elem_id="prompt"
    )
    with gr.Row():
        go = gr.Button("Generate", variant="primary", scale=3, elem_id="generate")
        stop = gr.Button("Interrupt", variant="secondary", interactive=False, scale=1, min_width=110, elem_id="stop")
    return SimpleNamespace(prompt=prompt, go=go, stop=stop)


def _show(ui: SimpleNamespace) -> None:
    ui.progress = gr.HTML(progress_bar(0, "Ready."), elem_id="progress")
    ui.gallery = gr.Gallery(
        label="Pictures", show_label=False, columns=2, height="auto", object_fit="contain", format="png",
        interactive=False, buttons=["download", "fullscreen"], elem_id="gallery",
    )  # fmt: skip
    ui.note = gr.Markdown(elem_id="note", elem_classes=["quiet"])
    ui.info = gr.Textbox(label="Recipe of the picture", lines=3, max_lines=8, interactive=False, buttons=["copy"],
                         visible=False, elem_id="info")  # fmt: skip
    ui.dropped = gr.File(
        label="Settings from a saved picture", file_types=[".png"], height=80, elem_id="restore", elem_classes=["drop"]
    )


def _adapters(ui: SimpleNamespace, session: Session) -> None:
    with gr.Row(elem_classes=["heading"]):
        gr.Markdown("### Adapters")
        ui.rescan = gr.Button("Rescan", size="sm", scale=0, min_width=90, elem_id="rescan")
    ui.search = gr.Textbox(placeholder="Search by name or trigger word", show_label=False, container=False,
                           max_length=100, visible=False, elem_id="search")  # fmt: skip
    ui.empty = gr.Markdown(elem_id="empty")
    ui.rows = adapter_rows.build(ui.prompt)
    ui.count_note = gr.Markdown(elem_classes=["quiet"])
    ui.upload = gr.File(
        label="Add an adapter (.safetensors)", file_types=[".safetensors"], height=80,
        visible=session.allow_uploads, elem_id="upload", elem_classes=["drop"],
    )  # fmt: skip


def _settings(ui: SimpleNamespace, session: Session) -> None:
    fits = session.base.defaults
    gr.Markdown("### Settings")
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
        with gr.Row():
            ui.count = gr.Number(1, label="Pictures", precision=0, minimum=1, maximum=MAX_COUNT, min_width=90,
                                 elem_id="count")  # fmt: skip
            ui.seed = gr.Number(-1, label="Seed (-1: a new one)", precision=0, min_width=90, elem_id="seed")
    with gr.Row():
        ui.random = gr.Button("New seed each time", size="sm")
        ui.reuse = gr.Button("Keep the last seed", size="sm", elem_id="reuse")


def _base_model(ui: SimpleNamespace, session: Session) -> None:
    with gr.Accordion(f"Base model: {session.base.label}", open=False) as ui.base_box:
        ui.base = gr.Dropdown(
            session.base_labels, value=session.base.label, label="Loaded now", elem_id="base",
            info="Choose from the list, or write a Hub id such as owner/name." if session.allow_hub else None,
            allow_custom_value=session.allow_hub,
        )  # fmt: skip
        ui.load = gr.Button("Load this base model", size="sm", elem_id="load-base")
        ui.base_note = gr.Markdown(elem_classes=["quiet"])


def _wire_adapters(ui: SimpleNamespace, actions: Actions, demo: gr.Blocks) -> None:
    ticks, weights = [row.on for row in ui.rows], [row.weight for row in ui.rows]
    state = [ui.ids, *ticks, *weights]
    listed = [ui.ids, ui.empty, ui.search, ui.count_note, *(part for row in ui.rows for part in row.shown)]
    ui.state, ui.listed = state, listed
    ui.based = [ui.base_box, ui.base, ui.base_note, ui.steps, ui.guidance, ui.width, ui.height, ui.gallery]
    demo.load(actions.open_page, outputs=[*ui.based, *listed], **QUICK)
    ui.rescan.click(actions.rescan, [ui.search, *state], listed, **FOLDER)
    ui.search.change(actions.search, [ui.search, *state], listed, trigger_mode="always_last", **QUICK)
    ui.upload.upload(actions.upload, [ui.upload, ui.search, *state], [ui.upload, *listed], **FOLDER)
    ui.load.click(actions.load_base, [ui.base, ui.search, *state], [*ui.based, *listed], show_progress_on=ui.base,
                  **PIPELINE)  # fmt: skip


def _wire_pictures(ui: SimpleNamespace, actions: Actions) -> None:
    order = [ui.prompt, ui.negative, ui.steps, ui.guidance, ui.width, ui.height, ui.seed, ui.count]
    shown = [ui.progress, ui.gallery, ui.note, ui.info, ui.recipes, ui.stop]
    gr.on(
        [ui.go.click, ui.prompt.submit, ui.negative.submit], actions.generate, [*order, *ui.state], shown,
        show_progress="hidden", trigger_mode="once", **PIPELINE,
    )  # fmt: skip
    ui.stop.click(actions.interrupt, outputs=[ui.stop], **QUICK)
    ui.gallery.select(actions.select, [ui.recipes], [ui.info], **QUICK)
    ui.random.click(None, outputs=ui.seed, js="() => -1", **QUICK)
    ui.reuse.click(actions.last_seed, [ui.recipes], [ui.seed], **QUICK)
    restored = [ui.dropped, ui.note, *order[:-1], ui.count, *ui.listed]
    ui.dropped.upload(actions.restore, [ui.dropped, ui.search], restored, **FOLDER)
