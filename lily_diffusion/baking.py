"""Baking: watch the routers work on calibration prompts, then replace each layer's mixture by the one best matrix.

A routed layer answers y = h sum_e p_e(x) B_e with h = A x. Its frozen stand-in is h M, with the M that least squares
gives over everything the layer was asked: M = (sum h'h)^-1 sum h'y. It has A's rank, and can be a plain LoRA.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from . import functional
from .adapter import LilyAdapter
from .adapter_weight import parse
from .attach import attach, detach
from .components import one_name, parts
from .frozen import factors, from_factors, is_frozen, projections
from .state import get_state

METHODS = ("fit", "mean")
RIDGE = 1e-3  # of the mean squared h: where the prompts say little, the fit stays at the mean mixture
FROZEN = "lily_frozen"  # the stand-in's name while it is compared


@dataclass
class LayerStatistics:
    """What one layer was asked, summed over tokens, samples and calls."""

    moments: torch.Tensor  # (num_B, r, r): sum of p_e h'h
    energy: torch.Tensor  # sum of |y|^2
    probabilities: list[torch.Tensor]  # one (samples, num_B) for each call

    @property
    def spread(self) -> torch.Tensor:
        """Standard deviation of each expert's probability over samples and calls: (num_B,)."""
        return torch.cat(self.probabilities).std(0, correction=0)

    @property
    def mean(self) -> torch.Tensor:
        """Mean probability of each expert: (num_B,)."""
        return torch.cat(self.probabilities).mean(0)


Statistics = dict[str, LayerStatistics]


class Calibration:
    """Hangs on an adapter as its recorder, and gathers each layer's statistics."""

    def __init__(self) -> None:
        self.statistics: Statistics = {}

    @torch.no_grad()
    def watch(self, adapter: LilyAdapter, layer: str, x: torch.Tensor) -> None:
        """Take in what a layer is asked: x (batch, tokens, in)."""
        A, B, router = (tensor.float() for tensor in adapter.tensors(layer))
        h = F.linear(x.float(), A)
        h = h.flatten(1, -2) if h.ndim > 2 else h[None]  # (samples, tokens, r)
        p = functional.route(h, router, adapter.config.routing)
        p = p if p.ndim == 3 else p.view(-1, 1, len(B)).expand(*h.shape[:2], -1)  # (samples, tokens, num_B)
        moments = torch.einsum("bte,btr,bts->ers", p, h, h).double().cpu()
        energy = torch.einsum("bte,btr,ero->bto", p, h, B).square().sum().double().cpu()
        new = LayerStatistics(torch.zeros_like(moments), torch.zeros_like(energy), [])
        seen = self.statistics.setdefault(layer, new)
        seen.moments += moments
        seen.energy += energy
        seen.probabilities.append(p.mean(1).cpu())


@contextmanager
def calibrate(adapter: LilyAdapter) -> Iterator[Statistics]:
    """Gather each layer's statistics while the model runs inside the ``with`` block."""
    calibration, before = Calibration(), adapter.recorder
    adapter.recorder = calibration
    try:
        yield calibration.statistics
    finally:
        adapter.recorder = before


