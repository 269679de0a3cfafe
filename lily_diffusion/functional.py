"""The math of Lily (Low-Rank Interconnected Adaptation across Layers, arXiv 2407.09946), tensors in, tensors out.

    h = x A^T        p = softmax(h R^T)        delta(x) = scaling * h (sum_e p_e B_e)

The paper calls A the low-dimensional projector (LP), B_e the high-dimensional ones (HP), and R the router. `delta` is
that formula; `add` is what layers call: the same numbers by fewer operators, added to what the base answered.
"""

from __future__ import annotations

import contextlib

import torch
import torch.nn.functional as F

ROUTINGS = ("sample", "batch", "token", "static")


def route(h: torch.Tensor, router: torch.Tensor, routing: str) -> torch.Tensor:
    """How much each expert counts.

    Args:
        h: projected input (batch, tokens, r); without a batch dimension (tokens, r) it is one sample.
        router: R of shape (num_B, r), or for "static" the logits of shape (num_B,).
        routing: over what the tokens' softmax is averaged. "sample": the tokens of each sample, so no picture depends
            on its batch mates. "batch": batch and tokens, as published and as in PEFT. "token": nothing.
            "static": no data, softmax of learned logits.

    Returns:
        Probabilities that sum to 1 over the last dimension, in the order above: (batch, num_B), (num_B,),
        (batch, tokens, num_B), (num_B,).
    """
    if routing == "static":
        return router.softmax(-1)
    p = (router @ h.flatten(0, -2).t()).softmax(0)  # (num_B, all tokens): as columns, several times faster than as rows
    if routing == "token":
        return p.t().view(*h.shape[:-1], -1)
    if routing == "batch" or h.ndim == 2:
        return p.mean(-1)
    return p.view(len(p), len(h), -1).mean(-1).t()


def mix(p: torch.Tensor, B: torch.Tensor) -> torch.Tensor:
    """Mix the experts B of shape (num_B, r, out) by p (..., num_B) into (..., r, out)."""
    if torch.compiler.is_compiling():  # a sum is fused with what is around it; a product of so few rows is slow
        return (p[..., None, None] * B).sum(-3)
    return (p @ B.flatten(1)).view(*p.shape[:-1], *B.shape[1:])


def apply(h: torch.Tensor, p: torch.Tensor, B: torch.Tensor, routing: str) -> torch.Tensor:
    """Push h (batch, tokens, r) through the mixed experts: (batch, tokens, out)."""
    if routing == "token":
        return torch.einsum("...e,...r,ero->...o", p, h, B)
    mixed = mix(p, B)  # (r, out) or (batch, r, out)
    if mixed.ndim == 3 and h.ndim > 3:
        return (h.flatten(1, -2) @ mixed).view(*h.shape[:-1], B.shape[-1])
    return h @ mixed


def delta(
    x: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    router: torch.Tensor,
    scaling: float | torch.Tensor,
    routing: str,
) -> torch.Tensor:
    """The update of one projection: x (batch, tokens, in) -> (batch, tokens, out).

    A has shape (r, in), B (num_B, r, out), `router` (num_B, r) or, for "static", (num_B,).
    """
    h = F.linear(x.contiguous(), A)  # of a strided x, torch rounds otherwise where A is to be trained
    return scaling * apply(h, route(h, router, routing), B, routing)


def add(
    y: torch.Tensor,
    x: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    router: torch.Tensor,
    scaling: float | torch.Tensor,
    routing: str,
) -> torch.Tensor:
    """``y + delta(x, ...)`` in y's dtype: y (batch, tokens, out), the rest as in `delta`.

    The large products are in x's dtype, or in autocast's, which keeps the cast A; routing and mixing are in B's dtype,
    on r and num_B numbers a token. Where the experts are mixed before they meet the tokens, the scaling and the sum
    with y are part of that last product, so that neither the update nor anything else as large is kept for backward.
    Where no gradient is recorded, the sum takes the place of y: the memory of a new one costs as much as the product.
    A compiler is given plain sums, which it fuses with what comes before and after.
    """
    kind = x.device.type
    autocast = torch.is_autocast_enabled(kind)
    h = F.linear(x.contiguous(), A if autocast else A.to(x.dtype))  # of a strided x, torch may round otherwise
    with torch.autocast(kind, enabled=False) if autocast else contextlib.nullcontext():
        p = route(h.to(router.dtype), router, routing)
        if routing == "token":
            return y + (scaling * apply(h.to(B.dtype), p, B, routing)).to(y.dtype)
        if isinstance(scaling, torch.Tensor):
            p, scaling = p * scaling, 1.0
        h, mixed = h.to(y.dtype), mix(p, B).to(y.dtype)  # (r, out) or (batch, r, out)
        first, product = (0, "addmm") if mixed.ndim == 2 else (1, "baddbmm")
        flat, h = y.flatten(first, -2), h.flatten(first, -2)
        if torch.compiler.is_compiling():
            return (flat + scaling * (h @ mixed)).view(y.shape)
        if not torch.is_grad_enabled():
            product += "_"  # in place
        return getattr(flat, product)(h, mixed, alpha=scaling).view(y.shape)
