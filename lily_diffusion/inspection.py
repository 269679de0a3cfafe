"""What an adapter and its routers do: entropy, use of the experts, likeness among them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from .adapter import LilyAdapter
from .attention_processor import get_adapters


class RoutingRecorder:
    """Sums up, layer by layer, the probabilities that the routers give while it listens."""

    def __init__(self) -> None:
        self._sum: dict[str, torch.Tensor] = {}
        self._entropy: dict[str, torch.Tensor] = {}
        self._count: dict[str, int] = {}

    def see(self, layer: str, p: torch.Tensor) -> None:
        """Take in probabilities of shape (..., num_B)."""
        p = p.detach().float().flatten(0, -2) if p.ndim > 1 else p.detach().float()[None]
        entropy = -(p * p.clamp_min(1e-12).log()).sum(-1) / math.log(p.shape[-1])
        self._sum[layer] = self._sum.get(layer, 0) + p.mean(0)
        self._entropy[layer] = self._entropy.get(layer, 0) + entropy.mean()
        self._count[layer] = self._count.get(layer, 0) + 1

    def usage(self) -> dict[str, list[float]]:
        """Layer -> mean probability of each expert."""
        return {layer: (total / self._count[layer]).tolist() for layer, total in self._sum.items()}

    def entropy(self) -> dict[str, float]:
        """Layer -> mean entropy of the mixture over log(num_B): 1 uses all experts equally, 0 only one."""
        return {layer: float(total / self._count[layer]) for layer, total in self._entropy.items()}


@contextmanager
def record_routing(model: nn.Module, adapter_name: str | None = None) -> Iterator[RoutingRecorder]:
    """Listen to the routers of an adapter (None: of all) while the model runs inside the ``with`` block."""
    adapters = [a for name, a in get_adapters(model).items() if adapter_name in (None, name)]
    if not adapters:
        raise ValueError(f"There is no adapter {adapter_name or ''} to listen to.".replace("  ", " "))
    recorder = RoutingRecorder()
    for adapter in adapters:
        adapter.recorder = recorder
    try:
        yield recorder
    finally:
        for adapter in adapters:
            adapter.recorder = None


@torch.no_grad()
def expert_similarity(adapter: LilyAdapter) -> dict[str, float]:
    """Group -> mean cosine between its experts, taken in pairs: 1 when all are the same, 0 for a fresh adapter."""
    similarity = {}
    for group, B in zip(adapter.groups, adapter.lily_B, strict=True):
        flat = F.normalize(B.float().flatten(1), dim=1)
        pairs = (flat @ flat.T)[~torch.eye(len(flat), dtype=torch.bool, device=flat.device)]
        similarity[group.name] = pairs.mean().item()
    return similarity
