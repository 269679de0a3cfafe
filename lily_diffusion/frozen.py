"""Frozen adapters: with "static" routing nothing depends on the input, so a layer's update is one matrix, as in LoRA.

With num_B=1 and a group for each layer, an adapter *is* a LoRA: that form is made and read here.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from . import functional
from .adapter import LilyAdapter
from .config import LilyConfig
from .sharing import Group, Projection

Factors = tuple[torch.Tensor, torch.Tensor]  # down (rank, in), up (out, rank): the update of x is up down x


def is_frozen(adapter: LilyAdapter) -> bool:
    """Whether no update depends on more than its own input token: such an adapter can be merged and written as LoRA."""
    return adapter.config.routing == "static"


def check_frozen(config: LilyConfig, name: str = "The adapter") -> None:
    """Raise ValueError, which says what to do, where `is_frozen` is false of the adapter with this config."""
    if config.routing != "static":
        raise ValueError(
            f"{name} chooses its experts by the input (routing={config.routing!r}), so its update is no single matrix: "
            "bake it first (bake_lily, or lily-diffusion bake)."
        )


def projections(adapter: LilyAdapter) -> list[Projection]:
    """The adapted projections, group by group."""
    return [Projection(n, g.projection, g.in_features, g.out_features) for g in adapter.groups for n in g.layers]


@torch.no_grad()
def factors(adapter: LilyAdapter, layer: str) -> Factors:
    """The update of one layer of a frozen adapter as down (r, in) and up (out, r), in float32, scaling included.

    Raises:
        ValueError: the adapter is not frozen.
    """
    check_frozen(adapter.config)
    A, B, logits = (tensor.float() for tensor in adapter.tensors(layer))
    return A.clone(), adapter.config.scaling * functional.mix(functional.route(A, logits, "static"), B).T.contiguous()


def from_factors(parts: Mapping[Projection, Factors]) -> LilyAdapter:
    """An adapter in the form of a LoRA: one expert and one A for each layer, nothing shared.

    Smaller ranks are padded with zeros to the largest; a rank beyond the layer's own width is brought down to it.
    """
    parts = {p: _within_width(down, up) for p, (down, up) in parts.items()}
    r = max(down.shape[0] for down, _ in parts.values())
    groups = tuple(Group(p.attribute, p.in_features, p.out_features, (p.name,), (0,)) for p in parts)
    tensors = {}
    for i, (down, up) in enumerate(parts.values()):
        missing = r - down.shape[0]
        tensors[f"lily_A.{i}.0"] = F.pad(down, (0, 0, 0, missing))
        tensors[f"lily_B.{i}"] = F.pad(up.T, (0, 0, 0, missing))[None].contiguous()
        tensors[f"lily_router.{i}.0"] = down.new_zeros(1)
    with torch.device("meta"):  # nothing is drawn
        adapter = LilyAdapter(LilyConfig(r=r, stride_A=1, num_B=1, routing="static"), groups)
    adapter.load_state_dict(tensors, assign=True)
    return adapter.requires_grad_(False).eval()


def _within_width(down: torch.Tensor, up: torch.Tensor) -> Factors:
    width = min(down.shape[1], up.shape[0])
    if down.shape[0] <= width:
        return down, up
    if width == up.shape[0]:
        return up @ down, torch.eye(width, dtype=up.dtype, device=up.device)
    return torch.eye(width, dtype=down.dtype, device=down.device), up @ down
