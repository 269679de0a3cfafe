"""How much an adapter counts: one number, or numbers by block, attention kind and projection, and by denoising step.

As text: ``0.8``, ``0.8,up.1=0.5,attn2=0``, ``1@0,0.2@0.6`` (linear between keyframes), ``1@0,0@0.5,held``; and with
weights for text encoders of their own, ``0.8,text_encoder=0.5``.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .sharing import DENOISERS, TEXT_ENCODERS, in_feed_forward

WeightSpec = float | str | Mapping[str, Any]
ALIASES = {"down": "down_blocks", "mid": "mid_block", "up": "up_blocks"}  # as diffusers' own weight dicts spell them
HELD = "held"


@dataclass(frozen=True)
class Keyframes:
    """Weights at fractions of the denoising: 0 is the first step, 1 the last; beyond the ends they stay as they are."""

    points: tuple[tuple[float, float], ...]  # (fraction, weight), fractions rising
    held: bool = False  # each weight holds until the next keyframe; otherwise straight lines join them

    def __post_init__(self) -> None:
        fractions = [fraction for fraction, _ in self.points]
        if not all(0 <= fraction <= 1 for fraction in fractions) or sorted(set(fractions)) != fractions:
            raise ValueError(f"Keyframes must be at rising fractions of the steps from 0 to 1, not at {fractions}.")

    def at(self, fraction: float) -> float:
        """The weight at this fraction of the steps."""
        before = [point for point in self.points if point[0] <= fraction]
        after = [point for point in self.points if point[0] > fraction]
        if not before:
            return self.points[0][1]
        if self.held or not after:
            return before[-1][1]
        (x0, y0), (x1, y1) = before[-1], after[0]
        return y0 + (y1 - y0) * (fraction - x0) / (x1 - x0)

    def __str__(self) -> str:
        if len(self.points) == 1:
            return f"{self.points[0][1]:.12g}"
        return ",".join([*(f"{w:.12g}@{f:.12g}" for f, w in self.points), *([HELD] if self.held else [])])


@dataclass(frozen=True)
class AdapterWeight:
    """Selectors with their keyframes. A layer's weight is the product over all selectors that name it."""

    parts: tuple[tuple[str, Keyframes], ...]  # the selector "" names every layer

    @property
    def is_stepped(self) -> bool:
        """Whether it changes while a picture is made."""
        return any(len(frames.points) > 1 for _, frames in self.parts)

    @property
    def plain(self) -> float | str:
        """The number if it is only that, otherwise the text that `parse` reads."""
        simple = [selector for selector, _ in self.parts] == [""] and not self.is_stepped
        return self.parts[0][1].points[0][1] if simple else str(self)

    def by_layer(self, layers: Iterable[str], fraction: float = 0.0) -> dict[str, float]:
        """Layer -> weight at this fraction of the steps."""
        now = [(_pieces(selector), frames.at(fraction)) for selector, frames in self.parts]
        return {
            layer: math.prod((value for pieces, value in now if _names(pieces, layer.split("."))), start=1.0)
            for layer in layers
        }

    def check(self, layers: Sequence[str]) -> None:
        """Raise ValueError, listing the known names, when a selector names none of the layers."""
        split = [layer.split(".") for layer in layers]
        for selector, _ in self.parts:
            if selector[:1].isdigit() or not any(_names(_pieces(selector), layer) for layer in split):
                known = known_selectors(layers)
                near = difflib.get_close_matches(selector, known, n=1, cutoff=0.6)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise ValueError(f"{selector!r} names no adapted layer.{hint} Known: {', '.join(known)}.")

    def __str__(self) -> str:
        first, *others = self.parts
        texts = [f"{first[0]}={first[1]}" if first[0] else str(first[1])]
        return ",".join([*texts, *(f"{selector or 'all'}={frames}" for selector, frames in others)])


