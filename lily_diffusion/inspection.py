"""What an adapter is and what its routers do: size and rank of the updates, likeness and use of the experts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import functional
from .adapter import LilyAdapter
from .state import one_adapter


class RoutingRecorder:
    """Keeps, layer by layer and call by call, the probabilities that the routers give while it listens.

    They lie on the CPU in float32. What a sample is depends on the routing: "sample" has one for each of the batch;
    "token" too, by the mean over its tokens; "batch" and "static" have one for all. All tables list the layers in the
    order in which the model first ran them.
    """

    def __init__(self) -> None:
        self._calls: dict[str, list[Tensor]] = {}  # each (samples, num_B)
        self._entropies: dict[str, list[Tensor]] = {}  # each (samples,)

    @torch.no_grad()
    def watch(self, adapter: LilyAdapter, layer: str, x: Tensor) -> None:
        """Take in what a layer is asked, x (batch, tokens, in)."""
        A, _, router = adapter.tensors(layer)
        self.see(layer, functional.route(F.linear(x, A.detach()), router, adapter.config.routing))

    def see(self, layer: str, p: Tensor) -> None:
        """Take in the probabilities of one call: (num_B,), (samples, num_B) or (samples, ..., num_B)."""
        p = p.detach().float().cpu()
        p = p[None] if p.ndim == 1 else p.flatten(1, -2) if p.ndim > 2 else p
        entropy = relative_entropy(p)
        if p.ndim > 2:  # the entropy is that of each token, and only then averaged
            p, entropy = p.mean(1), entropy.mean(1)
        self._calls.setdefault(layer, []).append(p)
        self._entropies.setdefault(layer, []).append(entropy)

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that were heard."""
        return tuple(self._calls)

    def calls(self, layer: str) -> Tensor:
        """Probabilities of every call: (calls, samples, num_B).

        Raises:
            ValueError: the layer was not heard, or its calls had batches of different sizes.
        """
        return _stack(self._of(self._calls, layer), layer)

    def entropies(self, layer: str) -> Tensor:
        """Entropy, from 0 to 1, of every call's mixtures: (calls, samples). Raises as `calls` does."""
        return _stack(self._of(self._entropies, layer), layer)

    def mean(self, layer: str) -> Tensor:
        """Mean probability of each expert over all calls and samples: (num_B,).

        Raises:
            ValueError: the layer was not heard.
        """
        return torch.cat(self._of(self._calls, layer)).mean(0)

    def spread(self, layer: str) -> Tensor:
        """Standard deviation of the probabilities over all calls and samples: (num_B,). Raises as `mean` does."""
        return torch.cat(self._of(self._calls, layer)).std(0, correction=0)

    def usage(self) -> dict[str, list[float]]:
        """Layer -> mean probability of each expert."""
        return {layer: self.mean(layer).tolist() for layer in self._calls}

    def entropy(self) -> dict[str, float]:
        """Layer -> mean entropy of the mixture over log(num_B): 1 uses all experts equally, 0 only one."""
        return {layer: torch.cat(seen).mean().item() for layer, seen in self._entropies.items()}

    def _of(self, table: dict[str, list[Tensor]], layer: str) -> list[Tensor]:
        if layer not in table:
            raise ValueError(
                f"The recorder has not heard layer {layer!r}: it heard {len(table)} layers while the model ran."
            )
        return table[layer]


@contextmanager
def record_routing(model: nn.Module, adapter_name: str | None = None) -> Iterator[RoutingRecorder]:
    """Listen to the routers of an adapter (None: the only one) while the model runs inside the ``with`` block.

    The model is the denoiser or a text encoder: each has its own part of the adapter.

    Raises:
        ValueError: there is no such adapter, or several and none is named: their layers have the same names.
    """
    adapter = one_adapter(model, adapter_name)[1]
    adapter.recorder = recorder = RoutingRecorder()
    try:
        yield recorder
    finally:
        adapter.recorder = None


class LayerRouting(NamedTuple):
    """The routing of one layer, step by step."""

    usage: Tensor  # (steps, num_B)
    entropy: Tensor  # (steps,)


def routing_by_step(recorder: RoutingRecorder, steps: int, half: int | None = None) -> dict[str, LayerRouting]:
    """Layer -> its routing at each denoising step, the mean over the step's calls and samples.

    Args:
        recorder: what was heard while one pipeline call ran.
        steps: the steps of that call; every step must have run the model equally often.
        half: of a batch that holds both sides of classifier-free guidance, [unconditional; conditional], 0 takes the
            unconditional and 1 the conditional half. A batch of odd size (there is one sample with "batch" and
            "static" routing) is taken whole, and so is any batch with None.

    Raises:
        ValueError: the calls cannot be dealt out evenly to the steps.
    """
    table = {}
    for layer in recorder.layers:
        usage, entropy = recorder.calls(layer), recorder.entropies(layer)
        calls, samples = entropy.shape
        if calls % steps:
            raise ValueError(f"The model ran {layer} {calls} times in {steps} steps, which is no whole number a step.")
        if half is not None and samples % 2 == 0:
            usage, entropy = usage.chunk(2, 1)[half], entropy.chunk(2, 1)[half]
        by_step = [seen.unflatten(0, (steps, -1)).mean((1, 2)) for seen in (usage, entropy)]
        table[layer] = LayerRouting(*by_step)
    return table


