"""Sana: Gemma 2 behind a long instruction, a linear DiT, flow matching, a deep-compression autoencoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import Condition
from .flow_matching import FlowMatching, draw_levels, shifted
from .masked_text import MaskedText


class Sana(MaskedText, FlowMatching):
    pipelines = ("SanaPipeline",)
    default_guidance = 4.5

    @torch.no_grad()
    def posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The latents, which this autoencoder does not draw: their standard deviation is 0."""
        with torch.autocast(pixels.device.type, enabled=False):
            latents = self.pipe.vae.encode(pixels.to(self.pipe.vae.dtype)).latent.float()
        return latents, torch.zeros_like(latents)

    def timesteps(self, u: Tensor) -> Tensor:
        args, config = self.args, self.pipe.scheduler.config
        if "flow_shift" not in config:
            return super().timesteps(u)
        level = draw_levels(u, args.weighting_scheme, args.logit_mean, args.logit_std, args.mode_scale)
        return shifted(level, config.flow_shift) * config.num_train_timesteps  # as the DPM-Solver scheduler calls it

    def predict(self, model: nn.Module, noisy: Tensor, timesteps: Tensor, prompts: Condition) -> Tensor:
        answer = model(
            noisy,
            encoder_hidden_states=prompts["prompt_embeds"],
            encoder_attention_mask=prompts["prompt_attention_mask"],
            timestep=timesteps * self.denoiser.config.timestep_scale,
        )
        return answer[:, : noisy.shape[1]]  # some have a variance behind, which is not trained