def parse(spec: WeightSpec) -> AdapterWeight:
    """Make sense of a weight.

    Args:
        spec: a number; a text as above; or selector -> number, text or further dict, such as
            ``{"down": 0.5, "up": {"block_1": [0, 0.5, 1]}}``, where a list counts attentions.

    Raises:
        ValueError: it is none of these, or a number is not finite.
    """
    if isinstance(spec, AdapterWeight):
        return spec
    if isinstance(spec, str):
        return _parse_text(spec)
    parts: dict[str, Keyframes] = {}
    for path, value in _flatten(spec, ()):
        selector = ".".join(path).removeprefix("all.") if path != ("all",) else ""
        if selector in parts:
            raise ValueError(f"{selector or 'all'!r} is given two weights.")
        parts[selector] = value
    if not parts:
        raise ValueError("A dict of weights must name at least one block, such as {'mid': 0.5}.")
    return AdapterWeight(tuple(parts.items()))


def split(weight: AdapterWeight, components: Sequence[str]) -> dict[str, AdapterWeight]:
    """The weight of each part of an adapter.

    What stands under a part's name, such as "text_encoder", belongs to that part; a plain number to every part that has
    none of its own; and blocks to the denoiser. The text is encoded before the first step, so of a plain number that
    changes by step the text encoders take the value at the start.

    Args:
        weight: of the whole adapter.
        components: of which it has parts, the denoiser first.

    Raises:
        ValueError: a part is named that the adapter has not, a block where it has none for the denoiser, something
            twice, or a text encoder's own weight changes by step.
    """
    own: dict[str, dict[str, Keyframes]] = {component: {} for component in components}
    named: set[tuple[str, str]] = set()
    for selector, frames in weight.parts:
        if not selector:
            for component in components:
                own[component].setdefault("", _at_start(frames) if component in TEXT_ENCODERS else frames)
            continue
        component, rest = _owner(selector, components)
        if component in TEXT_ENCODERS and len(frames.points) > 1:
            raise ValueError(f"The text is encoded before the first step, so {selector} cannot change by step.")
        if (component, rest) in named:
            raise ValueError(f"{selector!r} is given two weights.")
        named.add((component, rest))
        own[component][rest] = frames
    return {component: AdapterWeight(tuple(parts.items()) or parse(1.0).parts) for component, parts in own.items()}


def joined(weights: Mapping[str, AdapterWeight]) -> AdapterWeight:
    """The inverse of `split`: one weight for parts that have these, the denoiser's first."""
    first = next(iter(weights))
    parts = weights[first].parts
    if first in TEXT_ENCODERS:
        parts = tuple((selector and f"{first}.{selector}", frames) for selector, frames in parts)
    expected = split(AdapterWeight(parts), list(weights))
    others = [component for component in weights if weights[component] != expected[component]]
    more = [(f"{c}.{selector}" if selector else c, frames) for c in others for selector, frames in weights[c].parts]
    return AdapterWeight((*parts, *more))


def known_selectors(layers: Sequence[str]) -> list[str]:
    """Names that select some of the layers: blocks, kinds of attention or feed-forward modules, single layers."""
    short = {full: alias for alias, full in ALIASES.items()}
    blocks: dict[str, None] = {}  # in forward order, each once
    kinds: dict[str, None] = {}
    projections: dict[str, None] = {}
    for layer in layers:
        first, *rest = layer.split(".")
        pieces = [short.get(first, first), *rest]
        inside = in_feed_forward(layer)
        end = -inside.count(".") or (-2 if pieces[-1].isdigit() else -1)
        blocks[pieces[0]] = None
        if len(pieces) > 1 and pieces[1].isdigit():
            blocks[".".join(pieces[:2])] = None
        if len(pieces) > 1 - end and not pieces[end - 1].isdigit():
            kinds[pieces[end - 1]] = None
        projections[inside or ".".join(pieces[end:])] = None
    order = {name: i for i, name in enumerate([*ALIASES, *(block.split(".")[0] for block in blocks)])}

    def place(block: str) -> tuple[int, int]:
        name, _, number = block.partition(".")
        return order[name], int(number or -1)

    return [*dict.fromkeys([*sorted(blocks, key=place), *kinds, *projections])]