def relative_entropy(p: Tensor) -> Tensor:
    """Entropy of p (..., num_B) over log(num_B): from 0, one expert does everything, to 1, all count equally."""
    num_B = p.shape[-1]
    return torch.special.entr(p).sum(-1) / (math.log(num_B) if num_B > 1 else 1.0)


class Spectrum(NamedTuple):
    """Figures of the singular values of a layer's update matrix."""

    norm: float  # Frobenius
    effective_rank: float
    rank_90: int  # so many singular values hold 90% of the energy, the sum of their squares
    rank_99: int


@torch.no_grad()
def singular_values(adapter: LilyAdapter, mixtures: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Layer -> singular values, falling, of its update matrix ``scaling * (sum_e p_e B_e)^T A``, at most r of them.

    The matrix (out, in) is never made: with the QR decompositions of A^T and of the experts side by side it has the
    singular values of a core of r columns, which is what the SVD is taken of. Computed in float64.

    Args:
        adapter: any adapter.
        mixtures: layer -> probabilities p (num_B,). Where it has none, p is the exact one for "static" routing; for a
            routed adapter, whose update depends on the input, all experts count equally.
    """
    values = {}
    for group, As, B in zip(adapter.groups, adapter.lily_A, adapter.lily_B, strict=True):
        experts = _triangle(B.flatten(0, 1).T).unflatten(1, B.shape[:2])  # (k, num_B, r)
        projectors = [_triangle(A.T) for A in As.parameters()]
        for layer, a in zip(group.layers, group.A_of_layer, strict=True):
            p = (mixtures or {}).get(layer, _own_mixture(adapter, layer))
            core = torch.einsum("e,ker->kr", p.to(experts), experts) @ projectors[a].T
            values[layer] = abs(adapter.config.scaling) * torch.linalg.svdvals(core)
    return values


def spectra(adapter: LilyAdapter, mixtures: Mapping[str, Tensor] | None = None) -> dict[str, Spectrum]:
    """Layer -> norm and ranks of its update matrix; `mixtures` as in `singular_values`."""
    return {
        layer: Spectrum(s.norm().item(), effective_rank(s), rank_at_energy(s, 0.9), rank_at_energy(s, 0.99))
        for layer, s in singular_values(adapter, mixtures).items()
    }


def effective_rank(singular_values: Tensor) -> float:
    """exp of the entropy of the singular values over their sum; 0 for a zero matrix.

    k equal values give k, and small ones count little: O. Roy and M. Vetterli, "The effective rank", EUSIPCO 2007.
    """
    total = singular_values.sum()
    return torch.special.entr(singular_values / total).sum().exp().item() if total > 0 else 0.0


def rank_at_energy(singular_values: Tensor, share: float) -> int:
    """So many of the falling singular values have `share` of the sum of all squares; 0 for a zero matrix."""
    energy = singular_values.double().square().cumsum(0)
    return int((energy < share * energy[-1]).sum()) + 1 if energy[-1] > 0 else 0


class GroupFacts(NamedTuple):
    """What the layers of one group share."""

    expert_norms: list[float]  # Frobenius norm of each expert (r, out), without scaling
    expert_similarity: float  # as `mean_cosine` has it
    A_similarity: float


@torch.no_grad()
def group_facts(adapter: LilyAdapter) -> list[GroupFacts]:
    """Facts of each of ``adapter.groups``, in their order."""
    return [
        GroupFacts(
            B.float().flatten(1).norm(dim=1).tolist(), mean_cosine(B), mean_cosine(torch.stack([*As.parameters()]))
        )
        for As, B in zip(adapter.lily_A, adapter.lily_B, strict=True)
    ]


def expert_similarity(adapter: LilyAdapter) -> dict[str, float]:
    """Group -> mean cosine between its experts, taken in pairs: 1 when all are the same, 0 for a fresh adapter."""
    return {group.name: mean_cosine(B) for group, B in zip(adapter.groups, adapter.lily_B, strict=True)}


@torch.no_grad()
def mean_cosine(matrices: Tensor) -> float:
    """Mean cosine of all pairs among matrices (n, ., .), each taken as one long vector; 1 when there is only one."""
    flat = F.normalize(matrices.float().flatten(1), dim=1)
    if len(flat) == 1:
        return 1.0
    return (flat @ flat.T)[~torch.eye(len(flat), dtype=torch.bool, device=flat.device)].mean().item()


def _own_mixture(adapter: LilyAdapter, layer: str) -> Tensor:
    if adapter.config.routing == "static":
        return adapter.tensors(layer)[2].double().softmax(0)
    return torch.full((adapter.config.num_B,), 1 / adapter.config.num_B)


def _triangle(matrix: Tensor) -> Tensor:
    """R (min(n, k), k) of a QR decomposition of a matrix (n, k): what is left of it but for a rotation."""
    return torch.linalg.qr(matrix.double(), mode="r").R


def _stack(seen: list[Tensor], layer: str) -> Tensor:
    sizes = sorted({len(samples) for samples in seen})
    if len(sizes) > 1:
        raise ValueError(f"The calls of layer {layer!r} had batches of different sizes: {sizes}.")
    return torch.stack(seen)
