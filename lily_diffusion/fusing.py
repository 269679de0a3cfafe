"""Fusing: frozen adapters added into the model's own weights, and taken out again, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from .frozen import check_frozen, factors
from .sharing import FUSED, plain
from .state import get_state, unknown_adapter


@torch.no_grad()
def fuse(model: nn.Module, adapter_names: Sequence[str] | None = None, lily_scale: float = 1.0) -> None:
    """Add the updates of frozen adapters, each at its weight times `lily_scale`, to the weights they belong to.

    The sum is made in float32. The weights that were there are kept on the CPU, for `unfuse`.

    Args:
        model: the denoiser, or a text encoder.
        adapter_names: which of the active adapters; None takes all of them.
        lily_scale: multiplies every weight.

    Raises:
        ValueError: an adapter is unknown, not active or routed, its weight changes by step, something is fused already,
            the adapters are switched off, or a layer's weights are quantised, offloaded or shared. Nothing has changed
            then.
    """
    model, state = plain(model), get_state(model)
    if state is not None and state.fused:
        raise ValueError(f"{', '.join(map(repr, state.fused))} is fused already; call unfuse_lily first.")
    if isinstance(lily_scale, bool) or not isinstance(lily_scale, (int, float)) or not math.isfinite(lily_scale):
        raise ValueError(f"lily_scale must be a finite number, not {lily_scale!r}.")
    active: dict[str, Any] = state.weights if state is not None else {}
    names = list(active) if adapter_names is None else list(dict.fromkeys(adapter_names))
    for name in names:
        if name not in active:
            raise ValueError(f"{unknown_adapter(name, list(active))} Only active adapters are fused.")
    if state is None or not names:
        raise ValueError("There is no active adapter to fuse.")
    if not state.enabled:
        raise ValueError("The adapters are switched off; call enable_lily before fusing.")
    linears: dict[str, Any] = {
        layer: model.get_submodule(layer) for name in names for layer in state.adapters[name].layers
    }
    _check(state, names, linears)
    updated = {}
    for layer, linear in linears.items():
        total = linear.weight.detach().float()
        for name in names:
            level = state.weights[name].by_layer([layer])[layer] * lily_scale
            if layer in state.adapters[name].number and level:
                down, up = (t.to(total.device) for t in factors(state.adapters[name], layer))
                total = total + level * (up @ down)
        updated[layer] = total.to(linear.weight.dtype)
        if not updated[layer].isfinite().all():
            raise ValueError(f"With the adapter, the weights of {layer} are not finite; nothing is fused.")
    state.originals = {layer: linear.weight.detach().cpu().clone() for layer, linear in linears.items()}
    _put(model, updated)
    state.fused = {name: state.weights[name] for name in names}
    state.weights = {name: weight for name, weight in state.weights.items() if name not in names}


@torch.no_grad()
def unfuse(model: nn.Module) -> None:
    """Put back every weight that `fuse` changed, and make its adapters active again as they were.

    Raises:
        ValueError: the weights were quantised, offloaded or replaced by others since. Nothing has changed then.
    """
    check_can_unfuse(model)
    model, state = plain(model), get_state(model)
    if state is None:
        return
    _put(model, state.originals)
    state.originals = {}
    fused, state.fused = state.fused, {}
    state.activate({**state.weights, **fused})


def check_can_unfuse(model: nn.Module) -> None:
    """Raise ValueError where `unfuse` would."""
    model, state = plain(model), get_state(model)
    linears: dict[str, Any] = {layer: model.get_submodule(layer) for layer in (state.originals if state else ())}
    for layer, linear in linears.items():
        _check_plain(layer, linear.weight, "it cannot be unfused any more")
        if state is not None and linear.weight.shape != state.originals[layer].shape:
            raise ValueError(f"The weights of {layer} have another shape than when they were fused.")


def fused_adapters(model: nn.Module) -> list[str]:
    """Names of the adapters that are in the model's weights now."""
    state = get_state(model)
    return list(state.fused) if state is not None else []


def _check(state: Any, names: Sequence[str], linears: dict[str, Any]) -> None:
    for name in names:
        check_frozen(state.adapters[name].config, f"Adapter {name!r}")
        if state.weights[name].is_stepped:
            raise ValueError(f"The weight of adapter {name!r} changes by step; set one weight before fusing.")
    seen: dict[int, str] = {}
    for layer, linear in linears.items():
        weight = linear.weight
        _check_plain(layer, weight, "fuse before that")
        if id(weight) in seen:
            raise ValueError(f"{layer} and {seen[id(weight)]} are one weight with two updates, which cannot be fused.")
        seen[id(weight)] = layer


def check_not_fused(model: nn.Module, adapter_name: str) -> None:
    """Raise ValueError for an adapter that is in the model's weights now, where it can be neither set nor removed."""
    if adapter_name in fused_adapters(model):
        raise ValueError(f"Adapter {adapter_name!r} is fused into the weights; call unfuse_lily first.")


def _check_plain(layer: str, weight: torch.Tensor, advice: str) -> None:
    if weight.is_meta:
        raise ValueError(f"The weights of {layer} are offloaded: {advice}.")
    plain_type = type(weight.data) in (torch.Tensor, nn.Parameter)
    if not weight.is_floating_point() or weight.dtype.itemsize < 2 or not plain_type:
        raise ValueError(f"The weights of {layer} are quantised ({type(weight).__name__}, {weight.dtype}): {advice}.")


def _put(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    for layer, weight in {**weights, **_aliases(model, weights)}.items():
        target: Any = model.get_submodule(layer).weight
        target.data.copy_(weight)


def _aliases(model: nn.Module, updated: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """New weights of the projections that ``fuse_qkv_projections`` has put beside the updated ones, row by row."""
    found = {}
    for attention in dict.fromkeys(layer.rpartition(".")[0] for layer in updated):
        modules: Any = model.get_submodule(attention)._modules
        for alias, parts in FUSED.items():
            if alias in modules and all(part in modules for part in parts):
                rows = [updated.get(f"{attention}.{part}", modules[part].weight.detach()) for part in parts]
                found[f"{attention}.{alias}"] = torch.cat(rows)
    return found
