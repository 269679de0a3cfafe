"""Training samples: the pictures of a folder, as latents, in the order and with the noise that the draws say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .dataset import Pictures
from .draws import Draw, Draws
from .families import Family


@dataclass(frozen=True)
class Samples:
    """One batch; everything on the training device."""

    latents: Tensor  # (B, C, h, w)
    noise: Tensor  # (B, C, h, w)
    timesteps: Tensor  # (B,)
    captions: list[str]

    def __add__(self, other: Samples) -> Samples:
        return Samples(
            torch.cat([self.latents, other.latents]),
            torch.cat([self.noise, other.noise]),
            torch.cat([self.timesteps, other.timesteps]),
            self.captions + other.captions,
        )


class Source:
    """Turns positions in the run into samples. One index looks up picture and caption, so they stay together."""

    def __init__(self, family: Family, pictures: Pictures, draws: Draws, device: torch.device):
        self.family = family
        self.pictures = pictures
        self.draws = draws
        self.device = device
        self._cached: dict[tuple[int, bool], tuple[Tensor, Tensor]] | None = None

    def cache_latents(self) -> None:
        """Encode every picture once, and its mirror image if flips are asked for. Crops are central from now on."""
        self.draws = replace(self.draws, center_crop=True)
        flips = (False, True) if self.draws.random_flip else (False,)
        self._cached = {}
        for index in range(len(self.pictures)):
            for flip in flips:
                mean, std = self._encode([self.pictures.pixels(index, (0.5, 0.5), flip)])
                self._cached[index, flip] = mean[0], std[0]

    def samples(self, positions: Sequence[int]) -> Samples:
        draws = self.draws.at(positions)
        mean, std = self._posterior(draws)
        posterior_noise = torch.stack([d.posterior_noise for d in draws]).to(self.device)
        return Samples(
            latents=self.family.latents(mean, std, posterior_noise),
            noise=torch.stack([d.noise for d in draws]).to(self.device),
            timesteps=self.family.timesteps(torch.tensor([d.u for d in draws], device=self.device)),
            captions=[self.pictures.caption(d.index) for d in draws],
        )

    def _posterior(self, draws: list[Draw]) -> tuple[Tensor, Tensor]:
        if self._cached is None:
            return self._encode([self.pictures.pixels(d.index, d.crop, d.flip) for d in draws])
        moments = [self._cached[d.index, d.flip] for d in draws]
        return torch.stack([mean for mean, _ in moments]), torch.stack([std for _, std in moments])

    def _encode(self, squares: list[Tensor]) -> tuple[Tensor, Tensor]:
        return self.family.posterior(torch.stack(squares).to(self.device))
