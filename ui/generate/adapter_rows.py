"""The adapters in use, each with its weight: a few rows, through which pages of them are turned.

File names and texts from headers only go into plain components or through ``style.plain``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import gradio as gr

from ui.events import PRIVATE, QUICK
from ui.generate import weight_text
from ui.keeping.recipe import MAX_ADAPTERS, MAX_WEIGHT, MAX_WEIGHT_TEXT
from ui.messages import AdapterCard
from ui.style import spoken

ROWS = 8  # at a time
SLIDER = (-1.0, 2.0)

_TO_SLIDER = f"(w) => Math.max({SLIDER[0]}, Math.min({SLIDER[1]}, w ?? 0))"
_INSERT = """(prompt, words) => {
    const wanted = words.replace(/^\\+ /, '');
    if (prompt.includes(wanted)) return prompt;
    return prompt.trim() ? prompt.trim().replace(/,$/, '') + ', ' + wanted : wanted;
}"""


@dataclass(frozen=True)
class Choice:
    """An adapter in use. ``text``, where there is one, is its weight by block and step, and counts for ``weight``."""

    on: bool = True
    weight: float = 1.0
    text: str = ""


@dataclass(frozen=True)
class Used:
    """All adapters in use by id, in their order, and where in it the rows begin.

    The browser keeps it, and sends it with the rows as they were when a button was pressed: an event that waits for its
    turn is about what was seen then, wherever the page has been turned to since.
    """

    chosen: Mapping[str, Choice] = field(default_factory=dict)
    first: int = 0

    @classmethod
    def of(cls, sent: Any) -> Used:
        """Read what `sent` made; anything else is nothing in use."""
        try:
            chosen = {str(i): Choice(bool(on), _number(weight), str(text)) for i, on, weight, text in sent["chosen"]}
            return cls(dict(list(chosen.items())[:MAX_ADAPTERS]), int(sent["first"])).turned(0)
        except (KeyError, TypeError, ValueError, OverflowError):
            return cls()

    @property
    def sent(self) -> dict[str, Any]:
        """For the browser."""
        rows = [[i, c.on, None if math.isnan(c.weight) else c.weight, c.text] for i, c in self.chosen.items()]
        return {"first": self.first, "chosen": rows}

    def __contains__(self, adapter_id: object) -> bool:
        return adapter_id in self.chosen

    @property
    def page(self) -> dict[str, Choice]:
        """Those that the rows show."""
        return dict(list(self.chosen.items())[self.first : self.first + ROWS])

    def turned(self, rows: int) -> Used:
        """So many rows on, or back."""
        last = max(0, len(self.chosen) - 1) // ROWS * ROWS
        return replace(self, first=min(max(0, self.first + rows), last))

    def without(self, adapter_id: str) -> Used:
        return replace(self, chosen={i: c for i, c in self.chosen.items() if i != adapter_id}).turned(0)

    def with_one_more(self, adapter_id: str) -> Used:
        """The new one is shown."""
        return replace(self, chosen={**self.chosen, adapter_id: Choice()}).turned(len(self.chosen))


@dataclass(frozen=True)
class Row:
    """The components of one row; the number box holds the weight, the slider follows it."""

    box: gr.Column
    on: gr.Checkbox
    words: gr.Button
    remove: gr.Button
    slider: gr.Slider
    weight: gr.Number
    preset: gr.Dropdown
    text: gr.Textbox
    curve: gr.HTML
    blocks: gr.Markdown
    reason: gr.Markdown

    @property
    def shown(self) -> list[Any]:
        return [self.box, self.on, self.words, self.slider, self.weight, self.preset, self.text, self.curve,
                self.blocks, self.reason]  # fmt: skip


def build(prompt: gr.Textbox) -> list[Row]:
    """Make the rows, hidden, with the wiring inside each (slider and number box, trigger words, curve)."""
    rows = [_build_row(number) for number in range(ROWS)]
    client: dict[str, Any] = {"fn": None, "queue": False, **PRIVATE}
    for row in rows:
        row.slider.input(inputs=row.slider, outputs=row.weight, js="(w) => w", **client)
        row.weight.input(inputs=row.weight, outputs=row.slider, js=_TO_SLIDER, **client)
        row.words.click(inputs=[prompt, row.words], outputs=prompt, js=_INSERT, **client)
        gr.on([row.text.change, row.slider.release, row.weight.blur], _drawn, [row.text, row.weight],
              [row.curve, row.slider, row.weight], trigger_mode="always_last", **QUICK)  # fmt: skip
    return rows


def _build_row(number: int) -> Row:
    with gr.Column(visible=False, elem_classes=["adapter"], elem_id=f"adapter-{number}") as box:
        with gr.Row():
            on = gr.Checkbox(label="", container=False, scale=1, min_width=100, elem_classes=["name"])
            words = gr.Button(size="sm", scale=0, min_width=60, elem_classes=["words"])
            remove = gr.Button("×", size="sm", scale=0, min_width=34, elem_classes=["remove"])
        with gr.Row(elem_classes=["weights"]):
            slider = gr.Slider(
                *SLIDER, 1.0, step=0.05, show_label=False, container=False, scale=4, min_width=100,
                label="weight", elem_classes=["weight-slider"],
            )  # fmt: skip
            weight = gr.Number(
                1.0, minimum=-MAX_WEIGHT, maximum=MAX_WEIGHT, step=0.05, show_label=False, container=False, scale=0,
                min_width=84, label="weight", elem_classes=["weight"],
            )  # fmt: skip
        with gr.Accordion("By block and step", open=False, elem_classes=["shape"]):
            preset = gr.Dropdown([weight_text.PLAIN], value=None, label="Ready-made", elem_classes=["preset"])
            text = gr.Textbox(label="Weight by block and step", placeholder="0.8,mid=0.5 or 1@0,0@0.6", lines=1,
                              max_length=MAX_WEIGHT_TEXT, elem_classes=["weight-text"])  # fmt: skip
            curve = gr.HTML(elem_classes=["drawn"])
            blocks = gr.Markdown(elem_classes=["quiet"])
        reason = gr.Markdown(elem_classes=["warn"])
    return Row(box, on, words, remove, slider, weight, preset, text, curve, blocks, reason)


def fill(
    rows: Sequence[Row],
    cards: Mapping[str, AdapterCard],
    chosen: Mapping[str, Choice],
    selectors: Callable[[str], Sequence[str]],
) -> list[Any]:
    """Return one update for every component of every row, in the order of ``Row.shown``.

    Args:
        cards: those of the adapters in use, by id.
        chosen: the adapters that the rows show, by id, in their order.
        selectors: id -> what its weight can differ by.
    """
    updates: list[Any] = []
    for card, choice in [(cards[i], choice) for i, choice in chosen.items()]:
        usable, names = card.reason is None, selectors(card.id)
        plainly = usable and not choice.text
        updates += [
            gr.update(visible=True),
            gr.update(label=card.name, value=choice.on and usable, interactive=usable),
            gr.update(value="+ " + ", ".join(card.trigger_words), visible=usable and bool(card.trigger_words)),
            gr.update(value=min(max(choice.weight, SLIDER[0]), SLIDER[1]), interactive=plainly),
            gr.update(value=choice.weight, interactive=plainly),
            gr.update(choices=weight_text.presets(names), value=None),
            gr.update(value=choice.text),
            weight_text.curve(choice.text, choice.weight),
            spoken(f"Blocks: {', '.join(names[:40])}") if names else "",
            gr.update(value=spoken(card.reason or ""), visible=not usable),
        ]
    for row in rows[len(chosen) :]:
        updates += [gr.update(visible=False), *(gr.skip() for _ in row.shown[1:])]
    return updates


def read(used: Used, parts: Sequence[Any]) -> Used:
    """Return what is in use now: what the rows hold counts for those that they show.

    Args:
        used: as the rows were filled.
        parts: the ticks of all rows, their weights, their texts. An empty weight is not a number.
    """
    ticks, weights, texts = parts[:ROWS], parts[ROWS : 2 * ROWS], parts[2 * ROWS : 3 * ROWS]
    shown = {
        i: Choice(bool(tick), _number(weight), (text or "").strip())
        for i, tick, weight, text in zip(used.page, ticks, weights, texts, strict=False)
    }
    return replace(used, chosen={**used.chosen, **shown})


def _number(weight: Any) -> float:
    return math.nan if weight is None else float(weight)


def weights_of(chosen: Mapping[str, Choice]) -> dict[str, float | str]:
    """Return ``{id: weight}`` of those that are on, as an order has it."""
    return {i: choice.text or choice.weight for i, choice in chosen.items() if choice.on}


def as_chosen(weights: Mapping[str, float | str]) -> dict[str, Choice]:
    """Return the rows for the weights of an order."""
    return {i: Choice(text=w) if isinstance(w, str) else Choice(weight=w) for i, w in weights.items()}


def _drawn(text: str | None, weight: float | None) -> list[Any]:
    plainly = gr.update(interactive=not (text or "").strip())
    return [weight_text.curve(text or "", weight), plainly, plainly]
