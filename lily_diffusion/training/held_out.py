"""The loss of pictures that are never trained on, with the same noise and noise levels at every look, in every run.

The training loss hides what is learnt behind the noise levels that happen to be drawn; this one shows it, and when it
turns upward the adapter has begun to learn its few pictures by heart.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .checkpoints import random_states, set_random_states
from .draws import Draw, generator_for
from .families import Condition, Family
from .families.flow_matching import FlowMatching
from .losses import denoising_loss
from .prompts import Prompts
from .sources import Sample, Source, alike

LEVELS = (0.125, 0.375, 0.625, 0.875)  # shares of the way from the picture to pure noise: the middles of the quarters
SEED = 0  # of the noise: the same in every run, so that runs can be compared
BATCH_SIZE = 4


@dataclass(frozen=True)
class MiddleCuts:
    """Draws without chance: every picture cut in the middle, not flipped, captioned, at the posterior's mean."""

    latent_shapes: tuple[tuple[int, int, int], ...]  # one for each picture

    def at(self, positions: Sequence[int]) -> list[Draw]:
        """The draws of these pictures."""
        return [self[position] for position in positions]

    def __getitem__(self, index: int) -> Draw:
        shape = self.latent_shapes[index]
        return Draw(
            index=index, crop=(0.5, 0.5), flip=False, drop_caption=False, u=0.5,
            posterior_noise=torch.zeros(shape), noise=torch.zeros(shape),
        )  # fmt: skip


class HeldOut:
    """Measures held-out pictures, which are encoded once, when it is made."""

    def __init__(self, family: Family, source: Source, prompts: Prompts, levels: Sequence[float] = LEVELS):
        """`source` has the pictures; its own draws are not used. `prompts` must have their captions."""
        self.family = family
        self.prompts = prompts
        self.levels = tuple(levels)
        still: Any = copy.copy(source)
        still.draws = MiddleCuts(source.draws.latent_shapes)
        self.samples: list[Sample] = [still.samples([index])[0] for index in range(len(source.pictures))]

    @torch.no_grad()
    def losses(self, model: nn.Module) -> dict[float, float]:
        """Noise level -> mean squared error over all pictures, without any weighting of noise levels or masks.

        Args:
            model: takes the denoiser's arguments and returns its tensor; all of it is in eval mode meanwhile.

        Random numbers go on afterwards as if nothing had happened. The result depends neither on the training's seed
        and flags nor on its batch size or number of processes.
        """
        with undisturbed(model):
            encoded = {caption: self.prompts[caption] for caption in {sample.caption for sample in self.samples}}
            return {level: self._loss(model, encoded, place) for place, level in enumerate(self.levels)}

    def _loss(self, model: nn.Module, encoded: dict[str, Condition], place: int) -> float:
        total = 0.0
        for rows in alike([sample.latents for sample in self.samples]):
            for start in range(0, len(rows), BATCH_SIZE):
                total += float(self._batch(model, encoded, place, rows[start : start + BATCH_SIZE]).sum())
        return total / len(self.samples)

    def _batch(self, model: nn.Module, encoded: dict[str, Condition], place: int, rows: list[int]) -> Tensor:
        samples = [self.samples[row] for row in rows]
        latents = torch.stack([sample.latents for sample in samples])
        seeds = [row * len(self.levels) + place for row in rows]
        noise = [torch.randn(latents.shape[1:], generator=generator_for(SEED, "held out", seed)) for seed in seeds]
        levels = torch.full((len(rows),), self.levels[place], device=latents.device)
        timesteps = timesteps_at(self.family, levels)
        noisy, target, _ = self.family.noised(latents, torch.stack(noise).to(latents.device), timesteps)
        prompts = self.family.batch([encoded[sample.caption] for sample in samples])
        return denoising_loss(self.family.ask(model, noisy, timesteps, prompts), target)


def timesteps_at(family: Family, levels: Tensor) -> Tensor:
    """The timesteps of noise levels in (0, 1), whatever flags say about how those of training are drawn.

    For EDM, whose sigmas have no end, a level is the share of the sigmas in training that are smaller.
    """
    if isinstance(family, FlowMatching):
        return levels * family.pipe.scheduler.config.num_train_timesteps
    return family.timesteps(levels)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Everything in eval mode, and afterwards each module and the random numbers as they were."""
    states, modes = random_states(), [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        set_random_states(states)
