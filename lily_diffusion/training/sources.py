"""Training samples: the pictures of a folder, as latents, in the order and with the noise that the draws say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .dataset import Pictures
from .disk_cache import DiskCache, latent_key, module_fingerprint
from .draws import Draw, Draws
from .families import Family


@dataclass(frozen=True)
class Sample:
    """One picture as the denoiser meets it; everything on the training device."""

    latents: Tensor  # (C, h, w)
    noise: Tensor  # (C, h, w)
    timestep: Tensor  # ()
    caption: str
    mask: Tensor | None = None  # (1, h, w): how much the loss looks at each place


class Source:
    """Turns positions in the run into samples. One index looks up picture and caption, so they stay together."""

    def __init__(
        self, family: Family, pictures: Pictures, draws: Draws, device: torch.device, unmasked_weight: float = 0.0
    ):
        """`unmasked_weight` is what the loss gives to places outside of the pictures' masks."""
        self.family = family
        self.pictures = pictures
        self.draws = draws
        self.device = device
        self.unmasked_weight = unmasked_weight
        self._cached: dict[tuple[int, bool], tuple[Tensor, Tensor]] | None = None

    def cache_latents(self, disk: DiskCache | None = None) -> None:
        """Encode every picture once, and its mirror image if flips are asked for. Crops are central from now on.

        With a disk cache, what is in it already is not encoded again.
        """
        self.draws = replace(self.draws, center_crop=True)
        maker = module_fingerprint(self.family.pipe.vae) if disk is not None else ""
        self._cached = {}
        for index in range(len(self.pictures)):
            for flip in (False, True) if self.draws.random_flip else (False,):
                pixels = self.pictures.pixels(index, (0.5, 0.5), flip)
                self._cached[index, flip] = self._encode_or_read(pixels, disk, maker)

    def samples(self, positions: Sequence[int]) -> list[Sample]:
        draws = self.draws.at(positions)
        timesteps = self.family.timesteps(torch.tensor([d.u for d in draws], device=self.device))
        moments = self._moments(draws)
        return [self._sample(*each) for each in zip(draws, moments, timesteps, strict=True)]

    def _sample(self, draw: Draw, moments: tuple[Tensor, Tensor], timestep: Tensor) -> Sample:
        mean, std = moments
        latents = self.family.latents(mean, std, draw.posterior_noise.to(self.device))
        mask = None
        if self.pictures.has_masks:
            shown = self.pictures.mask(draw.index, draw.crop, draw.flip).to(self.device)
            shown = F.interpolate(shown.unsqueeze(0), latents.shape[1:], mode="area")[0]
            mask = self.unmasked_weight + (1 - self.unmasked_weight) * shown
        caption = "" if draw.drop_caption else self.pictures.caption(draw.index)
        return Sample(latents, draw.noise.to(self.device), timestep, caption, mask)

    def _moments(self, draws: list[Draw]) -> list[tuple[Tensor, Tensor]]:
        """Mean and standard deviation of each posterior, (C, h, w) twice."""
        if self._cached is not None:
            return [self._cached[d.index, d.flip] for d in draws]
        pixels = [self.pictures.pixels(d.index, d.crop, d.flip) for d in draws]
        moments: dict[int, tuple[Tensor, Tensor]] = {}
        for rows in alike(pixels):
            mean, std = self._encode([pixels[row] for row in rows])
            moments.update({row: pair for row, pair in zip(rows, zip(mean, std, strict=True), strict=True)})
        return [moments[row] for row in range(len(draws))]

    def _encode(self, pixels: list[Tensor]) -> tuple[Tensor, Tensor]:
        return self.family.posterior(torch.stack(pixels).to(self.device))

    def _encode_or_read(self, pixels: Tensor, disk: DiskCache | None, maker: str) -> tuple[Tensor, Tensor]:
        def make() -> dict[str, Tensor]:
            mean, std = self._encode([pixels])
            return {"mean": mean[0], "std": std[0]}

        moments = make() if disk is None else disk.get(latent_key(maker, pixels), make)
        return moments["mean"].to(self.device), moments["std"].to(self.device)


def alike(tensors: Sequence[Tensor]) -> list[list[int]]:
    """The rows of equal shapes side by side: lists of indices."""
    rows: dict[tuple, list[int]] = {}
    for row, tensor in enumerate(tensors):
        rows.setdefault(tuple(tensor.shape), []).append(row)
    return list(rows.values())
