"""The tab that judges adapters: what they change, where in the model, and which experts answer."""

from __future__ import annotations

from types import SimpleNamespace

import gradio as gr

from ui.events import HIDDEN, QUICK
from ui.judge import order_form
from ui.judge.axes import KINDS, MAX_AXIS_TEXT
from ui.judge.judge_actions import Actions, example
from ui.judge.xyz import MAX_CELLS
from ui.keeping.recipe import MAX_PROMPT
from ui.session import Session

CSS = """
.form-and-result { display: grid; gap: 20px; align-items: start; grid-template-columns: minmax(0, 4fr) minmax(0, 7fr); }
.form-and-result > * { min-width: 0 !important; }
@media (max-width: 820px) {
  .form-and-result { grid-template-columns: minmax(0, 1fr); }
}
.judged-adapter { flex-wrap: nowrap; gap: 8px; align-items: end; }
.judged-adapter:not(:has(.block:not(.hidden))) { display: none; }
.judging { align-items: center; flex-wrap: nowrap; }
.judging .html-container, .judging > .block { padding: 0 !important; }
#judge-watched img { width: 100% !important; height: 224px !important; object-fit: contain !important; }
#judge-map img, #judge-sheet img, #judge-bars img { width: 100%; }
"""
HOW = {
    "compare": "The same seed with and without the adapters, under one slider.",
    "grid": f"A picture for every combination of values, at most {MAX_CELLS}. Numbers: `0.5, 1`, or `0-1:5` for five "
    "from 0 to 1. Words: the first is replaced in the prompt by each.",
    "routers": "Lily's routers choose, for every input, which experts of the first adapter answer. This draws one "
    "picture and shows what they chose, layer by layer and step by step.",
    "blocks": "Switches the blocks of the first adapter off, one at a time, and shows how much the picture changes.",
}


def build(session: Session, demo: gr.Blocks, base: gr.Textbox) -> order_form.OrderForm:
    """Make the tab's components and wire them to the session; return its form, for `order_form.take_over`."""
    ui = SimpleNamespace()
    with gr.Row(elem_id="judge-page", elem_classes=["form-and-result"]):
        with gr.Column():
            prompt = gr.Textbox(label="Prompt", placeholder="what the pictures show", lines=2, max_length=MAX_PROMPT,
                                elem_id="judge-prompt")  # fmt: skip
            form = order_form.build(session, demo, base, "judge", prompt)
        with gr.Column():
            ui.turn = order_form.turn("judge")
            with gr.Tabs(elem_id="judge-views"):
                with gr.Tab("Compare"):
                    _compare(ui)
                with gr.Tab("Grid"):
                    _grid(ui)
                with gr.Tab("Experts"):
                    _routers(ui)
                with gr.Tab("Blocks"):
                    _blocks(ui)
    _wire(ui, form, Actions(session, form, ui))
    return form


def _quiet(text: str) -> None:
    gr.Markdown(text, elem_classes=["quiet"])


def _compare(ui: SimpleNamespace) -> None:
    _quiet(HOW["compare"])
    ui.go_compare = gr.Button("Compare", variant="primary", elem_id="judge-compare")
    ui.slider = gr.ImageSlider(label="Base model, and with the adapters", show_label=False, interactive=False,
                               visible=HIDDEN, type="filepath", format="png", max_height=560,
                               buttons=["fullscreen"], elem_id="judge-slider")  # fmt: skip
    ui.compared = gr.Markdown(elem_id="judge-compared")


def _grid(ui: SimpleNamespace) -> None:
    _quiet(HOW["grid"])
    ui.axes = []
    for letter, where in (("X", "across"), ("Y", "down"), ("Z", "one sheet each")):
        name = letter.lower()
        with gr.Row(elem_classes=["axis"]):
            first = "Weight of adapter 1" if letter == "X" else ""
            axis = gr.Dropdown([("nothing", ""), *((kind, kind) for kind in KINDS)], value=first,
                               label=f"{letter}, {where}", min_width=200, scale=1, elem_id=f"judge-{name}")  # fmt: skip
            values = gr.Textbox("0-1:5" if first else "", label="Values", max_length=MAX_AXIS_TEXT, min_width=200,
                                scale=1, interactive=bool(first), elem_id=f"judge-{name}-values")  # fmt: skip
        axis.input(example, axis, values, **QUICK)
        ui.axes += [axis, values]
    ui.go_grid = gr.Button("Draw the grid", variant="primary", elem_id="judge-grid")
    ui.sheet = _picture("judge-sheet", "The grid")
    ui.gridded = gr.Markdown(elem_id="judge-gridded")


def _routers(ui: SimpleNamespace) -> None:
    _quiet(HOW["routers"])
    ui.go_routers = gr.Button("Watch the experts", variant="primary", elem_id="judge-routers")
    ui.routed = gr.Markdown(elem_id="judge-routed")
    ui.map = _picture("judge-map", "Which experts answer")
    ui.watched = _picture("judge-watched", "The picture that was drawn", 256)


def _blocks(ui: SimpleNamespace) -> None:
    _quiet(HOW["blocks"])
    ui.go_blocks = gr.Button("Switch the blocks off", variant="primary", elem_id="judge-blocks")
    ui.ranked = gr.Markdown(elem_id="judge-ranked")
    ui.bars = _picture("judge-bars", "What each block does")


def _picture(elem_id: str, label: str, height: int | None = None) -> gr.Image:
    return gr.Image(label=label, show_label=False, interactive=False, visible=HIDDEN, type="filepath", format="png",
                    height=height, buttons=["download", "fullscreen"], elem_id=elem_id)  # fmt: skip


def _wire(ui: SimpleNamespace, form: order_form.OrderForm, actions: Actions) -> None:
    jobs = actions.jobs
    jobs.start_by(ui.go_compare, actions.compare, form.inputs, [ui.slider, ui.compared])
    jobs.start_by(ui.go_grid, actions.grid, [*form.inputs, *ui.axes], [ui.sheet, ui.gridded])
    jobs.start_by(ui.go_routers, actions.routers, form.inputs, [ui.routed, ui.map, ui.watched])
    jobs.start_by(ui.go_blocks, actions.blocks, form.inputs, [ui.ranked, ui.bars])
