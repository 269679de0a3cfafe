"""What chance decides for one training sample, as a pure function of the seed and of the sample's position in the run.

Nothing is remembered, so a resumed run, another number of processes, and several small batches in place of one
large batch all see the same pictures, timesteps and noise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Draw:
    """One sample: which picture, how it is cropped and flipped, and the noise that it meets."""

    index: int  # of the picture
    crop: tuple[float, float]  # left and top, 0 to 1 of what the crop leaves over
    flip: bool
    u: float  # in [0, 1): where the timestep lies, see `Family.timesteps`
    posterior_noise: Tensor  # (C, h, w), for the sample from the autoencoder's posterior
    noise: Tensor  # (C, h, w), added to the latents


@dataclass(frozen=True)
class Draws:
    """An endless sequence of draws. Every picture comes once in each round, in an order of its own."""

    seed: int
    stream: str  # "instance" or "class": two streams of one seed have nothing in common
    num_pictures: int
    latent_shape: tuple[int, int, int]
    center_crop: bool = False
    random_flip: bool = False

    def __getitem__(self, position: int) -> Draw:
        generator = generator_for(self.seed, self.stream, position)
        left, top, coin = torch.rand(3, generator=generator).tolist()
        return Draw(
            index=self._index(position),
            crop=(0.5, 0.5) if self.center_crop else (left, top),
            flip=self.random_flip and coin < 0.5,
            u=float(torch.rand((), generator=generator)),
            posterior_noise=torch.randn(self.latent_shape, generator=generator),
            noise=torch.randn(self.latent_shape, generator=generator),
        )

    def at(self, positions: Sequence[int]) -> list[Draw]:
        return [self[position] for position in positions]

    def _index(self, position: int) -> int:
        round_, place = divmod(position, self.num_pictures)
        order = torch.randperm(self.num_pictures, generator=generator_for(self.seed, f"{self.stream} order", round_))
        return int(order[place])


def generator_for(seed: int, stream: str, number: int) -> torch.Generator:
    """A CPU generator of its own for every (seed, stream, number)."""
    return torch.Generator().manual_seed(mixed_seed(seed, stream, number))


def mixed_seed(seed: int, stream: str, number: int) -> int:
    """A seed in [0, 2**63) that differs between neighbours; the same on every machine and in every process."""
    digest = hashlib.blake2b(f"{seed}/{stream}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def micro_batch_positions(samples_seen: int, micro_batch: int, batch_size: int, rank: int, world: int) -> list[int]:
    """The positions that process `rank` takes for the `micro_batch`-th part of an optimizer step."""
    start = samples_seen + (micro_batch * world + rank) * batch_size
    return list(range(start, start + batch_size))
