"""Z-Image: one Qwen3 text encoder, prompts of any length; its time runs from noise at 0 to the picture at 1."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.transformers.transformer_z_image import SEQ_MULTI_OF
from torch import Tensor, nn

from .any_length import AnyLength
from .base import Condition, as_chat, unseen


class ZImage(AnyLength):
    pipelines = ("ZImagePipeline",)
    default_guidance = 5.0
    latents_per_token = 2
    length_multiple = SEQ_MULTI_OF

    def encode(self, prompt: str, device: torch.device) -> Condition:
        options = {"do_classifier_free_guidance": False, "max_sequence_length": self.length}
        embeddings, _ = self.pipe.encode_prompt(prompt, device, **options)
        return {"prompt_embeds": embeddings[0].float()}  # (its own length, D)

    @property
    def most_tokens(self) -> int:
        """Prompts are rounded up to whole multiples; their first position is 1, and the picture has the next one."""
        return (self.denoiser.config.axes_lens[0] - 2) // SEQ_MULTI_OF * SEQ_MULTI_OF

    def truncated(self, prompt: str) -> str:
        text = as_chat(self.pipe.tokenizer, prompt, enable_thinking=True)
        return unseen(self.pipe.tokenizer, prompt, text, self.length)

    def call_arguments(self, prompt: Condition, empty: Condition, count: int, guidance_scale: float) -> dict[str, Any]:
        return {
            "prompt_embeds": [prompt["prompt_embeds"]] * count,
            "negative_prompt_embeds": [empty["prompt_embeds"]] * count,
            "guidance_scale": guidance_scale,
        }

    def answer(self, model: nn.Module, noisy: Tensor, timesteps: Tensor, prompts: list[Tensor]) -> Tensor:
        flow = model(list(noisy.unsqueeze(2)), (1000 - timesteps) / 1000, prompts)
        return -torch.stack(list(flow)).squeeze(2)  # it answers x_0 - noise
