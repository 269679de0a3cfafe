"""Several frozen adapters in one.

At run time adapters are summed: update = sum_i weight_i * update_i (`set_adapters`). "cat", and "svd" where the rank
suffices, are exactly that sum in one adapter. "ties", "dare_linear", "dare_ties" and "magnitude_prune" are other
functions on purpose: they drop or overrule parts of the updates so that the adapters disturb each other less.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from ..adapter import LilyAdapter
from ..frozen import check_frozen, factors, from_factors, projections
from ..sharing import Projection
from .rank import SVD, Reduced, check_rank, reduce_rank

SUMS = ("cat", "svd")
SIGNED = ("ties", "dare_ties")
PRUNED = ("ties", "dare_linear", "dare_ties", "magnitude_prune")
ALIASES = {"dare": "dare_linear"}
SIGN_METHODS = ("total", "frequency")

Owners = Mapping[str, LilyAdapter]  # those adapters that have a layer, by name
Layers = Mapping[Projection, Owners]


def merge_adapters(
    adapters: Mapping[str, LilyAdapter],
    weights: Sequence[float] | Mapping[str, float],
    method: str = "cat",
    *,
    rank: int | None = None,
    density: float | None = None,
    majority_sign_method: str = "total",
    seed: int = 0,
    on_layer: Callable[[int, int], None] | None = None,
) -> Reduced:
    """Merge frozen adapters into one frozen adapter; a layer is merged from those adapters that have it.

    Args:
        adapters: by name; the names are for the errors.
        weights: one for each adapter, in their order or by name; they may be negative.
        method: what each layer's update becomes, of the updates D_i = up_i down_i and their weights w_i:
            "cat": sum_i w_i D_i exactly; the ranks add up.
            "svd": the closest matrix of rank `rank` to that sum.
            "magnitude_prune": sum_i w_i P(D_i), where P keeps the `density` part of entries that are largest.
            "ties": of P(D_i), only the entries whose sign has the majority; their mean (arXiv 2306.01708).
            "dare_linear" or "dare": sum_i w_i R(D_i), where R keeps entries at random with probability `density` and
            divides them by it (arXiv 2311.03099).
            "dare_ties": "ties" with R in the place of P.
        rank: all but "cat" are truncated to it, which is an approximation. By default it is the sum of the ranks, at
            most the layer's width: enough for "svd" to be exact, while the pruned methods make matrices of any rank.
        density: in (0, 1]; needed by the last four, which are PEFT's ``*_svd`` combinations, by PEFT's own functions.
        majority_sign_method: "total" or "frequency", for the two with signs.
        seed: of DARE's draws; the caller's random state is not touched.
        on_layer: called with (layers that are merged, layers) before each layer of the last four methods, which takes
            a second where layers are wide; what it raises ends the merge.

    Returns:
        The adapter, and for each layer the relative error of the truncation.

    Raises:
        ValueError: an adapter is not frozen, they have layers of different shapes, or a value is out of range.
        ImportError: PEFT is needed and not installed.
    """
    method = ALIASES.get(method, method)
    _check(method, rank, density, majority_sign_method)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ValueError(f"seed must be a whole number from 0 to 2**63 - 1, not {seed!r}.")
    _check_adapters(adapters)
    by_name = _weights(list(adapters), weights)
    with torch.random.fork_rng(devices=[]):  # DARE draws, and every new adapter does
        torch.default_generator.manual_seed(seed)
        if method in SUMS:
            return _sum(_layers(adapters), by_name, method, rank)
        options: dict[str, Any] = {"density": density}
        if method in SIGNED:
            options["majority_sign_method"] = majority_sign_method
        merge = functools.partial(peft_function(method), **options)
        return _merged(_layers(adapters), by_name, merge, rank, on_layer or (lambda done, layers: None))


def _sum(layers: Layers, weights: Mapping[str, float], method: str, rank: int | None) -> Reduced:
    whole = from_factors({p: _concatenated(p, owners, weights) for p, owners in layers.items()})
    if method == "cat":
        return Reduced(whole, dict.fromkeys((p.name for p in layers), 0.0))
    return reduce_rank(whole, rank or whole.config.r)


def _merged(
    layers: Layers, weights: Mapping[str, float], merge: Callable[..., Any], rank: int | None,
    on_layer: Callable[[int, int], None],
) -> Reduced:  # fmt: skip
    parts, errors = {}, {}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", message="The density")  # 1 prunes nothing, and may be meant
        for done, (p, owners) in enumerate(layers.items()):
            on_layer(done, len(layers))
            svd, ranks = _merged_layer(p, owners, weights, merge)
            parts[p], errors[p.name] = svd.truncated(rank or ranks)
    return Reduced(from_factors(parts), errors)


def _layers(adapters: Mapping[str, LilyAdapter]) -> Layers:
    """Every layer with the adapters that have it, in the order of the first that does."""
    seen: dict[str, Projection] = {}
    layers: dict[Projection, dict[str, LilyAdapter]] = {}
    for name, adapter in adapters.items():
        for p in projections(adapter):
            other = seen.setdefault(p.name, p)
            if other != p:
                raise ValueError(
                    f"The adapters are for different bases: {p.name} is {p.in_features}->{p.out_features} in {name!r} "
                    f"and {other.in_features}->{other.out_features} in {next(iter(layers[other]))!r}."
                )
            layers.setdefault(p, {})[name] = adapter
    return layers


def _concatenated(p: Projection, owners: Owners, weights: Mapping[str, float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors whose product is the weighted sum: the downs stacked, the ups side by side."""
    pairs = {name: factors(adapter, p.name) for name, adapter in owners.items()}
    down = torch.cat([down.cpu() for down, _ in pairs.values()])
    return down, torch.cat([weights[name] * up.cpu() for name, (_, up) in pairs.items()], dim=1)


