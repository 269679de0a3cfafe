"""Stable Diffusion 3 and 3.5: two CLIP text encoders, T5 or none, an MMDiT, flow matching."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .base import Condition
from .flow_matching import FlowMatching


class StableDiffusion3(FlowMatching):
    pipelines = ("StableDiffusion3Pipeline",)
    text_parts = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "text_encoder_3", "tokenizer_3")
    default_resolution = 1024
    default_guidance = 7.0
    flags: ClassVar[dict[str, Any]] = {**FlowMatching.flags, "max_sequence_length": None}

    @property
    def pixels_per_latent(self) -> int:
        return self.pipe.vae_scale_factor * self.denoiser.config.patch_size

    def encode(self, prompt: str, device: torch.device) -> Condition:
        embeddings, _, pooled, _ = self.pipe.encode_prompt(
            prompt, None, None, device=device, do_classifier_free_guidance=False, **self._length()
        )
        return {"prompt_embeds": embeddings[0].float(), "pooled_prompt_embeds": pooled[0].float()}

    def call_arguments(self, prompt: Condition, empty: Condition, count: int, guidance_scale: float) -> dict[str, Any]:
        away = {f"negative_{name}": tensor for name, tensor in self.batch([empty] * count).items()}
        return {**self.batch([prompt] * count), **away, "guidance_scale": guidance_scale}

    def predict(self, model: nn.Module, noisy: Tensor, timesteps: Tensor, prompts: Condition) -> Tensor:
        return model(
            hidden_states=noisy,
            timestep=timesteps,
            encoder_hidden_states=prompts["prompt_embeds"],
            pooled_projections=prompts["pooled_prompt_embeds"],
        )

    def _length(self) -> dict[str, int]:
        length = self.args.max_sequence_length
        return {} if length is None else {"max_sequence_length": length}
