"""LilyAdapter owns every tensor of an adapter exactly once, outside the base model; layers ask it for their update."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from . import functional
from .config import LilyConfig
from .sharing import Group, group_table


class LilyAdapter(nn.Module):
    """The As, the B experts and the routers of all adapted layers.

    A fresh adapter changes nothing: A and the routers are drawn (Kaiming uniform), the experts are zero.

    Args:
        config: shapes and routing.
        groups: which layers share what, from `sharing.plan_groups` or from a file.
    """

    def __init__(self, config: LilyConfig, groups: tuple[Group, ...]):
        super().__init__()
        self.config = config
        self.groups = groups
        r, num_B = config.r, config.num_B
        router_shape = (num_B,) if config.routing == "static" else (num_B, r)
        self.lily_A = nn.ModuleList(
            nn.ParameterList(torch.empty(r, g.in_features) for _ in range(g.num_A)) for g in groups
        )
        self.lily_B = nn.ParameterList(torch.zeros(num_B, r, g.out_features) for g in groups)
        self.lily_router = nn.ModuleList(nn.ParameterList(torch.empty(router_shape) for _ in g.layers) for g in groups)
        self.number = {layer: i for i, layer in enumerate(layer for g in groups for layer in g.layers)}
        self._place = {layer: (i, g.A_of_layer[n], n) for i, g in enumerate(groups) for n, layer in enumerate(g.layers)}
        self._keys = {layer: tuple(map(str, place)) for layer, place in self._place.items()}
        self.recorder: Any = None  # inspection.record_routing hangs itself here
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw A and the routers, and set the experts to zero."""
        for matrix in [*self.lily_A.parameters(), *self.lily_router.parameters()]:
            if matrix.ndim == 1:  # static logits differ from layer to layer, or the experts could never part
                nn.init.normal_(matrix)
            else:
                nn.init.kaiming_uniform_(matrix, a=math.sqrt(5))
        for B in self.lily_B:
            nn.init.zeros_(B)

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the adapted projections, group by group."""
        return tuple(self._place)

    def tensors(self, layer: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A (r, in), B (num_B, r, out) and the router (num_B, r), or logits (num_B,), of one layer."""
        i, a, n = self._keys[layer]
        tables: Any = self._modules  # asked at every layer of every step: module lists would take longer than the math
        As, Bs, routers = tables["lily_A"]._modules[i], tables["lily_B"], tables["lily_router"]._modules[i]
        return As._parameters[a], Bs._parameters[i], routers._parameters[n]

    def place(self, layer: str) -> tuple[int, int]:
        """The group of one layer, and which of its As the layer reads."""
        return self._place[layer][:2]

    def forward(
        self, layer: str, x: torch.Tensor, y: torch.Tensor | None = None, scaling: float | torch.Tensor | None = None
    ) -> torch.Tensor:
        """y (batch, tokens, out) plus the layer's update for x (batch, tokens, in); without y, the update alone.

        `scaling` stands in for the config's own: that times the adapter's weight.
        """
        A, B, router = self.tensors(layer)
        if A.device != x.device:  # the adapter lives outside the model and follows it
            with torch.inference_mode(False):  # its parameters are to be trained and swapped later
                self.to(x.device)
            A, B, router = self.tensors(layer)
        config = self.config
        scaling = config.scaling if scaling is None else scaling
        if config.dropout:
            x = F.dropout(x, config.dropout, self.training)
        if self.recorder is not None:
            self.recorder.watch(self, layer, x.to(A.dtype))
        if y is None:
            return functional.delta(x.to(A.dtype), A, B, router, scaling, config.routing)
        return functional.add(y, x, A, B, router, scaling, config.routing)

    def num_parameters(self) -> int:
        """Unique parameters."""
        return sum(p.numel() for p in self.parameters())

    def extra_repr(self) -> str:
        return f"{self.config}\n" + group_table(self)