def freeze(adapter: LilyAdapter, statistics: Statistics, method: str = "fit") -> LilyAdapter:
    """The frozen stand-in of an adapter, one matrix of rank r for each layer.

    Args:
        adapter: routed or static; a static one is taken over exactly, whatever the statistics.
        statistics: from `calibrate`.
        method: "fit" is the least-squares matrix; "mean" mixes the experts by their mean probabilities.

    Raises:
        ValueError: the method is unknown, or a layer was never asked.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}.")
    if is_frozen(adapter):
        return from_factors({p: factors(adapter, p.name) for p in projections(adapter)})
    silent = [layer for layer in adapter.layers if layer not in statistics]
    if silent:
        raise ValueError(
            f"{len(silent)} of {len(adapter.layers)} layers were not asked during calibration, first {silent[0]}: run "
            "the whole pipeline on at least one prompt, with the adapter active."
        )
    parts = {}
    for p in projections(adapter):
        A, M = adapter.tensors(p.name)[0].detach().float().cpu(), _matrix(adapter, p.name, statistics[p.name], method)
        parts[p] = A.clone(), (adapter.config.scaling * M.T).float()
    return from_factors(parts)


@torch.no_grad()
def _matrix(adapter: LilyAdapter, layer: str, seen: LayerStatistics, method: str) -> torch.Tensor:
    """M (r, out), without scaling."""
    B = adapter.tensors(layer)[1].double().cpu()
    M = functional.mix(seen.mean.double(), B)  # (r, out)
    total = seen.moments.sum(0)  # sum of h'h
    if method == "fit" and total.any():  # a layer that only ever saw zeros keeps the mean
        answer = torch.einsum("ers,eso->ro", seen.moments, B)  # sum of h'y
        ridge = RIDGE * total.diagonal().mean() * torch.eye(len(total), dtype=total.dtype)
        M = M + torch.linalg.solve(total + ridge, answer - total @ M)
    return M


@torch.no_grad()
def layer_errors(adapter: LilyAdapter, statistics: Statistics, method: str = "fit") -> dict[str, float]:
    """Layer -> relative error of the updates that `freeze` makes, over the calibration: |h M - y| / |y|."""
    errors = {}
    for layer, seen in statistics.items():
        B, M = adapter.tensors(layer)[1].double().cpu(), _matrix(adapter, layer, seen, method)
        answer = torch.einsum("ers,eso->ro", seen.moments, B)
        off = (M * (seen.moments.sum(0) @ M)).sum() - 2 * (M * answer).sum() + seen.energy
        errors[layer] = float((off.clamp_min(0) / seen.energy).sqrt()) if seen.energy > 0 else 0.0
    return errors


@dataclass(frozen=True)
class Baked:
    """A frozen adapter, and how it was made."""

    parts: dict[str, LilyAdapter]  # by component, the denoiser's first
    report: dict[str, Any]

    @property
    def adapter(self) -> LilyAdapter:
        """The adapter, where it has one part.

        Raises:
            ValueError: it has several.
        """
        if len(self.parts) > 1:
            raise ValueError(f"The adapter has parts for {' and '.join(self.parts)}: take each from `parts`.")
        return next(iter(self.parts.values()))


def bake_lily(
    pipe: Any,
    prompts: Sequence[str],
    adapter_name: str | None = None,
    *,
    method: str = "fit",
    seed: int = 0,
    **call: Any,
) -> Baked:
    """Freeze an adapter's routers by what they do on calibration prompts.

    Args:
        pipe: a pipeline with the adapter attached; it stays as it is.
        prompts: what the adapter will be used for, its trigger words among them. One picture is made for each.
        adapter_name: which adapter; None when there is only one.
        method: see `freeze`.
        seed: of the first picture; the next ones count up.
        call: more arguments for the pipeline, such as num_inference_steps and guidance_scale.

    Returns:
        The frozen adapter, with all its parts, to be attached, fused, saved as a Lily file, or written as plain LoRA;
        and a report of each layer's routing and error, with their means.

    Raises:
        ValueError: there is no such adapter, no prompt, an unknown method, or an adapter is fused into the weights.
    """
    name, adapters = one_name(pipe, adapter_name)
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {method!r}.")
    statistics: dict[str, Statistics] = {}
    prompts = [prompts] if isinstance(prompts, str) else prompts
    routed = {component: adapter for component, adapter in adapters.items() if not is_frozen(adapter)}
    if routed:
        if not prompts:
            raise ValueError("Baking needs at least one prompt to watch the routers on, with the trigger words in it.")
        with only(pipe, {name: 1.0}), ExitStack() as stack:
            statistics = {c: stack.enter_context(calibrate(adapter)) for c, adapter in routed.items()}
            draw(pipe, prompts, seed, **call, output_type="latent")
    frozen = {c: freeze(adapter, statistics.get(c, {}), method) for c, adapter in adapters.items()}
    return Baked(frozen, _report(adapters, statistics, method, prompts))


def compare(
    pipe: Any,
    prompts: Sequence[str],
    frozen: LilyAdapter | Mapping[str, LilyAdapter],
    adapter_name: str | None = None,
    *,
    seed: int = 0,
    **call: Any,
) -> tuple[dict[str, float], list[list[Image.Image]]]:
    """Draw the same pictures without the adapter, with it, and with its frozen stand-in, one or by component.

    Returns:
        ({"frozen": distance, "base": distance}, rows of [base, adapter, frozen] pictures, one row a prompt). The
        distances are from the adapter's pictures, see `distance`; the base's is the yardstick.
    """
    models = parts(pipe)
    name, adapters = one_name(pipe, adapter_name)
    stand_ins = {next(iter(adapters)): frozen} if isinstance(frozen, LilyAdapter) else dict(frozen)
    if set(stand_ins) != set(adapters):
        theirs = " and ".join(stand_ins)
        raise ValueError(f"The adapter has parts for {' and '.join(adapters)} and its stand-in for {theirs}.")
    columns = []
    with ExitStack() as stack:
        for component, part in stand_ins.items():
            attach(models[component], part, FROZEN)
            stack.callback(detach, models[component], FROZEN)
        for weights in ({}, {name: 1.0}, {FROZEN: 1.0}):
            with only(pipe, weights):
                columns.append(draw(pipe, prompts, seed, **call))
    base, adapted, stand_in = columns
    distances = {"frozen": distance(stand_in, adapted), "base": distance(base, adapted)}
    return distances, [list(row) for row in zip(*columns, strict=True)]


def draw(pipe: Any, prompts: Sequence[str], seed: int, **call: Any) -> Any:
    """One picture for each prompt, from seeds that count up; four at a time."""
    images: list[Any] = []
    for i in range(0, len(prompts), 4):
        part = list(prompts[i : i + 4])
        generators = [torch.Generator("cpu").manual_seed(seed + i + n) for n in range(len(part))]
        images.extend(pipe(prompt=part, generator=generators, **call).images)
    return images


def distance(a: Sequence[Image.Image], b: Sequence[Image.Image]) -> float:
    """Root mean square difference between pictures of the same sizes, pixel values in [0, 1]."""
    pixels = [np.stack([np.asarray(x.convert("RGB"), dtype=np.float64) for x in images]) for images in (a, b)]
    return float(np.sqrt(np.square(pixels[0] - pixels[1]).mean())) / 255


@contextmanager
def only(pipe_or_model: Any, weights: Mapping[str, float]) -> Iterator[None]:
    """These adapters alone take part inside the ``with`` block, with all their parts; afterwards it is as before."""
    states = [state for state in map(get_state, parts(pipe_or_model).values()) if state is not None]
    if fused := [name for state in states for name in state.fused]:
        raise ValueError(f"Adapter {fused[0]!r} is fused into the weights; call unfuse_lily first.")
    before = [(state, state.weights, state.enabled, state.fraction) for state in states]
    try:
        for state in states:
            state.enabled = True
            state.activate({name: parse(weight) for name, weight in weights.items() if name in state.adapters})
        yield
    finally:
        for state, earlier, enabled, fraction in before:
            state.enabled, state.fraction = enabled, fraction
            state.activate(earlier)


def _report(
    adapters: Mapping[str, LilyAdapter], statistics: Mapping[str, Statistics], method: str, prompts: Sequence[str]
) -> dict[str, Any]:
    """What `bake_lily` says: probabilities, their spread and the updates' relative errors, by layer and on average."""
    if not statistics:
        return {"method": "exact", "prompts": [], "error": 0.0, "layers": {}}
    layers: dict[str, dict[str, Any]] = {}
    for component, heard in statistics.items():
        prefix = "" if component == next(iter(adapters)) else f"{component}."
        errors = layer_errors(adapters[component], heard, method)
        layers |= {prefix + layer: _layer_report(seen, errors[layer]) for layer, seen in heard.items()}
    means = {
        key: sum(entry[key] for entry in layers.values()) / len(layers) for key in ("spread", "spread_by_step", "error")
    }
    return {"method": method, "prompts": list(prompts), **{k: round(v, 5) for k, v in means.items()}, "layers": layers}


def _layer_report(seen: LayerStatistics, error: float) -> dict[str, Any]:
    by_call = torch.stack([p.mean(0) for p in seen.probabilities])
    return {
        "probability": [round(p, 5) for p in seen.mean.tolist()],
        "spread": round(float(seen.spread.mean()), 5),
        "spread_by_step": round(float(by_call.std(0, correction=0).mean()), 5),
        "error": round(error, 5),
    }
