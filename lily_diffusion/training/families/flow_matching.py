"""Families that are trained by flow matching: x_sigma = (1 - sigma) x_0 + sigma noise, and the answer is noise - x_0.

Timesteps are drawn and weighted as in the paper on Stable Diffusion 3 (Esser et al. 2024, https://arxiv.org/abs/2403.03206).
"""

from __future__ import annotations

import inspect
import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..errors import TrainingError
from .base import Family

WEIGHTINGS = ("none", "logit_normal", "mode", "sigma_sqrt", "cosmap")


class FlowMatching(Family):
    """Noise is mixed in on a straight line; `predict` is what a family adds."""

    objective = "flow"
    flags: ClassVar[dict[str, Any]] = {
        "weighting_scheme": "logit_normal", "logit_mean": 0.0, "logit_std": 1.0, "mode_scale": 1.29,
        "max_sequence_length": None,
    }  # fmt: skip

    def _fill_in_flags(self) -> None:
        if self.args.guidance_scale is not None and "guidance_scale" in self.flags and not self.is_guided:
            raise TrainingError("--guidance_scale does nothing: this base model is not told any guidance; leave it out")
        super()._fill_in_flags()

    def timesteps(self, u: Tensor) -> Tensor:
        """Noise levels sigma in (0, 1) times the scheduler's num_train_timesteps, drawn as --weighting_scheme says."""
        args, config = self.args, self.pipe.scheduler.config
        level = draw_levels(u, args.weighting_scheme, args.logit_mean, args.logit_std, args.mode_scale)
        shift = 1.0 if config.get("use_dynamic_shifting") else config.get("shift", 1.0)
        return shifted(level, shift) * config.num_train_timesteps

    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        sigma = (timesteps / self.pipe.scheduler.config.num_train_timesteps).view(-1, 1, 1, 1)
        weights = loss_weights(sigma.flatten(), self.args.weighting_scheme)
        return (1 - sigma) * latents + sigma * noise, noise - latents, weights

    @property
    def length(self) -> int:
        """Tokens for the large text encoder: --max_sequence_length, or what the pipeline draws with."""
        usual = inspect.signature(type(self.pipe).__call__).parameters["max_sequence_length"].default
        return self.args.max_sequence_length or usual

    @property
    def is_guided(self) -> bool:
        """Was the denoiser distilled to be told a guidance?"""
        return bool(self.denoiser.config.get("guidance_embeds"))

    def guidance(self, noisy: Tensor) -> Any:
        """The guidance that a guidance-distilled denoiser is told in training, (B,); None for others."""
        if not self.is_guided:
            return None
        return torch.full((len(noisy),), self.args.guidance_scale, device=noisy.device, dtype=torch.float32)


def draw_levels(u: Tensor, scheme: str, logit_mean: float, logit_std: float, mode_scale: float) -> Tensor:
    """Noise levels in (0, 1) from uniform numbers in [0, 1), before any shift.

    "logit_normal" is sigmoid(logit_mean + logit_std z) with z normal, "mode" is 1 - u - mode_scale (cos^2(pi u / 2) - 1
    + u), and all others are uniform. Level 1 is pure noise.
    """
    u = u.clamp(1e-5, 1 - 1e-5)
    if scheme == "logit_normal":
        return torch.sigmoid(logit_mean + logit_std * torch.special.ndtri(u))
    if scheme == "mode":
        u = 1 - u - mode_scale * (torch.cos(math.pi * u / 2) ** 2 - 1 + u)
    return u.clamp(1e-3, 1 - 1e-5)  # no less than a scheduler of 1000 steps has: "sigma_sqrt" divides by its square


def shifted(level: Tensor, shift: float) -> Tensor:
    """Towards more noise for shift > 1, as the schedulers do: s t / (1 + (s - 1) t)."""
    return shift * level / (1 + (shift - 1) * level)


def loss_weights(sigma: Tensor, scheme: str) -> Tensor:
    """The weight of each sample's loss: sigma^-2 for "sigma_sqrt", 2 / (pi (1 - 2 sigma + 2 sigma^2)) for "cosmap"."""
    if scheme == "sigma_sqrt":
        return sigma**-2.0
    if scheme == "cosmap":
        return 2 / (math.pi * (1 - 2 * sigma + 2 * sigma**2))
    return torch.ones_like(sigma)
