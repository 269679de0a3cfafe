"""Previews of latents that pipelines pack into tokens: they look like the picture that the pipeline itself decodes."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ui.pipeline import preview

FAMILIES = ["flux", "flux_2", "flux_2_klein", "qwen_image", "z_image"]
SIZES = [(16, 16), (48, 16), (16, 32), (32, 48)]  # width and height


def last_step(family: str, size: tuple[int, int]) -> tuple[SimpleNamespace, torch.Tensor, torch.Tensor]:
    """A tiny pipeline's autoencoder, the latents after its last step, and the picture (height, width, 3) of them."""
    torch.manual_seed(0)
    pipe = importlib.import_module(f"tests.tiny_pipelines.{family}").make()
    pipe.set_progress_bar_config(disable=True)
    kept = []
    made = pipe(
        prompt="a cat", width=size[0], height=size[1], num_inference_steps=1, output_type="pt",
        generator=torch.Generator().manual_seed(0),
        callback_on_step_end=lambda pipe, step, timestep, tensors: kept.append(tensors["latents"].clone()) or tensors,
    )  # fmt: skip
    return SimpleNamespace(vae=pipe.vae), kept[-1], made.images[0].movedim(0, -1)


def pixels(image) -> torch.Tensor:
    return torch.tensor(list(image.getdata())).view(image.height, image.width, 3) / 255


@pytest.mark.parametrize("family", FAMILIES)
def test_the_preview_of_the_last_step_is_the_picture(family):
    for size in SIZES:
        pipe, latents, picture = last_step(family, size)
        shown = preview.Previewer(pipe).picture(latents, size)
        assert shown is not None and shown.size == size and picture.std() > 0.02
        assert (pixels(shown) - picture).abs().max() < 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_a_large_autoencoder_is_previewed_by_a_map_fitted_to_the_same_latents(family, monkeypatch):
    """Latents are made linear in the mean colours, as real ones nearly are; the statistics are the autoencoder's."""
    monkeypatch.setattr(preview, "SMALL", 0)
    vae = importlib.import_module(f"tests.tiny_pipelines.{family}").make().vae
    mixed = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))

    def encode(images: torch.Tensor) -> SimpleNamespace:
        shrunk = F.interpolate(images, scale_factor=(0.5,) * 2 if images.ndim == 4 else (1, 0.5, 0.5), mode="area")
        latents = torch.einsum("bc...,dc->bd...", shrunk, mixed) + 0.3
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents))

    monkeypatch.setattr(vae, "encode", encode)
    small = torch.rand(1, 3, 3, 5, generator=torch.Generator().manual_seed(1))
    tokens = tokens_of(vae, F.interpolate(small, scale_factor=16) * 2 - 1)  # of 80 by 48 pixels
    shown = preview.Previewer(SimpleNamespace(vae=vae)).picture(tokens, (80, 48))
    assert shown is not None and shown.size == (40, 24)
    assert (pixels(shown) - F.interpolate(small, scale_factor=8)[0].movedim(0, -1)).abs().max() < 0.02


def tokens_of(vae: Any, picture: torch.Tensor) -> torch.Tensor:
    """The latents of a picture, scaled and packed as a pipeline has them."""
    video = "z_dim" in vae.config
    latents = vae.encode(picture[:, :, None] if video else picture).latent_dist.mode()
    if video:
        mean, deviation = torch.tensor(vae.config.latents_mean), torch.tensor(vae.config.latents_std)
        latents = (latents[:, :, 0] - mean[:, None, None]) / deviation[:, None, None]
    elif "scaling_factor" in vae.config:
        latents = (latents - vae.config.shift_factor) * vae.config.scaling_factor
    squares = F.pixel_unshuffle(latents, 2)
    return (vae.bn.eval()(squares) if hasattr(vae, "bn") else squares).flatten(2).mT


def test_tokens_without_a_fitting_size_have_no_preview():
    vae = importlib.import_module("tests.tiny_pipelines.flux").make().vae
    previewer = preview.Previewer(SimpleNamespace(vae=vae))
    assert previewer.picture(torch.zeros(1, 6, 16)) is None
    assert previewer.picture(torch.zeros(1, 6, 15), (48, 32)) is None
    assert previewer.picture(torch.zeros(1, 6, 16), (48, 32)).size == (12, 8)
