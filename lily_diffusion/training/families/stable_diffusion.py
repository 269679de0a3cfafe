"""Stable Diffusion 1.x and 2.x, and everything of their shape: one CLIP text encoder, a UNet, a KL autoencoder."""

from __future__ import annotations

import argparse
import gc
from collections.abc import Iterable
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, StableDiffusionPipeline
from torch import Tensor, nn

from ... import base_model
from .. import losses
from ..errors import TrainingError


class StableDiffusion:
    """A pipeline taken apart for training; text encoder and autoencoder can be freed when their work is done."""

    def __init__(self, pipe: StableDiffusionPipeline):
        """Take over a float32 pipeline; nothing in it will ask for gradients.

        Raises:
            TrainingError: the pipeline is not of this family, or predicts neither epsilon nor v.
        """
        if not isinstance(pipe, StableDiffusionPipeline):
            raise TrainingError(
                f"the base model is a {type(pipe).__name__}; only pipelines of the Stable Diffusion 1.x and 2.x shape "
                "(StableDiffusionPipeline) can be trained"
            )
        if pipe.unet.config.in_channels != pipe.vae.config.latent_channels:
            raise TrainingError(
                f"the UNet takes {pipe.unet.config.in_channels} channels and the autoencoder makes "
                f"{pipe.vae.config.latent_channels}: inpainting and depth models cannot be trained"
            )
        self.pipe = pipe
        if "prediction_type" not in pipe.scheduler.config:
            raise TrainingError(f"the scheduler {type(pipe.scheduler).__name__} is not one of epsilon or v prediction")
        self.noise_scheduler = DDPMScheduler.from_config(pipe.scheduler.config)
        self.prediction_type: str = self.noise_scheduler.config.prediction_type
        self.num_timesteps: int = self.noise_scheduler.config.num_train_timesteps
        self.vae_factor: int = pipe.vae_scale_factor  # pixels to one latent
        self.latent_channels: int = pipe.vae.config.latent_channels
        self.scaling_factor: float = pipe.vae.config.scaling_factor
        if self.prediction_type not in losses.PREDICTION_TYPES:
            raise TrainingError(f"the base model predicts {self.prediction_type!r}; only epsilon and v_prediction work")
        for part in (pipe.unet, pipe.vae, pipe.text_encoder):
            part.requires_grad_(False).eval()

    @classmethod
    def load(cls, args: argparse.Namespace) -> StableDiffusion:
        """Load what ``--pretrained_model_name_or_path`` names, in float32 and without a safety checker.

        Raises:
            TrainingError: it cannot be loaded, or is of another family.
        """
        name = args.pretrained_model_name_or_path
        kwargs: dict[str, Any] = {"revision": args.revision, "variant": args.variant, "cache_dir": args.cache_dir}
        try:
            if args.pretrained_vae_model_name_or_path:
                vae_name = args.pretrained_vae_model_name_or_path
                kwargs["vae"] = AutoencoderKL.from_pretrained(vae_name, torch_dtype=torch.float32)
            pipe = base_model.load_pipeline(name, dtype=torch.float32, safety_checker=None, **kwargs)
        except (OSError, ValueError) as error:
            raise TrainingError(f"cannot load the base model {name!r}: {str(error).strip().splitlines()[0]}") from error
        return cls(pipe)

    @property
    def denoiser(self) -> nn.Module:
        return self.pipe.unet

    def latent_shape(self, resolution: int) -> tuple[int, int, int]:
        """The (C, h, w) of one latent.

        Raises:
            TrainingError: the resolution does not go into whole latents.
        """
        step = self.vae_factor
        if resolution % step:
            near = max(1, round(resolution / step)) * step
            raise TrainingError(f"--resolution {resolution} is not a multiple of {step}, a latent's edge; take {near}")
        return (self.latent_channels, resolution // self.vae_factor, resolution // self.vae_factor)

    @torch.no_grad()
    def encode_prompts(self, prompts: Iterable[str], device: torch.device) -> dict[str, Tensor]:
        """Encode each different prompt once, as the pipeline does: prompt -> (tokens, C) in float32 on `device`."""
        self.pipe.text_encoder.to(device)
        return {
            prompt: self.pipe.encode_prompt(prompt, device, 1, do_classifier_free_guidance=False)[0][0].float()
            for prompt in dict.fromkeys(prompts)
        }

    def truncated(self, prompt: str) -> str:
        """The end of a prompt that the text encoder will not see; empty if it sees everything."""
        tokenizer = self.pipe.tokenizer
        ids = tokenizer(prompt, truncation=False, verbose=False).input_ids
        return tokenizer.decode(ids[tokenizer.model_max_length - 1 : -1]).strip()

    def free_text_encoder(self) -> None:
        self.pipe.register_modules(text_encoder=None, tokenizer=None)
        _release()

    def free_autoencoder(self) -> None:
        self.pipe.register_modules(vae=None)
        _release()

    @torch.no_grad()
    def posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the autoencoder's posterior: (B, 3, H, W) in [-1, 1] -> (B, C, h, w) twice."""
        with torch.autocast(pixels.device.type, enabled=False):
            distribution = self.pipe.vae.encode(pixels.to(self.pipe.vae.dtype)).latent_dist
        return distribution.mean.float(), distribution.std.float()

    def latents(self, mean: Tensor, std: Tensor, noise: Tensor) -> Tensor:
        """A sample from the posterior, scaled as the UNet wants it."""
        return (mean + std * noise) * self.scaling_factor

    def losses(
        self,
        model: nn.Module,
        latents: Tensor,
        noise: Tensor,
        timesteps: Tensor,
        prompts: Tensor,
        snr_gamma: float | None,
    ) -> Tensor:
        """The loss of each sample, shape (B,). `prompts` is (B, tokens, C)."""
        abar = self.noise_scheduler.alphas_cumprod
        dtype = self.pipe.unet.dtype
        noisy = losses.add_noise(latents, noise, abar, timesteps)
        prediction = model(noisy.to(dtype), timesteps, prompts.to(dtype))
        target = losses.denoising_target(self.prediction_type, latents, noise, abar, timesteps)
        weights = None
        if snr_gamma is not None:
            snr = losses.signal_to_noise(abar, timesteps)
            weights = losses.min_snr_weights(snr, snr_gamma, self.prediction_type)
        return losses.denoising_loss(prediction, target, weights)


def _release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
