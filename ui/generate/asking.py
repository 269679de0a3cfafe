"""From the page's components to what the session takes: an order, and errors that people can read."""

from __future__ import annotations

import html
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import gradio as gr

from ui.generate import adapter_rows
from ui.generate.adapter_rows import Used
from ui.keeping.recipe import MAX_SEED, SUM
from ui.keeping.stored import Style
from ui.messages import Order
from ui.session import USER_ERRORS
from ui.style import error
from ui.translations import said

NEW, FIXED, COUNT_UP = "Random", "Fixed", "Count up"
SEED_MODES = (NEW, FIXED, COUNT_UP)
OWN_SCHEDULER = "Its own"
NUM_SETTINGS = 13  # components of `order_of` before the styles and the rows


@contextmanager
def user_errors() -> Iterator[None]:
    """Show our own errors as they are; log any other and show only its kind."""
    try:
        yield
    except USER_ERRORS as problem:
        raise error(str(problem)) from None
    except (gr.Error, GeneratorExit):
        raise
    except Exception as problem:
        logging.getLogger(__name__).exception("The page could not do what was asked.")
        raise error(f"That did not work ({type(problem).__name__}). The terminal of the page says more.") from None


def order_of(values: Sequence[Any], styles: Mapping[str, Style]) -> Order:
    """Return the order that the components say.

    Args:
        values: prompt, negative prompt, steps, guidance, width, height, count, scheduler, seed, way with seeds, blend,
            preview on, preview steps; names of styles; and the adapters in use with what their rows hold.
        styles: the styles that there are.
    """
    (
        prompt, negative, steps, guidance, width, height, count, scheduler, seed, mode, blend, on, every
    ) = values[:NUM_SETTINGS]  # fmt: skip
    prompt, negative = str(prompt or ""), str(negative or "")
    for name in values[NUM_SETTINGS] or ():
        if name in styles:
            prompt, negative = styles[name].put_on(prompt, negative)
    return Order(
        prompt, negative, steps, guidance, width, height,
        seed=-1 if mode == NEW else seed,
        count=count,
        weights=adapter_rows.weights_of(used_of(values[NUM_SETTINGS + 1 :]).chosen),
        scheduler="" if scheduler in (None, OWN_SCHEDULER) else str(scheduler),
        preview=every if on else 0,
        blend=str(blend or SUM),
    )  # fmt: skip


def used_of(state: Sequence[Any]) -> Used:
    """Return the adapters in use, from what the page knew of them and the rows' ticks, weights and texts."""
    return adapter_rows.read(Used.of(state[0]), state[1:])


def next_seed(mode: str, first: int, last: int) -> int:
    """The seed that the box shows after a run, so that it can be kept: its first, or the next to come."""
    return (last + 1) % (MAX_SEED + 1) if mode == COUNT_UP else first


def told(text: str) -> None:
    """Say something for a moment; the text is shown as it is."""
    gr.Info(html.escape(said(text)), duration=4)


def warned(text: str) -> None:
    """Warn of something for a moment; the text is shown as it is."""
    gr.Warning(html.escape(said(text)))
