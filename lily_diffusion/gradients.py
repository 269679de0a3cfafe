"""`functional.delta` for training: the same numbers, with the backward pass written out so that less is kept for it.

Kept are x, h, p and the adapter's own tensors; the mixed expert and the tokens' softmax are made again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import functional


class SampleDelta(torch.autograd.Function):
    """The update of one projection with routing "sample": x (batch, ..., in) -> (batch, ..., out), in x's dtype.

    Gradients of A, B and the router are summed in their own dtype; x may be in half precision beside them.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, A: Tensor, B: Tensor, router: Tensor, scaling: float | Tensor) -> Tensor:
        tokens = x.reshape(x.shape[0], -1, x.shape[-1])
        h = torch.matmul(tokens, A.to(x.dtype).t())  # (batch, tokens, r)
        p = functional.route(h.to(router.dtype), router, "sample")  # (batch, num_B)
        ctx.save_for_backward(x, h, p, A, B, router)
        ctx.scaling = scaling
        y = torch.bmm(h, functional.mix(p * scaling, B).to(h.dtype))
        return y.view(*x.shape[:-1], B.shape[-1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, h, p, A, B, router = ctx.saved_tensors
        grad_y = grads[0].reshape(*h.shape[:2], -1)
        tokens = x.reshape(x.shape[0], -1, x.shape[-1])
        weights = p * ctx.scaling
        grad_mixed = torch.bmm(h.transpose(1, 2), grad_y).to(B.dtype)  # (batch, r, out)
        grad_B = (weights.t() @ grad_mixed.flatten(1)).view_as(B)
        grad_h = torch.bmm(grad_y, functional.mix(weights, B).to(h.dtype).transpose(1, 2)).to(router.dtype)

        # p is the mean over tokens of softmax(h R^T)
        grad_p = (grad_mixed.flatten(1) @ B.flatten(1).t()) * ctx.scaling / h.shape[1]
        own_h = h.to(router.dtype)
        q = torch.softmax(own_h @ router.t(), -1)  # (batch, tokens, num_B)
        grad_q = grad_p.unsqueeze(1)
        grad_logits = q * (grad_q - (q * grad_q).sum(-1, keepdim=True))
        grad_router = grad_logits.flatten(0, 1).t() @ own_h.flatten(0, 1)
        grad_h = (grad_h + grad_logits @ router).to(x.dtype)

        grad_A = (grad_h.flatten(0, 1).t() @ tokens.flatten(0, 1)).to(A.dtype)
        grad_x = (grad_h @ A.to(x.dtype)).view_as(x) if ctx.needs_input_grad[0] else None
        return grad_x, grad_A, grad_B, grad_router, None


def delta(x: Tensor, A: Tensor, B: Tensor, router: Tensor, scaling: float | Tensor) -> Tensor:
    """`functional.delta` with routing "sample"; x (batch, ..., in) with a batch and tokens.

    Under autocast the large products are in its dtype, and the routing is in the router's.
    """
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        x = x.to(torch.get_autocast_dtype(kind))
    with torch.autocast(kind, enabled=False):
        return SampleDelta.apply(x, A, B, router, scaling)
