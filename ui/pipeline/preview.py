"""Small pictures of latents while they are denoised: by a small autoencoder itself, or by a linear map fitted to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

SMALL = 5_000_000  # parameters up to which an autoencoder is quick enough to decode every preview
EDGE = 256  # pixels, of the longer side at most
SAMPLES, SAMPLE_EDGE, DISCS = 32, 128, 6  # pictures that the linear map is fitted to, their pixels and discs


class Previewer:
    """Makes previews for one pipeline. What it needs is fitted at the first picture; it draws no random numbers."""

    def __init__(self, pipe: Any) -> None:
        self.vae: Any = getattr(pipe, "vae", None)
        self.works = self.vae is not None and hasattr(self.vae, "config")
        self._map: torch.Tensor | None = None  # (channels + 1, 3)

    def picture(self, latents: torch.Tensor, size: tuple[int, int] | None = None) -> Image.Image | None:
        """Return the first sample of latents, or None where that cannot be done.

        Args:
            latents: (batch, channels, height, width), or what a pipeline packs them to: (batch, tokens, channels * 4).
            size: width and height of the picture in pixels; tokens have no preview without it.
        """
        if not self.works:
            return None
        grid = _grid(latents[:1].detach(), size)
        edge = None if grid is None else _edge_of_squares(grid, self.vae)
        if grid is None or edge is None:
            return None
        try:
            with torch.no_grad():
                pixels = self._pixels(F.pixel_shuffle(_with_own_statistics(grid, self.vae), edge))
        except Exception:  # an autoencoder of another kind: there are no previews then
            self.works = False
            return None
        pixels = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        image = Image.fromarray(pixels[0].permute(1, 2, 0).cpu().numpy(), "RGB")
        image.thumbnail((EDGE, EDGE))
        return image

    def _pixels(self, latents: torch.Tensor) -> torch.Tensor:
        """(1, channels, height, width) -> (1, 3, height, width) in [-1, 1]."""
        x = _unscaled(latents.float(), self.vae)
        if sum(p.numel() for p in self.vae.parameters()) <= SMALL:
            x = x.to(self.vae.dtype)
            if _makes_videos(self.vae):
                return self.vae.decode(x[:, :, None], return_dict=False)[0][:, :, 0]
            return self.vae.decode(x, return_dict=False)[0]
        if self._map is None:
            self._map = fit(self.vae)
        ones = torch.ones_like(x[:, :1])
        return torch.einsum("bchw,cd->bdhw", torch.cat([x, ones], 1), self._map.to(x.device))


@torch.no_grad()
def fit(vae: Any) -> torch.Tensor:
    """Return the linear map (channels + 1, 3) from an autoencoder's latents to pixels in [-1, 1], by least squares.

    It is fitted to what the autoencoder makes of colourful patterns, each pixel of the latents against the mean
    of the pixels that it stands for.
    """
    pixels = _patterns().to(next(vae.parameters()).device)
    given = [p[None, :, None] if _makes_videos(vae) else p[None] for p in pixels.to(vae.dtype)]
    parts = [vae.encode(p).latent_dist.mode().float() for p in given]
    latents = torch.cat([part[:, :, 0] if part.ndim == 5 else part for part in parts])
    wanted = F.adaptive_avg_pool2d(pixels, (latents.shape[-2], latents.shape[-1])).movedim(1, -1).flatten(0, 2)
    rows = latents.movedim(1, -1).flatten(0, 2)
    rows = torch.cat([rows, torch.ones_like(rows[:, :1])], 1)
    ridge = 1e-4 * torch.eye(rows.shape[1], device=rows.device) * len(rows)
    return torch.linalg.solve(rows.T @ rows + ridge, rows.T @ wanted)


def nearly_clean(scheduler: Any, done: int, before: torch.Tensor | None, now: torch.Tensor) -> torch.Tensor:
    """Return what is under the noise of latents, told from two steps that follow each other.

    Latents are a x0 + s e, with a and s from the scheduler; where neither the picture x0 nor the noise e has changed
    between the two, they follow. Where a scheduler adds noise of its own, or is unknown, the latents stay as they are.

    Args:
        scheduler: after `done` steps.
        before, now: latents before and after the last of them.
    """
    kind = type(scheduler).__name__
    settings = scheduler.config
    noisy = settings.get("stochastic_sampling") or settings.get("algorithm_type", "").startswith("sde")
    if before is None or kind not in NOISE_LEVELS or noisy:
        return now
    (a1, s1), (a2, s2) = (NOISE_LEVELS[kind](scheduler, index) for index in (done - 1, done))
    change = s1 * a2 - s2 * a1
    return now if abs(change) < 1e-4 else (s1 * now.float() - s2 * before.float()) / change


def _exploding(scheduler: Any, index: int) -> tuple[float, float]:
    return 1.0, float(scheduler.sigmas[index])


def _flow(scheduler: Any, index: int) -> tuple[float, float]:
    return 1 - float(scheduler.sigmas[index]), float(scheduler.sigmas[index])


def _preserving(scheduler: Any, index: int) -> tuple[float, float]:
    times = scheduler.timesteps
    kept = float(scheduler.alphas_cumprod[int(times[index])]) if index < len(times) else 1.0
    return kept**0.5, (1 - kept) ** 0.5


NOISE_LEVELS: dict[str, Callable[[Any, int], tuple[float, float]]] = {  # (a, s) after so many steps
    "DDIMScheduler": _preserving,
    "DPMSolverMultistepScheduler": _preserving,
    "EulerDiscreteScheduler": _exploding,
    "FlowMatchEulerDiscreteScheduler": _flow,
}


def _grid(latents: torch.Tensor, size: tuple[int, int] | None) -> torch.Tensor | None:
    """Latents as (batch, channels, rows, columns); tokens make the grid whose shape is nearest to the picture's."""
    if latents.ndim == 4:
        return latents
    if latents.ndim != 3 or size is None:
        return None
    tokens = latents.shape[1]
    wanted = size[1] / size[0]
    divisors = [number for number in range(1, tokens + 1) if tokens % number == 0]
    rows = min(divisors, key=lambda number: abs(math.log(number * number / tokens / wanted)))
    return latents.unflatten(1, (rows, -1)).movedim(-1, 1)


