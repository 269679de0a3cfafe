"""FLUX.2 klein: one Qwen3 text encoder, 2x2 patches of latents brought to mean 0 and variance 1 by the autoencoder."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from torch import Tensor, nn

from .base import Condition, as_chat, unseen
from .flow_matching import FlowMatching


class Flux2Klein(FlowMatching):
    """Latents are patches throughout: (B, 4 C, h / 2, w / 2)."""

    pipelines = ("Flux2KleinPipeline",)
    default_guidance = 4.0
    latents_per_token = 2

    def __init__(self, pipe: Any, args: argparse.Namespace):
        super().__init__(pipe, args)
        norm = pipe.vae.bn  # its statistics outlive the autoencoder
        self.patch_mean = norm.running_mean.clone().view(-1, 1, 1)
        self.patch_std = (norm.running_var + pipe.vae.config.batch_norm_eps).sqrt().view(-1, 1, 1)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        channels, height, width = super().latent_shape(height, width)
        return (channels * 4, height // 2, width // 2)

    def posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        mean, std = super().posterior(pixels)
        return self.pipe._patchify_latents(mean), self.pipe._patchify_latents(std)

    def latents(self, mean: Tensor, std: Tensor, noise: Tensor) -> Tensor:
        return (mean + std * noise - self.patch_mean.to(mean.device)) / self.patch_std.to(mean.device)

    def encode(self, prompt: str, device: torch.device) -> Condition:
        embeddings, _ = self.pipe.encode_prompt(prompt, device, max_sequence_length=self.length)
        return {"prompt_embeds": embeddings[0].float()}

    def truncated(self, prompt: str) -> str:
        text = as_chat(self.pipe.tokenizer, prompt, enable_thinking=False)
        return unseen(self.pipe.tokenizer, prompt, text, self.length)

    def predict(self, model: nn.Module, noisy: Tensor, timesteps: Tensor, prompts: Condition) -> Tensor:
        pipe, embeddings = self.pipe, prompts["prompt_embeds"]
        answer = model(
            hidden_states=pipe._pack_latents(noisy),
            timestep=timesteps / 1000,
            guidance=self.guidance(noisy),
            encoder_hidden_states=embeddings,
            txt_ids=pipe._prepare_text_ids(embeddings).to(noisy.device),
            img_ids=pipe._prepare_latent_ids(noisy).to(noisy.device),
        )
        return answer.transpose(1, 2).unflatten(2, noisy.shape[2:])
