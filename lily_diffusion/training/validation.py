"""Validation pictures: one sheet a time, every prompt without and with the adapter, from the same noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor

from ..adapter import LilyAdapter
from ..grid import labelled_grid
from ..switches import disable_lily, enable_lily
from .checkpoints import random_states, set_random_states
from .draws import generator_for
from .families.stable_diffusion import StableDiffusion

SEED = 0  # of the noise that the pictures start from: the same in every run, so that runs can be compared


class Validation:
    """Draws the sheets. The base model's row is drawn once; training is left as it was."""

    def __init__(
        self,
        family: StableDiffusion,
        adapter: LilyAdapter,
        prompts: Sequence[str],
        embeddings: dict[str, Tensor],
        *,
        resolution: int,
        num_images: int,
        guidance_scale: float,
        inference_steps: int,
        device: torch.device,
    ):
        """`embeddings` must have every prompt and the empty one."""
        pipe = family.pipe
        self.pipe = StableDiffusionPipeline(
            vae=pipe.vae,
            text_encoder=None,
            tokenizer=None,
            unet=pipe.unet,
            scheduler=type(pipe.scheduler).from_config(pipe.scheduler.config),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        self.pipe.set_progress_bar_config(disable=True)
        self.adapter = adapter
        self.prompts = list(dict.fromkeys(prompts))
        self.embeddings = embeddings
        self.shape = family.latent_shape(resolution)
        self.resolution = resolution
        self.num_images = num_images
        self.guidance_scale = guidance_scale
        self.inference_steps = inference_steps
        self.device = device
        self._base: list[list[Image.Image]] | None = None

    def sheet(self, step: int, autocast: AbstractContextManager) -> Image.Image:
        """One picture with two rows for each prompt: the base model's, and the adapted model's."""
        with torch.no_grad(), self._undisturbed(), autocast:
            if self._base is None:
                disable_lily(self.pipe)
                try:
                    self._base = [self._row(prompt) for prompt in self.prompts]
                finally:
                    enable_lily(self.pipe)
            adapted = [self._row(prompt) for prompt in self.prompts]
        rows = [row for pair in zip(self._base, adapted, strict=True) for row in pair]
        labels = [text for prompt in self.prompts for text in (f"base: {prompt}", f"adapted: {prompt}")]
        columns = [f"noise {i}" for i in range(self.num_images)]
        return labelled_grid(rows, labels, columns, title=f"step {step}")

    def save(self, folder: Path, step: int, autocast: AbstractContextManager) -> Path:
        """Draw the sheet into ``folder/step-<step>.png``."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"step-{step}.png"
        self.sheet(step, autocast).save(path)
        return path

    def _row(self, prompt: str) -> list[Image.Image]:
        generators = [generator_for(SEED, "validation", i) for i in range(self.num_images)]
        noise = torch.stack([torch.randn(self.shape, generator=g) for g in generators])
        latents = self.pipe(
            prompt_embeds=self.embeddings[prompt].expand(self.num_images, -1, -1),
            negative_prompt_embeds=self.embeddings[""].expand(self.num_images, -1, -1),
            latents=noise.to(self.device),
            generator=generators,
            height=self.resolution,
            width=self.resolution,
            num_inference_steps=self.inference_steps,
            guidance_scale=self.guidance_scale,
            output_type="latent",
        ).images
        vae = self.pipe.vae
        with torch.autocast(self.device.type, enabled=False):  # autoencoders overflow in half precision
            pixels = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor, return_dict=False)[0]
        return self.pipe.image_processor.postprocess(pixels, output_type="pil")

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        states, training, home = random_states(), self.adapter.training, self.pipe.vae.device
        self.pipe.vae.to(self.device)
        self.adapter.eval()
        try:
            yield
        finally:
            self.adapter.train(training)
            self.pipe.vae.to(home)
            set_random_states(states)
