"""A weight that differs by block and step: ready-made shapes, and the curve that shows what a text means."""

from __future__ import annotations

from collections.abc import Sequence

from lily_diffusion.adapter_weight import AdapterWeight, Keyframes, parse
from lily_diffusion.sharing import in_feed_forward
from ui.keeping.recipe import MAX_WEIGHT, MAX_WEIGHT_PARTS, MAX_WEIGHT_TEXT
from ui.style import plain, spoken

PLAIN = "The same everywhere"
STEPS: dict[str, tuple[tuple[tuple[float, float], ...], bool]] = {  # (fraction, share of the weight), held
    "Fade in": (((0.0, 0.0), (1.0, 1.0)), False),
    "Fade out": (((0.0, 1.0), (1.0, 0.0)), False),
    "Early steps": (((0.0, 1.0), (0.4, 0.0)), True),
    "Late steps": (((0.0, 0.0), (0.4, 1.0)), True),
    "Middle steps": (((0.0, 0.0), (0.5, 1.0), (1.0, 0.0)), False),
}
WIDTH, HEIGHT, SAMPLES = 320, 90, 60


def presets(selectors: Sequence[str]) -> list[str]:
    """The names of ready-made weights for an adapter with these blocks."""
    return [PLAIN, *STEPS, *_block_presets(selectors)]


def apply(preset: str, text: str, weight: float, selectors: Sequence[str]) -> str:
    """Return the text of a weight after a preset: presets of steps keep its blocks, presets of blocks its steps.

    Raises:
        ValueError: ``text`` cannot be read.
    """
    if preset == PLAIN:
        return ""
    parts = dict(parse(text or f"{weight:g}").parts)
    every = parts.pop("", Keyframes(((0.0, weight),)))
    if preset in STEPS:
        points, held = STEPS[preset]
        every = Keyframes(tuple((fraction, share * weight) for fraction, share in points), held)
    else:
        off = _block_presets(selectors).get(preset, ())
        parts = {selector: Keyframes(((0.0, 0.0),)) for selector in off}
    return str(AdapterWeight((("", every), *parts.items())))


def _block_presets(selectors: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Preset -> the selectors that it switches off."""
    whole = [selector for selector in selectors if selector in ("down", "mid", "up")]
    found = {f"Only {one}": tuple(other for other in whole if other != one) for one in whole if len(whole) > 1}
    depth = [s.rpartition(".") for s in selectors if s.startswith("transformer_blocks.") and s[-1].isdigit()]
    if len(depth) > 1 and not whole:
        half = len(depth) // 2
        found["Only the first half"] = (f"transformer_blocks.{half}-",)
        found["Only the second half"] = (f"transformer_blocks.0-{half - 1}",)
    if {"attn1", "attn2"} <= set(selectors):
        others = tuple(s for s in selectors if "." not in s and in_feed_forward(s))
        found |= {"Only cross-attention": ("attn1", *others), "Only self-attention": ("attn2", *others)}
    return found


def curve(text: str, weight: float | None) -> str:
    """Return the HTML of a drawing: a line for each block that the text names, over the steps from first to last."""
    if len(text) > MAX_WEIGHT_TEXT:
        return _problem(f"At most {MAX_WEIGHT_TEXT} characters are read.")
    try:
        parts = dict(parse(text.strip() or float(weight or 0)).parts)
    except ValueError as error:
        return _problem(str(error)[:300])
    if len(parts) > MAX_WEIGHT_PARTS:
        return _problem(f"At most {MAX_WEIGHT_PARTS} blocks can be named.")
    numbers = [number for frames in parts.values() for _, number in frames.points]
    if max(map(abs, numbers)) > MAX_WEIGHT:
        return _problem(f"Weights go from {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}.")
    every = parts.pop("", Keyframes(((0.0, 1.0),)))
    steps = [n / SAMPLES for n in range(SAMPLES + 1)]
    lines = {"everywhere" if not parts else "elsewhere": [every.at(x) for x in steps]}
    lines |= {selector: [every.at(x) * frames.at(x) for x in steps] for selector, frames in list(parts.items())[:5]}
    return _drawing(lines)


def _drawing(lines: dict[str, list[float]]) -> str:
    low = min(0.0, *(min(line) for line in lines.values()))
    high = max(1.0, *(max(line) for line in lines.values()))

    def place(n: int, value: float) -> str:
        return f"{n * WIDTH / SAMPLES:.1f},{4 + (high - value) / (high - low) * (HEIGHT - 8):.1f}"

    paths = "".join(
        f'<polyline class="line{i}" points="{" ".join(place(n, value) for n, value in enumerate(line))}"/>'
        for i, line in enumerate(lines.values())
    )
    grid = "".join(f'<polyline class="grid" points="{place(0, y)} {place(SAMPLES, y)}"/>' for y in (0.0, 1.0))
    names = "".join(f'<span class="line{i}">{plain(name)}</span>' for i, name in enumerate(lines))
    return (
        f'<div class="curve"><svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="Weight over the steps">{grid}{paths}</svg>'
        f'<div class="axis"><span>first step</span><span class="names">{names}</span><span>last step</span></div></div>'
    )


def _problem(text: str) -> str:
    return f'<p class="curve-problem">{spoken(text)}</p>'
