"""Frozen adapters of a smaller rank: the best approximation of each layer's update, and how far it is off."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch

from ..adapter import LilyAdapter
from ..frozen import Factors, factors, from_factors, projections
from ..sharing import Projection

ROUNDING = 1e-12  # singular values below this part of the norm are what double precision leaves of zero


class Reduced(NamedTuple):
    """A frozen adapter and, for each layer, ||wanted update - its update|| / ||wanted update|| in Frobenius norms."""

    adapter: LilyAdapter
    errors: dict[str, float]


class SVD(NamedTuple):
    """up down = U diag(S) Vh, with S falling."""

    U: torch.Tensor  # (out, k)
    S: torch.Tensor  # (k,)
    Vh: torch.Tensor  # (k, in)

    def truncated(self, rank: int) -> tuple[Factors, float]:
        """Down and up of this rank in float32, S shared out evenly between them, and the relative error."""
        root = self.S[:rank].sqrt()
        norm = self.S.norm()
        error = float(self.S[rank:].norm() / norm) if norm > 0 else 0.0
        return ((root[:, None] * self.Vh[:rank]).float(), (self.U[:, :rank] * root).float()), error

    def rank_for(self, error: float) -> int:
        """The smallest rank, at least 1, whose relative error is at most `error`."""
        tails = self.S.square().flip(0).cumsum(0).flip(0).sqrt()  # tails[k]: the error of rank k
        return max(1, int((tails > max(error, ROUNDING) * tails[0]).sum()))


def reduce_rank(adapter: LilyAdapter, rank: int | None = None, error: float | None = None) -> Reduced:
    """Bring a frozen adapter to a smaller rank, each layer by its own truncated singular value decomposition.

    With up down = sum_i s_i u_i v_i^T, s falling, the first k terms are the closest matrix of rank k, and

        ||up down - (up down)_k|| / ||up down|| = sqrt(sum_{i>k} s_i^2 / sum_i s_i^2)

    (Eckart and Young, 1936). The decomposition is taken from the QR of both factors, in double precision: the product,
    which may be large, is never made.

    Args:
        rank: of every layer; a layer whose rank is smaller stays as it is.
        error: instead of `rank`: every layer gets its smallest rank whose relative error is at most this; 0 keeps all
            that is not zero.

    Raises:
        ValueError: the adapter is not frozen, not exactly one of the two is given, or it is out of range.
    """
    if (rank is None) == (error is None):
        raise ValueError("reduce_rank takes either rank or error.")
    if rank is not None:
        check_rank(rank)
    if error is not None and not (isinstance(error, (int, float)) and math.isfinite(error) and 0 <= error < 1):
        raise ValueError(f"error must be at least 0 and below 1, not {error!r}.")
    parts: dict[Projection, Factors] = {}
    errors = {}
    for p in projections(adapter):
        svd = svd_of_factors(*factors(adapter, p.name))
        parts[p], errors[p.name] = svd.truncated(rank or svd.rank_for(error or 0.0))
    return Reduced(from_factors(parts), errors)


def svd_of_factors(down: torch.Tensor, up: torch.Tensor) -> SVD:
    """The decomposition of up (out, rank) times down (rank, in), in double precision on the CPU."""
    q_up, r_up = torch.linalg.qr(up.cpu().double())
    q_down, r_down = torch.linalg.qr(down.cpu().double().T)
    U, S, Vh = torch.linalg.svd(r_up @ r_down.T, full_matrices=False)
    return SVD(q_up @ U, S, Vh @ q_down.T)


def check_rank(rank: int) -> None:
    """Raise ValueError unless it is a whole number of at least 1."""
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ValueError(f"rank must be a whole number of at least 1, not {rank!r}.")


def largest_error(errors: Mapping[str, float]) -> tuple[str, float]:
    """The layer that is farthest off, and by how much."""
    layer = max(errors, key=lambda name: errors[name])
    return layer, errors[layer]
