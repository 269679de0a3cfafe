"""A start for the As that knows the task: the directions of a layer's input along which the loss falls fastest.

    with GradientStart(adapter) as start:
        for batch in a_few_batches:
            loss(batch).backward()
    start.apply()

While the B experts are zero, their first step changes a layer by A^T A G, where G = sum of x^T dy is the gradient of
its own weights. An A with orthogonal rows gains most if it spans the leading left singular vectors of G, and one that
layers share, those of their Gs side by side. LoRA-GA (arXiv 2407.05000) starts LoRA that way. No G is ever held: its
product with a few random columns is enough to find them (Halko, Martinsson and Tropp 2011, section 4.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lily_diffusion.adapter import LilyAdapter

GAIN = math.sqrt(1 / 3)  # length of the rows: that of Kaiming's, on average


class GradientStart:
    """Listens to an adapter's backward passes inside its ``with`` block.

    Args:
        adapter: attached, with experts of zero and `requires_grad`.
        seed: of the random columns; the same in every process whose sums are added up.
    """

    def __init__(self, adapter: LilyAdapter, seed: int = 0):
        self.adapter, self.seed = adapter, seed
        self.columns = 2 * adapter.config.r + 16  # more than r, or the leading directions blur
        self.sketches: dict[tuple[int, int], Tensor] = {}  # (group, A in it) -> G times random columns: (in, columns)
        self._hook: Any = None

    def __enter__(self) -> GradientStart:
        for group, As in enumerate(self.adapter.lily_A):
            for a, A in enumerate(As.parameters()):
                self.sketches[group, a] = A.new_zeros(A.shape[1], self.columns, dtype=torch.float32)
        self._hook = self.adapter.register_forward_hook(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()

    def apply(self, reduce: Callable[[Tensor], Tensor] = lambda sketch: sketch) -> None:
        """Set every A whose layers were heard; `reduce` adds up what the processes heard. The others stay as drawn."""
        with torch.no_grad():
            for (group, a), sketch in sorted(self.sketches.items()):
                sketch = reduce(sketch)
                if sketch.isfinite().all() and sketch.any():
                    A: Tensor = self.adapter.lily_A[group][a]  # type: ignore[index, assignment]
                    directions = torch.linalg.svd(sketch, full_matrices=False).U[:, : len(A)]
                    A[: directions.shape[1]] = GAIN * directions.T.to(A)

    def _listen(self, adapter: LilyAdapter, arguments: tuple, answer: Tensor) -> Tensor:
        layer, x, *_ = arguments
        return _Watch.apply(answer, x, lambda x, gradient: self._add(layer, x, gradient))

    def _add(self, layer: str, x: Tensor, gradient: Tensor) -> None:
        x, gradient = x.flatten(0, -2).float(), gradient.flatten(0, -2).float()
        random = self.random(layer, gradient.shape[-1]).to(gradient.device)
        self.sketches[self.adapter.place(layer)].addmm_(x.T, gradient @ random)

    def random(self, layer: str, width: int) -> Tensor:
        """The random columns that a layer's gradient is multiplied by, (width, columns): the same every time."""
        generator = torch.Generator().manual_seed(self.seed + self.adapter.number[layer])
        return torch.randn(width, self.columns, generator=generator)


class _Watch(torch.autograd.Function):
    """Hands on y as it is, and shows x and y's gradient when it comes; under checkpointing x is not kept."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, see: Callable[[Tensor, Tensor], None]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.see = see
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        ctx.see(*ctx.saved_tensors, gradients[0])
        return gradients[0], None, None