def _merged_layer(
    p: Projection, owners: Owners, weights: Mapping[str, float], merge: Callable[..., Any]
) -> tuple[SVD, int]:
    """PEFT's function on the full update matrices, on the CPU, where a seed draws the same everywhere."""
    pairs = [factors(adapter, p.name) for adapter in owners.values()]
    updates = [(up @ down).cpu() for down, up in pairs]
    dense = merge(updates, torch.tensor([weights[name] for name in owners]))
    svd = SVD(*torch.linalg.svd(dense.to(pairs[0][0].device), full_matrices=False))
    return svd, sum(down.shape[0] for down, _ in pairs)


def _weights(names: list[str], weights: Sequence[float] | Mapping[str, float]) -> dict[str, float]:
    if isinstance(weights, Mapping):
        if set(weights) != set(names):
            raise ValueError(f"weights must name exactly {', '.join(names)}, not {', '.join(weights) or 'nothing'}.")
        weights = [weights[name] for name in names]
    if len(weights) != len(names):
        raise ValueError(f"There are {len(names)} adapters and {len(weights)} weights; give one for each.")
    for weight in weights:
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not math.isfinite(weight):
            raise ValueError(f"A weight must be a finite number, not {weight!r}.")
    return dict(zip(names, map(float, weights), strict=True))


def _check(method: str, rank: int | None, density: float | None, majority_sign_method: str) -> None:
    if method not in (*SUMS, *PRUNED):
        raise ValueError(f"method must be one of {', '.join((*SUMS, *PRUNED, *ALIASES))}, not {method!r}.")
    if method == "cat" and rank is not None:
        raise ValueError("'cat' keeps every rank: leave rank out, or take method 'svd'.")
    if rank is not None:
        check_rank(rank)
    if method in SUMS and density is not None:
        raise ValueError(f"{method!r} drops nothing: leave density out, or take one of {', '.join(PRUNED)}.")
    if method in PRUNED and density is None:
        raise ValueError(f"{method!r} needs density, the part of the entries that is kept, such as 0.5.")
    if density is not None and not (isinstance(density, (int, float)) and 0 < density <= 1):
        raise ValueError(f"density must be above 0 and at most 1, not {density!r}.")
    if majority_sign_method not in SIGN_METHODS:
        raise ValueError(
            f"majority_sign_method must be one of {', '.join(SIGN_METHODS)}, not {majority_sign_method!r}."
        )


def _check_adapters(adapters: Mapping[str, LilyAdapter]) -> None:
    if not adapters:
        raise ValueError("There is no adapter to merge.")
    for name, adapter in adapters.items():
        check_frozen(adapter.config, f"The adapter {name!r}")


def peft_function(method: str) -> Callable[..., Any]:
    """PEFT's own function for one of PRUNED.

    Raises:
        ImportError: PEFT is not installed; the sentence says which package to install.
    """
    try:
        from peft.utils import merge_utils
    except ImportError:
        raise ImportError(
            f"{method!r} needs PEFT, which is not installed: pip install 'lily-diffusion[merge]'"
        ) from None
    return getattr(merge_utils, method)