def _flatten(spec: Any, path: tuple[str, ...]) -> Iterable[tuple[tuple[str, ...], Keyframes]]:
    if isinstance(spec, Mapping):
        for key, value in spec.items():
            if not isinstance(key, str) or not key:
                raise ValueError(f"Blocks are named by strings, not by {key!r}.")
            yield from _flatten(value, (*path, re.sub(r"^block_(?=\d+$)", "", key)))
    elif isinstance(spec, (list, tuple)) and path:
        for i, value in enumerate(spec):
            yield from _flatten(value, (*path, "attentions", str(i)))
    elif isinstance(spec, str) and path:
        weight = _parse_text(spec)
        if [selector for selector, _ in weight.parts] != [""]:
            raise ValueError(f"The weight of {'.'.join(path)} must be a number or keyframes, not {spec!r}.")
        yield path, weight.parts[0][1]
    else:
        yield path or ("all",), Keyframes(((0.0, _number(spec, ".".join(path))),))


def _parse_text(text: str) -> AdapterWeight:
    entries: list[tuple[str, list[str]]] = []
    for token in text.split(","):
        selector, mark, value = token.strip().rpartition("=")
        if mark or not entries:
            selector = selector.strip()
            entries.append(("" if selector == "all" else selector, []))
        entries[-1][1].append(value.strip())
    selectors = [selector for selector, _ in entries]
    if len(set(selectors)) < len(selectors):
        raise ValueError(f"The weight {text!r} names a block twice.")
    return AdapterWeight(tuple((selector, _keyframes(values, text)) for selector, values in entries))


def _keyframes(values: list[str], text: str) -> Keyframes:
    held = len(values) > 1 and values[-1] == HELD
    points = []
    for value in values[: len(values) - held]:
        weight, mark, fraction = value.partition("@")
        points.append((_number(fraction, text) if mark else 0.0, _number(weight, text)))
    if len(points) == 1 and (held or "@" in values[0]):
        raise ValueError(
            f"In the weight {text!r}, one keyframe alone changes nothing: write {points[0][1]:g}, or add one."
        )
    if len(points) > 1 and not all("@" in value for value in values[: len(values) - held]):
        raise ValueError(
            f"In the weight {text!r}, every one of several keyframes needs its @fraction, such as 1@0,0@0.5."
        )
    return Keyframes(tuple(points), held)


def _number(value: Any, where: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) or value is None else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        place = f" (in {where!r})" if where and where != value else ""
        raise ValueError(
            f"A weight must be a finite number, or text such as 0.8,up.1=0.5 or 1@0,0@0.5, not {value!r}{place}."
        )
    return number


def _owner(selector: str, components: Sequence[str]) -> tuple[str, str]:
    """The part that a selector belongs to, and what it selects there."""
    first, _, rest = selector.partition(".")
    if first in (*DENOISERS, *TEXT_ENCODERS):
        if first not in components:
            raise ValueError(f"{first!r} is no part of the adapter, which has {', '.join(components)}.")
        return first, "" if rest == "all" else rest.removeprefix("all.")
    if components[0] in TEXT_ENCODERS:
        raise ValueError(f"{selector!r} is for a denoiser, and the adapter has only {', '.join(components)}.")
    return components[0], selector


def _at_start(frames: Keyframes) -> Keyframes:
    return Keyframes(((0.0, frames.at(0.0)),))


def _pieces(selector: str) -> list[str]:
    first, *rest = selector.split(".")
    return [ALIASES.get(first, first), *rest] if selector else []


def _names(pieces: list[str], layer: list[str]) -> bool:
    """Whether the pieces stand in the layer's name, side by side."""
    starts = range(len(layer) - len(pieces) + 1)
    return any(all(map(_same, pieces, layer[start : start + len(pieces)])) for start in starts)


def _same(piece: str, name: str) -> bool:
    span = re.fullmatch(r"(\d+)-(\d*)", piece)
    if span and name.isdigit():
        return int(span[1]) <= int(name) and (not span[2] or int(name) <= int(span[2]))
    return piece == name
