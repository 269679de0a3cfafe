"""Stable Diffusion 3 and 3.5: two CLIP text encoders, T5 or none, an MMDiT, flow matching."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import TrainingError
from .base import Condition
from .flow_matching import FlowMatching


class StableDiffusion3(FlowMatching):
    pipelines = ("StableDiffusion3Pipeline",)
    text_parts = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "text_encoder_3", "tokenizer_3")
    default_guidance = 7.0
    pipeline_tokens = 512

    def tokenizers(self) -> list[tuple[Any, int]]:
        pipe = self.pipe
        return super().tokenizers() + ([(pipe.tokenizer_3, self.length)] if pipe.text_encoder_3 is not None else [])

    def encode(self, prompt: str, device: torch.device) -> Condition:
        embeddings, _, pooled, _ = self.pipe.encode_prompt(
            prompt, None, None, device=device, do_classifier_free_guidance=False, max_sequence_length=self.length
        )
        return {"prompt_embeds": embeddings[0].float(), "pooled_prompt_embeds": pooled[0].float()}

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        config = self.denoiser.config
        most = config.pos_embed_max_size * config.patch_size * self.pipe.vae_scale_factor
        if max(height, width) > most:
            raise TrainingError(
                f"the base model knows places in pictures of up to {most} pixels along an edge, not of "
                f"{height}x{width}; take a lower --resolution"
            )
        return super().latent_shape(height, width)

    def predict(self, model: nn.Module, noisy: Tensor, timesteps: Tensor, prompts: Condition) -> Tensor:
        return model(
            hidden_states=noisy,
            timestep=timesteps,
            encoder_hidden_states=prompts["prompt_embeds"],
            pooled_projections=prompts["pooled_prompt_embeds"],
        )
