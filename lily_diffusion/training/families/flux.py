"""FLUX.1: CLIP and T5 text encoders, a transformer over 2x2 patches of latents, told how strong guidance shall be."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .base import Condition
from .flow_matching import FlowMatching


class Flux(FlowMatching):
    pipelines = ("FluxPipeline",)
    text_parts = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    default_guidance = 3.5
    latents_per_token = 2
    pipeline_tokens = 512
    flags: ClassVar[dict[str, Any]] = {**FlowMatching.flags, "guidance_scale": 1.0}

    def encode(self, prompt: str, device: torch.device) -> Condition:
        embeddings, pooled, _ = self.pipe.encode_prompt(prompt, None, device, max_sequence_length=self.length)
        return {"prompt_embeds": embeddings[0].float(), "pooled_prompt_embeds": pooled[0].float()}

    def tokenizers(self) -> list[tuple[Any, int]]:
        return [(self.pipe.tokenizer, self.pipe.tokenizer.model_max_length), (self.pipe.tokenizer_2, self.length)]

    def call_arguments(self, prompt: Condition, empty: Condition, count: int, guidance_scale: float) -> dict[str, Any]:
        return {**self.batch([prompt] * count), "guidance_scale": guidance_scale}  # distilled: no empty prompt

    def predict(self, model: nn.Module, noisy: Tensor, timesteps: Tensor, prompts: Condition) -> Tensor:
        pipe, (count, channels, height, width) = self.pipe, noisy.shape
        embeddings = prompts["prompt_embeds"]
        answer = model(
            hidden_states=pipe._pack_latents(noisy, count, channels, height, width),
            timestep=timesteps / 1000,
            guidance=self.guidance(noisy),
            pooled_projections=prompts["pooled_prompt_embeds"],
            encoder_hidden_states=embeddings,
            txt_ids=torch.zeros(embeddings.shape[1], 3, device=noisy.device, dtype=noisy.dtype),
            img_ids=pipe._prepare_latent_image_ids(count, height // 2, width // 2, noisy.device, noisy.dtype),
        )
        scale = pipe.vae_scale_factor
        return pipe._unpack_latents(answer, height * scale, width * scale, scale)
