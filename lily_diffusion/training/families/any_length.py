"""Families whose prompts are of any length, so that a batch of different prompts would have to be padded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from .base import Condition
from .flow_matching import FlowMatching


class AnyLength(FlowMatching):
    """Samples with prompts of one length go through the denoiser together.

    Masks keep padding out of attention, but Lily's routers average over all tokens: what a sample is padded with would
    change how its experts are mixed, and the sample would depend on its batch mates.
    """

    length_multiple: ClassVar[int] = 1  # the denoiser itself rounds lengths up to a multiple of this

    def batch(self, conditions: Sequence[Condition]) -> Condition:
        prompts = [condition["prompt_embeds"] for condition in conditions]
        real = [torch.ones(len(prompt), dtype=torch.bool, device=prompt.device) for prompt in prompts]
        return {
            "prompt_embeds": pad_sequence(prompts, batch_first=True),  # (B, L, D), zeros at the ends
            "prompt_embeds_mask": pad_sequence(real, batch_first=True),  # (B, L)
        }

    def predict(self, model: nn.Module, noisy: Tensor, timesteps: Tensor, prompts: Condition) -> Tensor:
        embeddings, real = prompts["prompt_embeds"], prompts["prompt_embeds_mask"]

        def answer(rows: Tensor) -> Tensor:
            return self.answer(model, noisy[rows], timesteps[rows], [embeddings[row][real[row]] for row in rows])

        return by_length((real.sum(1) / self.length_multiple).ceil(), answer)

    def answer(self, model: nn.Module, noisy: Tensor, timesteps: Tensor, prompts: list[Tensor]) -> Tensor:
        """What `predict` returns, for prompts (L, D) that need no padding among themselves."""
        raise NotImplementedError


def by_length(lengths: Tensor, answer: Callable[[Tensor], Tensor]) -> Tensor:
    """The answers for all rows, asked for those of one length (B,) together; `answer` takes the numbers of rows."""
    groups = [torch.nonzero(lengths == length).flatten() for length in lengths.unique()]
    return torch.cat([answer(rows) for rows in groups])[torch.cat(groups).argsort()]
