"""Qwen-Image: a Qwen2.5-VL text encoder, prompts of any length, a video autoencoder for one frame, 2x2 patches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .any_length import AnyLength
from .base import Condition, unseen


class QwenImage(AnyLength):
    pipelines = ("QwenImagePipeline",)
    default_guidance = 4.0
    latents_per_token = 2
    pipeline_tokens = 1024

    @property
    def latent_channels(self) -> int:
        return self.vae_config.z_dim

    def posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = super().posterior(pixels.unsqueeze(2))  # a video of one frame
        return mean.squeeze(2), std.squeeze(2)

    def latents(self, mean: Tensor, std: Tensor, noise: Tensor) -> Tensor:
        shift, scale = (
            torch.tensor(self.vae_config[name], device=mean.device).view(-1, 1, 1)
            for name in ("latents_mean", "latents_std")
        )
        return (mean + std * noise - shift) / scale

    def encode(self, prompt: str, device: torch.device) -> Condition:
        embeddings, _ = self.pipe.encode_prompt(prompt, device, max_sequence_length=self.length)
        return {"prompt_embeds": embeddings[0].float()}  # (its own length, D)

    def truncated(self, prompt: str) -> str:
        text = self.pipe.prompt_template_encode.format(prompt)
        return unseen(self.pipe.tokenizer, prompt, text, self.length + self.pipe.prompt_template_encode_start_idx)

    def call_arguments(self, prompt: Condition, empty: Condition, count: int, guidance_scale: float) -> dict[str, Any]:
        arguments = {**self.batch([prompt] * count), "max_sequence_length": self.length}
        if guidance_scale > 1:
            arguments |= {f"negative_{name}": tensor for name, tensor in self.batch([empty] * count).items()}
        return {**arguments, "true_cfg_scale": guidance_scale}

    def answer(self, model: nn.Module, noisy: Tensor, timesteps: Tensor, prompts: list[Tensor]) -> Tensor:
        pipe, (count, channels, height, width) = self.pipe, noisy.shape
        flow = model(
            hidden_states=pipe._pack_latents(noisy, count, channels, height, width),
            timestep=timesteps / 1000,
            encoder_hidden_states=torch.stack(prompts),
            img_shapes=[[(1, height // 2, width // 2)]] * count,
        )
        scale = pipe.vae_scale_factor
        return pipe._unpack_latents(flow, height * scale, width * scale, scale).squeeze(2)
