"""Small pictures of latents while they are denoised: by a small autoencoder itself, or by a linear map fitted to it."""

from __future__ import annotations

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

    def picture(self, latents: torch.Tensor) -> Image.Image | None:
        """Return the first sample of latents (batch, channels, height, width), or None where that cannot be done."""
        if not self.works or latents.ndim != 4 or latents.shape[1] != self.vae.config.get("latent_channels"):
            return None
        try:
            with torch.no_grad():
                pixels = self._pixels(latents[:1].detach())  # (1, 3, height, width) in [-1, 1]
        except Exception:  # an autoencoder of another kind: there are no previews then
            self.works = False
            return None
        pixels = ((pixels.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        image = Image.fromarray(pixels[0].permute(1, 2, 0).cpu().numpy(), "RGB")
        image.thumbnail((EDGE, EDGE))
        return image

    def _pixels(self, latents: torch.Tensor) -> torch.Tensor:
        if sum(p.numel() for p in self.vae.parameters()) <= SMALL:
            return self.vae.decode(_unscaled(latents, self.vae).to(self.vae.dtype), return_dict=False)[0]
        if self._map is None:
            self._map = fit(self.vae)
        x = latents.float()
        ones = torch.ones_like(x[:, :1])
        return torch.einsum("bchw,cd->bdhw", torch.cat([x, ones], 1), self._map.to(x.device))


@torch.no_grad()
def fit(vae: Any) -> torch.Tensor:
    """Return the linear map (channels + 1, 3) from scaled latents to pixels in [-1, 1] that least squares gives.

    It is fitted to what the autoencoder makes of colourful patterns, each pixel of the latents against the mean
    of the pixels that it stands for.
    """
    pixels = _patterns().to(next(vae.parameters()).device)
    parts = [vae.encode(p[None].to(vae.dtype)).latent_dist.mode().float() for p in pixels]
    latents = torch.cat(parts)  # (samples, channels, height, width)
    latents = (latents - _shift(vae)) * vae.config.scaling_factor
    wanted = F.adaptive_avg_pool2d(pixels, latents.shape[-2:]).movedim(1, -1).flatten(0, 2)
    given = latents.movedim(1, -1).flatten(0, 2)
    given = torch.cat([given, torch.ones_like(given[:, :1])], 1)
    ridge = 1e-4 * torch.eye(given.shape[1], device=given.device) * len(given)
    return torch.linalg.solve(given.T @ given + ridge, given.T @ wanted)


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


def _unscaled(latents: torch.Tensor, vae: Any) -> torch.Tensor:
    return latents / vae.config.scaling_factor + _shift(vae)


def _shift(vae: Any) -> float:
    return float(vae.config.get("shift_factor") or 0.0)


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
