"""What Judge and Export ask for before they draw: prompt, adapters with weights, settings. Small, and in one column."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ui.events import FOLDER, QUICK
from ui.generate.asking import user_errors, warned
from ui.judge.axes import ADAPTERS
from ui.keeping.recipe import BLENDS, MAX_GUIDANCE, MAX_PROMPT, MAX_STEPS, MAX_WEIGHT_TEXT, SUM
from ui.messages import Order
from ui.pipeline import schedulers
from ui.pipeline.orders import SessionError
from ui.session import Session
from ui.style import progress_bar
from ui.turn import Turn, buttons

ROWS = ADAPTERS  # that can be mixed here
SETTINGS = 9  # components before the rows
NO_ADAPTERS = "No adapter in the folder fits this base model yet."


@dataclass(frozen=True)
class OrderForm:
    """The components. ``inputs`` in their order are what `order` reads."""

    prompt: gr.Textbox
    negative: gr.Textbox
    steps: gr.Slider
    guidance: gr.Slider
    width: gr.Number
    height: gr.Number
    seed: gr.Number
    scheduler: gr.Dropdown
    blend: gr.Dropdown
    adapters: list[gr.Dropdown]
    weights: list[gr.Textbox]
    take: gr.Button  # hidden until `take_over`
    dropped: gr.File
    base: gr.Textbox  # the label of the base model that the page shows

    @property
    def inputs(self) -> list[Any]:
        settings = [self.prompt, self.negative, self.steps, self.guidance, self.width, self.height, self.seed]
        return [*settings, self.scheduler, self.blend, *self.adapters, *self.weights, self.base]


def build(
    session: Session, demo: gr.Blocks, base: gr.Textbox, prefix: str, prompt: gr.Textbox, *, full: bool = True
) -> OrderForm:
    """Make the components with ids such as ``<prefix>-seed`` below a prompt, and keep the lists of adapters fresh.

    ``full``: show the negative prompt and the blend too.
    """
    adapters, weights = _adapters(prefix)
    settings = _settings(session, prefix, full)
    take = gr.Button("Take the settings of Generate", size="sm", visible=False, elem_id=f"{prefix}-take")
    dropped = gr.File(label="Settings from a saved picture", file_types=[".png"], height=80,
                      elem_id=f"{prefix}-dropped", elem_classes=["drop"])  # fmt: skip
    form = OrderForm(prompt, *settings, adapters, weights, take, dropped, base)
    wire = Lists(session)
    fresh = [*adapters, form.steps, form.guidance, form.width, form.height, form.scheduler]
    seen = gr.State(())  # the choices that the page has: lists are only replaced when the folder has changed
    gr.on([demo.load, base.change], wire.fresh, outputs=fresh, **QUICK).then(wire.seen, outputs=seen, **QUICK)
    form.dropped.upload(wire.restore, form.dropped, [form.dropped, *form.inputs], **FOLDER)
    for number, box in enumerate(adapters):
        box.focus(wire.changed, seen, [seen, *adapters], **FOLDER)
        if number + 1 < ROWS:
            following = [adapters[number + 1], weights[number + 1]]
            box.input(_next_row, box, following, **QUICK)
    return form


def take_over(
    session: Session, form: OrderForm, inputs: list[Any], order_of: Callable[[tuple[Any, ...]], Order]
) -> None:
    """Let the button beside the form fill it from another tab: ``order_of`` reads what ``inputs`` hold there."""
    wire = Lists(session)

    def take(*values: Any) -> list[Any]:
        with user_errors():
            return wire.filled(order_of(values))

    form.take.visible = True
    form.take.click(take, inputs, form.inputs, **FOLDER)


def order(values: tuple[Any, ...]) -> Order:
    """Read what `OrderForm.inputs` hold.

    Raises:
        SessionError: an adapter is chosen twice, a weight cannot be read, or a field is empty.
    """
    prompt, negative, steps, guidance, width, height, seed, scheduler, blend = values[:SETTINGS]
    for name, value in {"steps": steps, "width": width, "height": height, "seed": seed}.items():
        if value is None:
            raise SessionError(f"The {name} needs a number.")
    weights: dict[str, float | str] = {}
    rows = values[SETTINGS : SETTINGS + ROWS], values[SETTINGS + ROWS : SETTINGS + 2 * ROWS]
    for adapter_id, text in zip(*rows, strict=True):
        if not adapter_id:
            continue
        if not isinstance(adapter_id, str) or adapter_id in weights:
            raise SessionError("An adapter is chosen twice. Give it one weight in one row.")
        weights[adapter_id] = _weight(text)
    return Order(prompt or "", negative or "", steps, guidance, width, height, seed, 1, weights, str(scheduler or ""),
                 blend=str(blend or SUM), base_model=str(values[SETTINGS + 2 * ROWS] or ""))  # fmt: skip


def _weight(text: Any) -> float | str:
    text = str(text or "").strip()
    if not text:
        raise SessionError("Every adapter needs a weight, such as 1 or 0.8.")
    try:
        return float(text)
    except ValueError:
        return text


def turn(prefix: str) -> Turn:
    """A bar that says how far a job is, and the buttons that stop it or leave the queue."""
    with gr.Row(elem_classes=["judging"]):
        bar = gr.HTML(progress_bar(0, ""), elem_id=f"{prefix}-progress", padding=False)
        return Turn(bar, *buttons(f"{prefix}-", "Stop", size="sm", scale=0, min_width=90))


class Lists:
    """Keeps the lists of adapters as the folder is."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def seen(self) -> tuple[tuple[str, str], ...]:
        """(name, id) of what can be chosen."""
        cards = [card for card in self.session.cards(rescan=True) if card.reason is None]
        return (("no adapter", ""), *((card.name, card.id) for card in cards))

    def lists(self) -> list[Any]:
        choices = list(self.seen())
        none = NO_ADAPTERS if len(choices) == 1 else None
        return [gr.update(choices=choices, info=None if number else none) for number in range(ROWS)]

    def changed(self, before: Any) -> list[Any]:
        now = self.seen()
        same = [tuple(choice) for choice in before] == list(now)
        return [gr.skip()] * (1 + ROWS) if same else [now, *self.lists()]

    def fresh(self) -> list[Any]:
        fits = self.session.base.defaults
        sizes = [gr.update(value=edge, step=fits.size_step) for edge in (fits.width, fits.height)]
        known = [(name or "Its own", name) for name in schedulers.names(self.session.base.pipe)]
        return [*self.lists(), fits.steps, fits.guidance_scale, *sizes, gr.update(choices=known, value="")]

    def restore(self, path: str) -> list[Any]:
        with user_errors():
            recipe, weights, notes = self.session.restore(path)
            for note in notes:
                warned(note)
            wanted = Order(recipe.prompt, recipe.negative_prompt, recipe.steps, recipe.guidance_scale, recipe.width,
                           recipe.height, recipe.seed, 1, weights, recipe.scheduler, blend=recipe.blend)  # fmt: skip
            return [None, *self.filled(wanted)]

    def filled(self, order: Order) -> list[Any]:
        """Updates of `OrderForm.inputs`; adapters beyond ROWS are left out, and that is said."""
        weights = {name: weight for name, weight in (order.weights or {}).items() if weight}
        if len(weights) > ROWS:
            warned(f"{len(weights)} adapters are on; the first {ROWS} are taken.")
        chosen = [*weights.items()][:ROWS]
        chosen += [("", 1.0)] * (ROWS - len(chosen))
        shown = [n == 0 or bool(chosen[n - 1][0]) for n in range(ROWS)]
        lists = [{**box, "value": name, "visible": on}
                 for box, (name, _), on in zip(self.lists(), chosen, shown, strict=True)]  # fmt: skip
        texts = [gr.update(value=w if isinstance(w, str) else f"{w:.10g}", visible=on)
                 for (_, w), on in zip(chosen, shown, strict=True)]  # fmt: skip
        settings = [order.prompt, order.negative_prompt, order.steps, order.guidance_scale, order.width, order.height,
                    order.seed, order.scheduler, order.blend]  # fmt: skip
        return [*settings, *lists, *texts, gr.skip()]


