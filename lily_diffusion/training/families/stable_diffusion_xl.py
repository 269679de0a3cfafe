"""Stable Diffusion XL: two CLIP text encoders, sizes and crops told to the UNet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import Condition, Family
from .noise_prediction import NoisePrediction


class SDXLShaped(Family):
    """Prompts, latents and UNet; `noise_prediction` and `edm` have the two ways in which such UNets were trained."""

    pipelines = ("StableDiffusionXLPipeline",)
    text_parts = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    default_guidance = 5.0

    def latents(self, mean: Tensor, std: Tensor, noise: Tensor) -> Tensor:
        """Some autoencoders say the mean and the standard deviation of their latents."""
        statistics = [self.vae_config.get(name) for name in ("latents_mean", "latents_std")]
        if None in statistics:
            return super().latents(mean, std, noise)
        shift, scale = (torch.tensor(values, device=mean.device).view(-1, 1, 1) for values in statistics)
        return (mean + std * noise - shift) * self.vae_config.scaling_factor / scale

    def encode(self, prompt: str, device: torch.device) -> Condition:
        """The empty prompt is encoded as what pictures are guided away from: zeros, if the pipeline says so."""
        empty = not prompt
        encoded = self.pipe.encode_prompt(prompt, None, device, 1, do_classifier_free_guidance=empty)
        embeddings, pooled = encoded[1::2] if empty else encoded[::2]
        return {"prompt_embeds": embeddings[0].float(), "pooled_prompt_embeds": pooled[0].float()}

    def predict(self, model: nn.Module, noisy: Tensor, timesteps: Tensor, prompts: Condition) -> Tensor:
        edges = [edge * self.pipe.vae_scale_factor for edge in noisy.shape[2:]]
        sizes = torch.tensor([*edges, 0, 0, *edges], device=noisy.device, dtype=noisy.dtype)
        added = {
            "text_embeds": prompts["pooled_prompt_embeds"],
            "time_ids": sizes.expand(len(noisy), -1),  # original size, crop, target size
        }
        return model(noisy, timesteps, prompts["prompt_embeds"], added_cond_kwargs=added)


class StableDiffusionXL(SDXLShaped, NoisePrediction):
    """Trained to predict the noise or v."""
