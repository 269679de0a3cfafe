"""What chance decides for one training sample, as a pure function of the seed and of the sample's position in the run.

Nothing is remembered, so a resumed run, another number of processes, and several small batches in place of one
large batch all see the same pictures, timesteps and noise.
"""

from __future__ import annotations

import functools
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
    drop_caption: bool
    u: float  # in [0, 1): where the timestep lies, see `Family.timesteps`
    posterior_noise: Tensor  # (C, h, w), for the sample from the autoencoder's posterior
    noise: Tensor  # (C, h, w), added to the latents


@dataclass(frozen=True)
class Draws:
    """An endless sequence of draws. Every picture comes once in each round, in an order of its own."""

    seed: int
    stream: str  # "instance" or "class": two streams of one seed have nothing in common
    latent_shapes: tuple[tuple[int, int, int], ...]  # one for each picture
    batch_size: int = 1  # so many draws in a row are of one shape, where the pictures allow it
    center_crop: bool = False
    random_flip: bool = False
    caption_dropout: float = 0.0
    noise_offset: float = 0.0

    def __getitem__(self, position: int) -> Draw:
        generator = generator_for(self.seed, self.stream, position)
        round_, place = divmod(position, self.num_pictures)
        index = _order(self.seed, self.stream, self.latent_shapes, self.batch_size, round_)[place]
        shape = self.latent_shapes[index]
        left, top, coin = torch.rand(3, generator=generator).tolist()
        u = float(torch.rand((), generator=generator))
        posterior_noise = torch.randn(shape, generator=generator)
        noise = torch.randn(shape, generator=generator)
        shift = torch.randn(shape[0], 1, 1, generator=generator)
        return Draw(
            index=index,
            crop=(0.5, 0.5) if self.center_crop else (left, top),
            flip=self.random_flip and coin < 0.5,
            drop_caption=float(torch.rand((), generator=generator)) < self.caption_dropout,
            u=u,
            posterior_noise=posterior_noise,
            noise=noise + self.noise_offset * shift if self.noise_offset else noise,
        )

    def at(self, positions: Sequence[int]) -> list[Draw]:
        return [self[position] for position in positions]

    @property
    def num_pictures(self) -> int:
        return len(self.latent_shapes)


@functools.lru_cache(maxsize=8)
def _order(seed: int, stream: str, shapes: tuple, batch_size: int, round_: int) -> list[int]:
    """The order of all pictures in one round: drawn, but with runs of one shape that fill batches."""
    drawn = torch.randperm(len(shapes), generator=generator_for(seed, f"{stream} order", round_)).tolist()
    alike: dict[tuple, list[int]] = {}
    for index in drawn:
        alike.setdefault(shapes[index], []).append(index)
    if len(alike) == 1:
        return drawn
    runs, rest = [], []
    for same in alike.values():
        whole = len(same) - len(same) % batch_size
        runs += [same[i : i + batch_size] for i in range(0, whole, batch_size)]
        rest += same[whole:]
    runs.sort(key=lambda run: drawn.index(run[0]))
    lead = -round_ * len(shapes) % batch_size  # so many complete the batch that the round before began
    return [*rest[:lead], *(index for run in runs for index in run), *rest[lead:]]


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
