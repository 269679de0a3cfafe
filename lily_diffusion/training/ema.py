"""A running average of the trained weights, which draws steadier pictures than the last step's weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .errors import TrainingError


class Ema:
    """Exponential moving average: ``average <- decay * average + (1 - decay) * weight`` after every optimizer step.

    The decay of the n-th update is ``min(decay, n / (n + 9))``, and 0 for the first, as in diffusers' EMAModel: so the
    average of a young run is not held back by the weights from before training.
    """

    def __init__(self, parameters: Iterable[Tensor], decay: float):
        """`parameters` are those that the optimizer steps, of any shapes; the averages begin as copies of them."""
        self.parameters = list(parameters)
        self.decay = decay
        self.updates = 0
        self.averages = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights of one more step into the average."""
        self.updates += 1
        decay = min(self.decay, self.updates / (self.updates + 9)) if self.updates > 1 else 0.0
        torch._foreach_lerp_(self.averages, [parameter.detach() for parameter in self.parameters], 1 - decay)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Inside the block the trained tensors hold the averages; afterwards their own bits, whatever happened."""
        own = [parameter.detach().clone() for parameter in self.parameters]
        try:
            _copy(self.averages, self.parameters)
            yield
        finally:
            _copy(own, self.parameters)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs: tensors and a number, which load without pickled code."""
        return {"updates": self.updates, "averages": self.averages}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`; the decay stays as it was given.

        Raises:
            TrainingError: the averages in it are of other weights; nothing has changed then.
        """
        there, here = ([tuple(tensor.shape) for tensor in tensors] for tensors in (state["averages"], self.averages))
        if there != here:
            raise TrainingError(
                f"the checkpoint averages {len(there)} tensors, not the {len(here)} that are trained now, or they have "
                "other shapes; resume with the flags that it was made with"
            )
        self.updates = int(state["updates"])
        _copy(state["averages"], self.averages)


@torch.no_grad()
def _copy(sources: list[Tensor], targets: list[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)
