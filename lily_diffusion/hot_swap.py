"""Hot swap: an adapter takes the place of another under the same name, inside the same tensors.

A compiled model holds on to tensors, sizes and names. A slot is an adapter of a declared rank in which every layer has
an A of its own; any adapter of a smaller rank, however it shares its As, fits into it, padded with zeros.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from .adapter import LilyAdapter
from .fusing import check_not_fused
from .sharing import plain
from .state import get_state

OCCUPANT = "_lily_occupant"  # where a slot keeps the configuration and the groups of what lies in it
TARGET_RANK = "_lily_target_rank"  # where the model keeps the declared rank


def declare_rank(model: nn.Module, target_rank: int) -> None:
    """From now on, adapters are loaded into slots of this rank.

    Raises:
        ValueError: it is not a whole number of at least 1.
    """
    if isinstance(target_rank, bool) or not isinstance(target_rank, int) or target_rank < 1:
        raise ValueError(f"target_rank must be a whole number of at least 1, not {target_rank!r}.")
    plain(model).__dict__[TARGET_RANK] = target_rank


def slot_for(model: nn.Module, adapter: LilyAdapter) -> LilyAdapter:
    """The adapter itself; or in a slot, if a rank was declared for the model.

    Raises:
        ValueError: the adapter's rank is above the declared one.
    """
    rank = plain(model).__dict__.get(TARGET_RANK)
    if rank is None:
        return adapter
    groups = tuple(replace(g, A_of_layer=tuple(range(len(g.layers)))) for g in adapter.groups)
    some = next(adapter.parameters())
    slot = LilyAdapter(replace(adapter.config, r=rank, stride_A=1, num_A=None), groups).to(some.device, some.dtype)
    fill(slot.requires_grad_(False).eval(), adapter)
    return slot


@torch.no_grad()
def fill(slot: LilyAdapter, adapter: LilyAdapter) -> None:
    """Write an adapter into the tensors of another. Layers that only the other has answer zero from now on.

    Raises:
        ValueError: it does not fit: a larger rank, other experts, other routing, or layers that are not there. Nothing
            has changed then.
    """
    _check(slot, adapter)
    r = adapter.config.r
    for tensor in slot.parameters():
        tensor.zero_()
    for layer in adapter.layers:
        A, B, router = slot.tensors(layer)
        a, b, logits = adapter.tensors(layer)
        A[:r].copy_(a)
        B[:, :r].copy_(b)
        (router if router.ndim == 1 else router[:, :r]).copy_(logits)
    slot.config = replace(slot.config, scaling=adapter.config.scaling)
    slot.__dict__[OCCUPANT] = adapter.config, adapter.groups


def check_swap(model: nn.Module, adapter_name: str, adapter: LilyAdapter) -> None:
    """Raise ValueError where `swap` would."""
    state: Any = get_state(model)
    check_not_fused(model, adapter_name)
    _check(state.adapters[adapter_name], adapter)


def swap(model: nn.Module, adapter_name: str, adapter: LilyAdapter) -> None:
    """`fill` the attached adapter of this name; its weight stays what it is.

    Raises:
        ValueError: as `fill`, or it is fused into the weights.
    """
    state: Any = get_state(model)
    check_not_fused(model, adapter_name)
    fill(state.adapters[adapter_name], adapter)
    state.activate(state.weights)


@torch.no_grad()
def occupant(adapter: LilyAdapter) -> LilyAdapter:
    """What lies in a slot, in its own rank and with its own sharing; any other adapter is itself."""
    if OCCUPANT not in adapter.__dict__:
        return adapter
    config, groups = adapter.__dict__[OCCUPANT]
    with torch.device("meta"):
        own = LilyAdapter(config, groups)
    some = next(adapter.parameters())
    own = own.to_empty(device=some.device).to(some.dtype)
    for layer in own.layers:
        A, B, router = adapter.tensors(layer)
        a, b, logits = own.tensors(layer)
        a.copy_(A[: config.r])
        b.copy_(B[:, : config.r])
        logits.copy_(router if router.ndim == 1 else router[:, : config.r])
    return own


def _check(slot: LilyAdapter, adapter: LilyAdapter) -> None:
    own, other = slot.config, adapter.config
    if other.r > own.r:
        raise ValueError(
            f"The adapter has rank {other.r} and there is room for {own.r}: call enable_lily_hotswap with a "
            f"target_rank of at least {other.r} before the first adapter is loaded."
        )
    for name in ("num_B", "routing"):
        if getattr(own, name) != getattr(other, name):
            raise ValueError(
                f"The adapter has {name}={getattr(other, name)!r} and the one in its place {getattr(own, name)!r}: "
                "load it under another name."
            )
    new = [layer for layer in adapter.layers if layer not in slot.number]
    if new:
        raise ValueError(
            f"The adapter has {len(new)} layers that the one in its place has not, first {new[0]}: load it under "
            "another name."
        )
    for index, kind in ((0, "A"), (1, "experts")):
        held: dict[int, int] = {}
        for layer in adapter.layers:
            place, wanted = id(slot.tensors(layer)[index]), id(adapter.tensors(layer)[index])
            if held.setdefault(place, wanted) != wanted:
                raise ValueError(
                    f"The adapter has other {kind} for {layer} than for a layer that shares them in the one in its "
                    "place: call enable_lily_hotswap before the first adapter is loaded, or use another name."
                )
