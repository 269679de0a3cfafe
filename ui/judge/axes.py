"""Axes of a grid of pictures: what varies, and its values from the text that a user writes.

Numbers: ``0.5, 1, 1.5`` or ``0-1:5`` (five from 0 to 1) or, where they are whole, ``1-4``. Words: the first is replaced
in the prompt by each of them. Weights over the steps are separated by semicolons, as they have commas of their own.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from lily_diffusion.adapter_weight import parse
from ui.keeping.recipe import BLENDS
from ui.messages import Order
from ui.pipeline import blocks, schedulers
from ui.pipeline.orders import SessionError
from ui.session import Session

ADAPTERS = 4  # that an axis can name
MAX_VALUES = 64  # of one axis
MAX_AXIS_TEXT = 2000  # characters
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
_RANGE = re.compile(rf"({_NUMBER})\s*-\s*({_NUMBER})(?:\s*:\s*(\d{{1,3}}))?")


@dataclass(frozen=True)
class Value:
    """One value of an axis: how it is shown, and the order with it."""

    label: str
    apply: Callable[[Order], Order]


@dataclass(frozen=True)
class Kind:
    """A kind of axis. ``cost``: of changing the value, so that the cheapest axis becomes the innermost loop."""

    example: str
    cost: int
    read: Callable[[Session, Order, str], list[Value]]


@dataclass(frozen=True)
class Axis:
    """An axis with its values."""

    name: str
    cost: int
    values: tuple[Value, ...]

    @property
    def sets_weight_of(self) -> str | None:
        """The number of the adapter whose whole weight it sets; others change parts of it."""
        return self.name.rpartition(" ")[2] if self.name.startswith("Weight ") else None


NONE = Axis("", -1, (Value("", lambda order: order),))


def read_axis(session: Session, order: Order, name: str, text: str) -> Axis:
    """Make sense of an axis; an empty name is an axis of one value that changes nothing.

    Raises:
        SessionError: the values cannot be read, there are none or too many, or they do not fit the order.
    """
    if not name:
        return NONE
    if name not in KINDS:
        raise SessionError("There is no axis of that name. Choose one from the list.")
    if len(text) > MAX_AXIS_TEXT:
        raise SessionError(f"The values of '{name}' have {len(text)} characters; at most {MAX_AXIS_TEXT} are read.")
    values = KINDS[name].read(session, order, text)
    values = list({value.label: value for value in values}.values())
    if not values:
        raise SessionError(f"'{name}' needs values, such as {KINDS[name].example}.")
    if len(values) > MAX_VALUES:
        raise SessionError(f"'{name}' has {len(values)} values; at most {MAX_VALUES} are taken.")
    return Axis(name, KINDS[name].cost, tuple(values))


def numbers(text: str, *, whole: bool = False) -> list[float]:
    """Numbers and ranges, separated by commas. Raises SessionError."""
    found: list[float] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        span = _RANGE.fullmatch(part)
        if span:
            found += _span(part, float(span[1]), float(span[2]), span[3], whole)
        elif re.fullmatch(_NUMBER, part):
            found.append(float(part))
        else:
            raise SessionError(f"'{part[:40]}' is no number. Write numbers such as 0.5, 1 or a range such as 0-1:5.")
    if any(not math.isfinite(number) for number in found):
        raise SessionError("A number is too large.")
    if whole and any(number != int(number) for number in found):
        raise SessionError("Whole numbers are needed here, such as 1, 2 or 1-4.")
    return found


def _span(part: str, low: float, high: float, count: str | None, whole: bool) -> list[float]:
    if count is None:
        if not whole or low != int(low) or high != int(high):
            raise SessionError(f"Say how many values the range '{part}' has: {part}:5 are five.")
        step = 1 if high >= low else -1
        if abs(high - low) >= MAX_VALUES:
            raise SessionError(f"The range '{part}' has more than {MAX_VALUES} values.")
        return [float(n) for n in range(int(low), int(high) + step, step)]
    n = int(count)
    if not 2 <= n <= MAX_VALUES:
        raise SessionError(f"The range '{part}' must have from 2 to {MAX_VALUES} values.")
    values = [low + (high - low) * i / (n - 1) for i in range(n)]
    return [float(round(value)) for value in values] if whole else [round(value, 4) for value in values]


def _of_field(field: str, whole: bool, session: Session, order: Order, text: str) -> list[Value]:
    found = numbers(text, whole=whole)
    if field == "seed" and any(number < 0 for number in found):
        raise SessionError("The seeds of a grid must be 0 or more.")
    shown = "guidance" if field == "guidance_scale" else field
    return [
        Value(f"{shown} {number:.10g}", partial(replace, **{field: int(number) if whole else number}))
        for number in found
    ]


def _of_words(session: Session, order: Order, text: str) -> list[Value]:
    try:
        words = [word for word in next(csv.reader([text], skipinitialspace=True), []) if word]
    except csv.Error:
        raise SessionError(
            "The words cannot be read. Separate them by commas, and quote those that have one."
        ) from None
    if not words:
        return []
    if words[0] not in order.prompt:
        raise SessionError(f"The prompt does not have '{words[0][:60]}' in it, which is to be replaced.")
    return [Value(word, partial(_replaced, words[0], word)) for word in words]


def _replaced(word: str, by: str, order: Order) -> Order:
    return replace(order, prompt=order.prompt.replace(word, by))


def _of_schedulers(session: Session, order: Order, text: str) -> list[Value]:
    known = schedulers.names(session.base.pipe)
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    if wanted == ["all"]:
        wanted = known[1:]
    if odd := [name for name in wanted if name not in known]:
        raise SessionError(f"There is no scheduler '{odd[0][:40]}'; there is {', '.join(known[1:])}.")
    return [Value(name, partial(replace, scheduler=name)) for name in wanted]


def _of_blends(session: Session, order: Order, text: str) -> list[Value]:
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    wanted = list(BLENDS) if wanted == ["all"] else wanted
    if odd := [kind for kind in wanted if kind not in BLENDS]:
        raise SessionError(f"There is no blend '{odd[0][:40]}'; there is {', '.join(BLENDS)}.")
    return [Value(kind, partial(replace, blend=kind)) for kind in wanted]


def _adapter(order: Order, number: int) -> str:
    ids = list(order.weights or {})
    if number >= len(ids):
        raise SessionError(f"An axis is about adapter {number + 1}, and {len(ids) or 'none'} is chosen.")
    return ids[number]


def _with(adapter_id: str, weight: float | str, order: Order) -> Order:
    return replace(order, weights=blocks.weighted(order, adapter_id, weight))


def _of_weight(number: int, session: Session, order: Order, text: str) -> list[Value]:
    adapter_id, found = _adapter(order, number), numbers(text)
    name = session.adapters.get(adapter_id).name
    return [Value(f"{name} {weight:.10g}", partial(_with, adapter_id, weight)) for weight in found]


def _of_steps(number: int, session: Session, order: Order, text: str) -> list[Value]:
    adapter_id = _adapter(order, number)
    name = session.adapters.get(adapter_id).name
    values = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        try:
            weight = parse(part)
        except ValueError as error:
            raise SessionError(str(error)[:300]) from None
        values.append(Value(f"{name} {part}", partial(_with, adapter_id, weight.plain)))
    return values


def _of_blocks(number: int, change: str, session: Session, order: Order, text: str) -> list[Value]:
    adapter_id = _adapter(order, number)
    known = blocks.blocks(session, adapter_id)
    wanted = [part.strip() for part in text.split(",") if part.strip()]
    wanted = list(known) if wanted in ([], ["all"]) else wanted
    if odd := [name for name in wanted if name not in known]:
        raise SessionError(f"This adapter has no block '{odd[0][:40]}'; it has {', '.join(known)}.")
    return [Value(f"{change} {block}", partial(_block, adapter_id, block, known, change)) for block in wanted]


def _block(adapter_id: str, block: str, known: Sequence[str], change: str, order: Order) -> Order:
    weight = (order.weights or {})[adapter_id]
    text = blocks.only(weight, block, known) if change == "only" else blocks.without(weight, [block])
    return _with(adapter_id, text, order)


def _kinds() -> dict[str, Kind]:
    each = range(ADAPTERS)
    return {
        **{f"Weight of adapter {n + 1}": Kind("0-1:5", 1, partial(_of_weight, n)) for n in each},
        "Seed": Kind("1-4", 0, partial(_of_field, "seed", True)),
        "Prompt words": Kind("cat, dog, bird", 0, _of_words),
        "Steps": Kind("10-30:3", 0, partial(_of_field, "steps", True)),
        "Guidance": Kind("1, 3, 5", 0, partial(_of_field, "guidance_scale", False)),
        "Scheduler": Kind("DDIM, Euler", 2, _of_schedulers),
        "Blend kind": Kind("sum, ties, dare_ties", 2, _of_blends),
        **{f"Only one block of adapter {n + 1}": Kind("all", 1, partial(_of_blocks, n, "only")) for n in each},
        **{f"Without one block of adapter {n + 1}": Kind("all", 1, partial(_of_blocks, n, "without")) for n in each},
        **{f"Weight over the steps of adapter {n + 1}": Kind("1; 1@0,0@0.5; 0@0,1@1", 1, partial(_of_steps, n))
           for n in each},
    }  # fmt: skip


KINDS = _kinds()