def _next_row(chosen: str | None) -> list[Any]:
    return [gr.update(visible=True)] * 2 if chosen else [gr.skip()] * 2


def _adapters(prefix: str) -> tuple[list[gr.Dropdown], list[gr.Textbox]]:
    adapters, weights = [], []
    for number in range(ROWS):
        with gr.Row(elem_classes=["judged-adapter"]):
            adapters.append(gr.Dropdown(
                [("no adapter", "")], value="", label=f"Adapter {number + 1}", visible=number == 0, scale=3,
                min_width=160, elem_id=f"{prefix}-adapter-{number + 1}",
            ))  # fmt: skip
            weights.append(gr.Textbox(
                "1", label="Weight", max_length=MAX_WEIGHT_TEXT, visible=number == 0, scale=1, min_width=90,
                elem_id=f"{prefix}-weight-{number + 1}",
            ))  # fmt: skip
    return adapters, weights


def _settings(
    session: Session, prefix: str, full: bool
) -> tuple[gr.Textbox, gr.Slider, gr.Slider, gr.Number, gr.Number, gr.Number, gr.Dropdown, gr.Dropdown]:
    fits = session.base.defaults
    with gr.Accordion("Settings", open=False, elem_id=f"{prefix}-settings"):
        unwanted = gr.Textbox(label="Negative prompt", lines=1, max_length=MAX_PROMPT, visible=full,
                              elem_id=f"{prefix}-negative")  # fmt: skip
        with gr.Row():
            steps = gr.Slider(1, MAX_STEPS, fits.steps, step=1, label="Steps", min_width=130, elem_id=f"{prefix}-steps")
            guidance = gr.Slider(0, MAX_GUIDANCE, fits.guidance_scale, step=0.1, label="Guidance", min_width=130,
                                 elem_id=f"{prefix}-guidance")  # fmt: skip
        with gr.Row():
            width, height = (
                gr.Number(
                    edge, label=name, precision=0, step=fits.size_step, min_width=80, elem_id=f"{prefix}-{name.lower()}"
                )
                for name, edge in (("Width", fits.width), ("Height", fits.height))
            )
            seed = gr.Number(-1, label="Seed (-1: new)", precision=0, min_width=80, elem_id=f"{prefix}-seed")
        known = [(name or "Its own", name) for name in schedulers.names(session.base.pipe)]
        with gr.Row():
            scheduler = gr.Dropdown(known, value="", label="Scheduler", min_width=130, elem_id=f"{prefix}-scheduler")
            blend = gr.Dropdown(list(BLENDS), value=SUM, label="Blend", min_width=130, visible=full,
                                elem_id=f"{prefix}-blend")  # fmt: skip
    return unwanted, steps, guidance, width, height, seed, scheduler, blend
