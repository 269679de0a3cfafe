"""Families whose denoiser predicts the noise or v on a schedule of discrete timesteps (DDPM)."""

from __future__ import annotations

import argparse
from typing import Any, ClassVar

from diffusers import DDPMScheduler
from torch import Tensor, nn

from .. import losses
from ..errors import TrainingError
from .base import Condition, Family


class NoisePrediction(Family):
    """Noise is added and asked for as the pipeline's own schedule says."""

    flags: ClassVar[dict[str, Any]] = {"snr_gamma": None, "noise_offset": 0.0}

    def __init__(self, pipe: Any, args: argparse.Namespace):
        """Raises TrainingError: the scheduler has no such schedule, or its prediction is neither epsilon nor v."""
        super().__init__(pipe, args)
        if "prediction_type" not in pipe.scheduler.config or not hasattr(pipe.scheduler, "alphas_cumprod"):
            raise TrainingError(f"the scheduler {type(pipe.scheduler).__name__} is not one of epsilon or v prediction")
        self.noise_scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
        self.objective = self.noise_scheduler.config.prediction_type
        if self.objective not in losses.PREDICTION_TYPES:
            raise TrainingError(f"the base model predicts {self.objective!r}; only epsilon and v_prediction work")

    def timesteps(self, u: Tensor) -> Tensor:
        return (u * self.noise_scheduler.config.num_train_timesteps).long()

    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        abar = self.noise_scheduler.alphas_cumprod
        noisy = losses.add_noise(latents, noise, abar, timesteps)
        target = losses.denoising_target(self.objective, latents, noise, abar, timesteps)
        if self.args.snr_gamma is None:
            return noisy, target, None
        snr = losses.signal_to_noise(abar, timesteps)
        return noisy, target, losses.min_snr_weights(snr, self.args.snr_gamma, self.objective)

    def predict(self, model: nn.Module, noisy: Tensor, timesteps: Tensor, prompts: Condition) -> Tensor:
        return model(noisy, timesteps, prompts["prompt_embeds"])