def _edge_of_squares(grid: torch.Tensor, vae: Any) -> int | None:
    """2 where a pipeline laid squares of 2 by 2 latents into channels, 1 where it did not, None for other channels."""
    channels = vae.config.get("latent_channels") or vae.config.get("z_dim") or 0
    return {channels: 1, 4 * channels: 2}.get(grid.shape[1])


def _with_own_statistics(grid: torch.Tensor, vae: Any) -> torch.Tensor:
    """FLUX.2 has squares of latents at mean 0 and deviation 1; this takes that back."""
    if getattr(vae, "bn", None) is None:
        return grid
    mean, deviation = vae.bn.running_mean, (vae.bn.running_var + vae.config.batch_norm_eps).sqrt()
    return grid * deviation.to(grid)[:, None, None] + mean.to(grid)[:, None, None]


def _unscaled(latents: torch.Tensor, vae: Any) -> torch.Tensor:
    """A pipeline's latents -> those that its autoencoder decodes."""
    latents = latents / (vae.config.get("scaling_factor") or 1.0) + (vae.config.get("shift_factor") or 0.0)
    if vae.config.get("latents_mean") is None:
        return latents
    mean, deviation = (torch.tensor(vae.config[f"latents_{name}"]).to(latents) for name in ("mean", "std"))
    return latents * deviation[:, None, None] + mean[:, None, None]


def _makes_videos(vae: Any) -> bool:
    """Whether it wants pictures as videos of one frame, as Qwen-Image's does."""
    return "z_dim" in vae.config


def _patterns() -> torch.Tensor:
    """Discs of any colour over each other, flat and sharp as drawings are: (SAMPLES, 3, edge, edge) in [-1, 1]."""
    own = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, SAMPLE_EDGE),) * 2, indexing="ij")
    pictures = torch.rand(SAMPLES, 3, 1, 1, generator=own).mul(2).sub(1).repeat(1, 1, SAMPLE_EDGE, SAMPLE_EDGE)
    for picture in pictures:
        for cx, cy, size, *colour in torch.rand(DISCS, 6, generator=own).mul(2).sub(1).tolist():
            inside = (x - cx) ** 2 + (y - cy) ** 2 < (0.45 + 0.25 * size) ** 2
            picture[:, inside] = torch.tensor(colour)[:, None]
    return pictures
