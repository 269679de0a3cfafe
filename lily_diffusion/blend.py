"""Blending: the exact weighted sum of the adapters' updates, by adapter, by block and by denoising step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from .adapter_weight import AdapterWeight, WeightSpec, parse
from .fusing import check_not_fused
from .state import get_adapters, get_state, unknown_adapter
from .step_clock import StepClock


def set_weights(model: nn.Module, names: Sequence[str], weights: Sequence[WeightSpec], pipe: Any = None) -> None:
    """Make exactly these adapters active, each at its weight; the others stay loaded and do nothing.

    Args:
        model: the denoiser, or a text encoder.
        names, weights: one weight, as `adapter_weight.parse` reads it, for each name.
        pipe: the pipeline whose scheduler tells the step, for weights that change with it. Without one,
            `set_fraction` must.

    Raises:
        ValueError: a name is unknown or given twice, the numbers differ in count, a weight is not a finite number, or
            a block in it is unknown. Nothing has changed then.
    """
    parsed = check_weights(model, names, weights)
    state = get_state(model)
    if state is None:
        return
    stepped = any(weight.is_stepped for weight in parsed.values())
    clock = StepClock(pipe, state.advance) if stepped and pipe is not None else None
    state.stop_clock()
    state.clock, state.fraction = clock, 0.0
    if clock is not None:
        clock.watch()
    state.activate(parsed)


def check_weights(model: nn.Module, names: Sequence[str], weights: Sequence[WeightSpec]) -> dict[str, AdapterWeight]:
    """What `set_weights` would set. Raises as that does."""
    known = get_adapters(model)
    check_names(names, weights, list(known))
    parsed = {}
    for name, weight in zip(names, weights, strict=True):
        check_not_fused(model, name)
        try:
            parsed[name] = parse(weight)
            parsed[name].check(known[name].layers)
        except ValueError as error:
            raise ValueError(f"The weight of adapter {name!r}: {error}") from None
    return parsed


def check_names(names: Sequence[str], weights: Sequence[Any], known: list[str]) -> None:
    """Raise ValueError for a name that is unknown or given twice, and for more or fewer weights than names."""
    for name in names:
        if name not in known:
            raise ValueError(unknown_adapter(name, known))
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise ValueError(f"Adapter {twice[0]!r} is named twice; give each adapter one weight.")
    if len(names) != len(weights):
        raise ValueError(f"There are {len(names)} adapter names and {len(weights)} weights; give one weight for each.")


def set_fraction(model: nn.Module, fraction: float) -> None:
    """Say that this fraction of the denoising steps is done, in a loop of one's own: 0 before the first, 1 at the last.

    Raises:
        ValueError: it is not from 0 to 1.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"The fraction of steps must be from 0 to 1, not {fraction!r}.")
    state = get_state(model)
    if state is not None:
        state.stop_clock()
        state.advance(float(fraction))


def get_weights(model: nn.Module) -> dict[str, float | str]:
    """Active adapters and their weights: numbers, or text where blocks or steps differ."""
    state = get_state(model)
    return {name: weight.plain for name, weight in state.weights.items()} if state else {}


def set_enabled(model: nn.Module, enabled: bool) -> None:
    """Switch all adapters of the model off or on again; weights are kept.

    Raises:
        ValueError: an adapter is fused into the weights, where it cannot be switched off.
    """
    state = get_state(model)
    if state is not None:
        if state.fused and not enabled:
            raise ValueError(f"Adapter {next(iter(state.fused))!r} is fused into the weights; call unfuse_lily first.")
        state.enabled = enabled
