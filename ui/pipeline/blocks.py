"""The blocks of a denoiser as the adapters see them, and adapter weights with some of the blocks switched off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from lily_diffusion.adapter_weight import ALIASES, AdapterWeight, Keyframes, known_selectors, parse
from lily_diffusion.sharing import DENOISERS
from ui.messages import Order
from ui.pipeline.orders import SessionError, layers_of
from ui.session import Session

MAX_BLOCKS = 16  # more than these are taken together in runs, such as transformer_blocks.0-3
OFF = Keyframes(((0.0, 0.0),))


def blocks(session: Session, adapter_id: str) -> list[str]:
    """Selectors of the blocks that an adapter changes, in forward order; each layer of its denoiser is in one.

    Raises:
        SessionError, AdapterFolderError: there is no such adapter, it cannot be used, or it changes no denoiser.
    """
    file = session.adapters.get(adapter_id)
    if file.header is None or (reason := session.reason(file)):
        raise SessionError(f"The adapter '{file.name}' cannot be used: {file.problem or reason}")
    component = file.header.component
    if component not in DENOISERS:
        raise SessionError(f"The adapter '{file.name}' changes only the text encoder, which has no blocks to look at.")
    return blocks_of(layers_of(file.header, session.base)[component])


def blocks_of(layers: Sequence[str], most: int = MAX_BLOCKS) -> list[str]:
    """As `blocks`, from the layers' names."""
    short = {full: alias for alias, full in ALIASES.items()}
    found = set()
    for layer in layers:
        first, *rest = layer.split(".")
        first = short.get(first, first)
        found.add(f"{first}.{rest[0]}" if rest and rest[0].isdigit() else first)
    ordered = [selector for selector in known_selectors(layers) if selector in found]
    return ordered if len(ordered) <= most else _in_runs(ordered, math.ceil(len(ordered) / most))


def without(weight: float | str, off: Sequence[str]) -> str:
    """A weight with these blocks at 0 and all else as it was."""
    kept = [(selector, frames) for selector, frames in parse(weight).parts if selector not in off]
    if all(selector for selector, _ in kept):
        kept.insert(0, ("", Keyframes(((0.0, 1.0),))))
    return str(AdapterWeight((*kept, *((block, OFF) for block in off))))


def only(weight: float | str, block: str, known: Sequence[str]) -> str:
    """A weight with all blocks but one at 0."""
    return without(weight, [other for other in known if other != block])


def weighted(order: Order, adapter_id: str, weight: float | str) -> dict[str, float | str]:
    """The order's weights with another one for this adapter; their order stays."""
    return {**(order.weights or {}), adapter_id: weight}


def _in_runs(selectors: Sequence[str], size: int) -> list[str]:
    runs = []
    for name, members in groupby(selectors, key=lambda selector: selector.partition(".")[0]):
        numbers = [selector.partition(".")[2] for selector in members]
        for start in range(0, len(numbers), size):
            part = numbers[start : start + size]
            runs.append(name if part == [""] else f"{name}.{part[0]}" + (f"-{part[-1]}" if len(part) > 1 else ""))
    return runs
