"""The tab that bakes a blend of adapters into one file, and shows what is lost by it."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gradio as gr

from ui.events import HIDDEN
from ui.export import exporting
from ui.judge import order_form
from ui.judge.judge_actions import Jobs
from ui.keeping.recipe import MAX_NAME, MAX_PROMPT
from ui.pipeline.orders import SessionError
from ui.session import Session
from ui.style import spoken
from ui.translations import speaking

CSS = """
#export-sheet img { width: 100%; }
"""
MAX_LINES = exporting.MAX_PROMPTS * MAX_PROMPT  # characters of a box of prompts
CHOICES = [
    ("Lily file, for this page", "lily"),
    ("LoRA for diffusers (of DiTs: ComfyUI too)", "lora"),
    ("LoRA for A1111, Forge and ComfyUI (kohya)", "kohya"),
]
HOW = """A Lily adapter chooses its experts anew for every input. Baking watches what it chooses on your prompts and
writes the one fixed update that comes closest: a single file, also for programs that know only LoRA."""


def build(session: Session, demo: gr.Blocks, base: gr.Textbox) -> order_form.OrderForm:
    """Make the tab's components and wire them to the session; return its form, for `order_form.take_over`."""
    ui = SimpleNamespace()
    with gr.Row(elem_id="export-page", elem_classes=["form-and-result"]):
        with gr.Column():
            gr.Markdown(HOW, elem_classes=["quiet"])
            prompts = gr.Textbox(
                label="Prompts to bake on, one a line", lines=3, max_length=MAX_LINES, elem_id="export-prompts",
                placeholder="what the adapter is for, with its trigger words",
            )  # fmt: skip
            form = order_form.build(session, demo, base, "export", prompts, full=False)
            _ask(ui)
        with gr.Column():
            ui.turn = order_form.turn("export")
            ui.note = gr.Markdown("What is lost by baking is measured and shown here.", elem_id="export-note")
            ui.file = gr.File(label="The new file", interactive=False, visible=HIDDEN, elem_id="export-file")
            ui.sheet = gr.Image(label="Base model, adapters, baked", show_label=False, interactive=False,
                                visible=HIDDEN, type="filepath", format="png", buttons=["download", "fullscreen"],
                                elem_id="export-sheet")  # fmt: skip
    actions = _Actions(session, ui)
    wanted = [ui.name, ui.format, ui.held_out, ui.rank]
    actions.jobs.start_by(ui.go, actions.export, [*form.inputs, *wanted], [ui.note, ui.file, ui.sheet])
    return form


def _ask(ui: SimpleNamespace) -> None:
    ui.held_out = gr.Textbox(
        label="Other prompts to measure with, one a line", lines=2, max_length=MAX_LINES, elem_id="export-held-out",
        placeholder="empty: the same prompts with other seeds",
    )  # fmt: skip
    ui.format = gr.Radio(CHOICES, value="lily", label="Write a", elem_id="export-format")
    with gr.Row():
        ui.name = gr.Textbox(
            "blend", label="Name of the file", max_length=MAX_NAME, min_width=140, elem_id="export-name"
        )
        ui.rank = gr.Number(0, label="Rank (0: as it is)", precision=0, minimum=0, maximum=exporting.MAX_RANK,
                            min_width=120, elem_id="export-rank")  # fmt: skip
    ui.go = gr.Button("Bake and write", variant="primary", elem_id="export-go")


class _Actions:
    def __init__(self, session: Session, ui: SimpleNamespace) -> None:
        self.session, self.ui = session, ui
        self.jobs = Jobs(session, ui.turn)

    @speaking
    def export(self, request: gr.Request, *values: Any) -> Iterator[dict]:
        ui = self.ui

        def work() -> Any:
            order = order_form.order(values[:-4])
            wish = _wish(order.prompt, *values[-4:])
            return lambda job: exporting.export(job, order, wish)

        def show(event: exporting.Exported) -> dict[Any, Any]:
            self.session.cards(rescan=True)
            said = [f"**{spoken(f'Written: {event.name}.safetensors')}**", *map(spoken, event.sentences)]
            shown = {
                ui.note: "\n\n".join(said),
                ui.file: gr.update(value=ui.file.move_resource_to_block_cache(event.path), visible=True),
            }
            if event.sheet is not None:
                cached = ui.sheet.move_resource_to_block_cache(event.sheet)
                shown[ui.sheet] = gr.update(value=cached, visible=True)
            return shown

        clear = {ui.note: "", **{box: gr.update(value=None, visible=HIDDEN) for box in (ui.file, ui.sheet)}}
        yield from self.jobs.run(request, work, show, clear)


def _wish(prompts: str, name: Any, format: Any, held_out: Any, rank: Any) -> exporting.Wish:
    if rank is None:
        raise SessionError("The rank needs a number; 0 leaves it as it is.")
    baked_on, other = exporting.lines(prompts), exporting.lines(held_out or "")
    return exporting.Wish(str(name or ""), str(format or ""), baked_on, other, int(rank))
