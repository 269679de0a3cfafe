"""Stable Diffusion 1.x and 2.x, and everything of their shape: one CLIP text encoder, a UNet, a KL autoencoder."""

from __future__ import annotations

import argparse
from typing import Any

import torch

from ..errors import TrainingError
from .base import Condition
from .noise_prediction import NoisePrediction


class StableDiffusion(NoisePrediction):
    pipelines = ("StableDiffusionPipeline",)

    def __init__(self, pipe: Any, args: argparse.Namespace):
        """Raises TrainingError: the UNet takes more than latents."""
        super().__init__(pipe, args)
        channels = pipe.unet.config.in_channels, pipe.vae.config.latent_channels
        if channels[0] != channels[1]:
            raise TrainingError(
                f"the UNet takes {channels[0]} channels and the autoencoder makes {channels[1]}: inpainting and depth "
                "models cannot be trained"
            )

    def encode(self, prompt: str, device: torch.device) -> Condition:
        embeddings = self.pipe.encode_prompt(prompt, device, 1, do_classifier_free_guidance=False)[0]
        return {"prompt_embeds": embeddings[0].float()}
