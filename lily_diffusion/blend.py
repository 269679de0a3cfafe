"""Blending: the exact weighted sum of the adapters' updates, set by name."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from .attention_processor import get_adapters, get_state, unknown_adapter


def set_weights(model: nn.Module, names: Sequence[str], weights: Sequence[float]) -> None:
    """Make exactly these adapters active, each at its weight; the others stay loaded and do nothing.

    Raises:
        ValueError: a name is unknown or given twice, the numbers differ in count, or a weight is not a finite number.
    """
    known = get_adapters(model)
    for name in names:
        if name not in known:
            raise ValueError(unknown_adapter(name, list(known)))
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise ValueError(f"Adapter {twice[0]!r} is named twice; give each adapter one weight.")
    if len(names) != len(weights):
        raise ValueError(f"There are {len(names)} adapter names and {len(weights)} weights; give one weight for each.")
    for name, weight in zip(names, weights, strict=True):
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not math.isfinite(weight):
            raise ValueError(f"The weight of adapter {name!r} must be a finite number, not {weight!r}.")
    state = get_state(model)
    if state is not None:
        state.activate(dict(zip(names, map(float, weights), strict=True)))


def get_weights(model: nn.Module) -> dict[str, float]:
    """Active adapters and their weights."""
    state = get_state(model)
    return dict(state.weights) if state else {}


def set_enabled(model: nn.Module, enabled: bool) -> None:
    """Switch all adapters of the model off or on again; weights are kept."""
    state = get_state(model)
    if state is not None:
        state.enabled = enabled
