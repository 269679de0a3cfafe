"""The list of adapters on the page: a fixed number of rows that are filled, shown and hidden.

File names and texts from headers only go into plain components or through ``style.plain``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ui.messages import AdapterCard
from ui.recipe import MAX_WEIGHT
from ui.style import plain

MAX_ROWS = 16  # more adapters than this are reached through the search box
SLIDER = (-1.0, 2.0)

_TO_SLIDER = f"(w) => Math.max({SLIDER[0]}, Math.min({SLIDER[1]}, w ?? 0))"
_INSERT = """(prompt, words) => {
    const wanted = words.replace(/^\\+ /, '');
    if (prompt.includes(wanted)) return prompt;
    return prompt.trim() ? prompt.trim().replace(/,$/, '') + ', ' + wanted : wanted;
}"""


@dataclass(frozen=True)
class Row:
    """The components of one row; the number box holds the weight, the slider follows it."""

    box: gr.Column
    on: gr.Checkbox
    slider: gr.Slider
    weight: gr.Number
    about: gr.Markdown
    words: gr.Button
    reason: gr.Markdown

    @property
    def shown(self) -> list[Any]:
        return [self.box, self.on, self.slider, self.weight, self.about, self.words, self.reason]


def build(prompt: gr.Textbox) -> list[Row]:
    """Make the rows, hidden, with their client-side wiring (slider and number box, trigger words to the prompt)."""
    return [_build_row(number, prompt) for number in range(MAX_ROWS)]


def _build_row(number: int, prompt: gr.Textbox) -> Row:
    with gr.Column(visible=False, elem_classes=["adapter"], elem_id=f"adapter-{number}") as box:
        with gr.Row():
            on = gr.Checkbox(label="", container=False, scale=1, min_width=100, elem_classes=["name"])
            words = gr.Button(size="sm", scale=0, min_width=60, elem_classes=["words"])
        with gr.Row(elem_classes=["weights"]):
            slider = gr.Slider(
                *SLIDER, 1.0, step=0.05, show_label=False, container=False, scale=4, min_width=100,
                label="weight", elem_classes=["weight-slider"],
            )  # fmt: skip
            weight = gr.Number(
                1.0, minimum=-MAX_WEIGHT, maximum=MAX_WEIGHT, step=0.05, show_label=False, container=False, scale=0,
                min_width=84, label="weight", elem_classes=["weight"],
            )  # fmt: skip
        about = gr.Markdown(elem_classes=["quiet", "about"])
        reason = gr.Markdown(elem_classes=["warn"])
    private: dict[str, Any] = {"fn": None, "queue": False, "api_visibility": "private"}
    slider.input(inputs=slider, outputs=weight, js="(w) => w", **private)
    weight.input(inputs=weight, outputs=slider, js=_TO_SLIDER, **private)
    words.click(inputs=[prompt, words], outputs=prompt, js=_INSERT, **private)
    return Row(box, on, slider, weight, about, words, reason)


def fill(rows: Sequence[Row], cards: Sequence[AdapterCard], chosen: Mapping[str, float]) -> list[Any]:
    """Return one update for every component of every row, in the order of ``Row.shown``.

    ``chosen`` maps the ids of adapters that are on to their weights.
    """
    updates: list[Any] = []
    for number in range(len(rows)):
        if number >= len(cards):
            updates += [gr.update(visible=False), *(gr.skip() for _ in rows[number].shown[1:])]
            continue
        card = cards[number]
        usable = card.reason is None
        weight = chosen.get(card.id, 1.0)
        updates += [
            gr.update(visible=True),
            gr.update(label=card.name, value=card.id in chosen and usable, interactive=usable),
            gr.update(value=min(max(weight, SLIDER[0]), SLIDER[1]), visible=usable),
            gr.update(value=weight, visible=usable),
            gr.update(value=plain(card.about), visible=bool(card.about)),
            gr.update(value="+ " + ", ".join(card.trigger_words), visible=usable and bool(card.trigger_words)),
            gr.update(value=plain(card.reason or ""), visible=not usable),
        ]
    return updates


def pick(cards: Sequence[AdapterCard], search: str | None, chosen: Mapping[str, float]) -> list[AdapterCard]:
    """Return the cards to show: those that are on, then those that match the search, the unusable last."""
    wanted = (search or "").lower().strip()
    on = [card for card in cards if card.id in chosen]
    match = [c for c in cards if c.id not in chosen and wanted in f"{c.name} {' '.join(c.trigger_words)}".lower()]
    return [*on, *sorted(match, key=lambda card: card.reason is not None)][:MAX_ROWS]


def read(ids: Sequence[str], ticks: Sequence[bool], weights: Sequence[float | None]) -> dict[str, float]:
    """Return ``{id: weight}`` of the rows that are on; an empty weight box is not a number."""
    return {
        i: float("nan" if weight is None else weight)
        for i, tick, weight in zip(ids, ticks, weights, strict=False)
        if tick
    }
