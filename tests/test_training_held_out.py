"""The held-out loss: the mean over all pictures at fixed noise, whatever the run is told, and without a trace."""

from __future__ import annotations

import argparse
import importlib

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from lily_diffusion import LilyConfig, attach
from lily_diffusion.training import held_out
from lily_diffusion.training.dataset import Pictures, list_pictures
from lily_diffusion.training.draws import Draws, generator_for
from lily_diffusion.training.families.base import FAMILY_FLAGS
from lily_diffusion.training.families.stable_diffusion import StableDiffusion
from lily_diffusion.training.families.stable_diffusion_3 import StableDiffusion3
from lily_diffusion.training.held_out import LEVELS, HeldOut
from lily_diffusion.training.prompts import Prompts
from lily_diffusion.training.sources import Source

from .conftest import awaken

KINDS = {"stable_diffusion": StableDiffusion, "stable_diffusion_3": StableDiffusion3}
CPU = torch.device("cpu")


class Trained(torch.nn.Module):
    """The denoiser and the adapter on it, as the loop has them."""

    def __init__(self, denoiser, adapter):
        super().__init__()
        self.denoiser, self.adapter = denoiser, adapter

    def forward(self, *args, **kwargs):
        return self.denoiser(*args, **kwargs, return_dict=False)[0]


@pytest.fixture
def folder(tmp_path):
    """Six pictures: four squares and two wide ones."""
    for index, colour in enumerate(("red", "green", "blue", "gold", "teal", "grey")):
        picture = Image.new("RGB", (16, 16) if index < 4 else (36, 16), colour)
        picture.paste("white", (0, 0, 4, 9))
        picture.save(tmp_path / f"{index}.png")
        (tmp_path / f"{index}.txt").write_text(f"a {colour} robot")
    return tmp_path


def measure(folder, name="stable_diffusion", buckets=None, cached=False, draws=None, **flags):
    """A held-out set on a tiny model with an adapter that does something; `flags` are those of the run."""
    torch.manual_seed(0)
    pipe = importlib.import_module(f"tests.tiny_pipelines.{name}").make()
    family = KINDS[name](pipe, argparse.Namespace(**{**dict.fromkeys(FAMILY_FLAGS), **flags}))
    if buckets is None:  # the tiny SD3 knows no places beyond a square
        buckets = [(16, 16)] if name == "stable_diffusion_3" else [(16, 16), (16, 32)]
    pictures = Pictures(list_pictures(folder).items, buckets)
    shapes = tuple(family.latent_shape(*pictures.edges(i)) for i in range(len(pictures)))
    source = Source(
        family, pictures, Draws(**{"seed": 1, "stream": "held out", **(draws or {})}, latent_shapes=shapes), CPU
    )
    if cached:
        source.cache_latents()
    prompts = Prompts(family, [item.caption for item in pictures.items], CPU)
    adapter = awaken(attach(family.denoiser, LilyConfig(r=4, scaling=4.0, dropout=0.5)))
    return HeldOut(family, source, prompts), Trained(family.denoiser, adapter).train()


def test_it_is_the_mean_of_the_plain_losses_of_all_pictures_each_with_its_own_noise(folder):
    looker, model = measure(folder)
    model.eval()
    family, expected = looker.family, {}
    abar = family.noise_scheduler.alphas_cumprod
    for place, level in enumerate(LEVELS):
        kept = abar[int(1000 * level)]
        errors = []
        for index, sample in enumerate(looker.samples):
            noise = torch.randn(sample.latents.shape, generator=generator_for(0, "held out", 4 * index + place))
            noisy = kept.sqrt() * sample.latents + (1 - kept).sqrt() * noise
            text = family.encode(sample.caption, CPU)["prompt_embeds"]
            with torch.no_grad():
                answer = model(noisy[None], torch.tensor([int(1000 * level)]), text[None])
            errors.append(F.mse_loss(answer[0], noise).item())
        expected[level] = sum(errors) / len(errors)
    assert looker.losses(model) == pytest.approx(expected, rel=1e-5)


def test_pictures_are_cut_in_the_middle_at_the_mean_of_the_posterior(folder):
    looker, _ = measure(folder, buckets=[(16, 16)])
    picture = torch.tensor([255, 255, 255, 128, 128, 128]).view(2, 3)  # white paste lies left of the wide one's middle
    pixels = Pictures(list_pictures(folder).items, [(16, 16)]).pixels(5, (0.5, 0.5), False)
    assert torch.allclose(pixels[:, 0, 0], picture[1] / 127.5 - 1, atol=0.02)
    mean, _ = looker.family.posterior(pixels[None])
    expected = mean[0] * looker.family.vae_config.scaling_factor
    torch.testing.assert_close(looker.samples[5].latents, expected)


@pytest.mark.parametrize("name", KINDS)
def test_every_look_sees_the_same_and_leaves_no_trace(folder, name):
    looker, model = measure(folder, name)
    model.denoiser.eval()
    modes = [module.training for module in model.modules()]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = looker.losses(model)
    assert torch.equal(torch.rand(3), expected)
    assert [module.training for module in model.modules()] == modes and any(modes) and not all(modes)
    assert all(p.grad is None for p in model.parameters()) and torch.is_grad_enabled()
    torch.manual_seed(6)
    assert looker.losses(model) == first
    assert tuple(first) == LEVELS and all(loss > 0 for loss in first.values())


def test_an_error_in_between_leaves_no_trace_either(folder):
    looker, model = measure(folder)
    model.denoiser.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        looker.losses(model)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("stable_diffusion", {"snr_gamma": 1.0, "noise_offset": 0.5}),
        ("stable_diffusion", {"draws": {"seed": 9, "random_flip": True, "caption_dropout": 1.0, "batch_size": 3}}),
        ("stable_diffusion", {"draws": {"random_flip": True}, "cached": True}),
        ("stable_diffusion_3", {"weighting_scheme": "sigma_sqrt"}),
        ("stable_diffusion_3", {"logit_mean": 2.0, "draws": {"seed": 4}}),
        ("stable_diffusion_3", {"weighting_scheme": "mode"}),
    ],
)
def test_it_does_not_depend_on_what_training_is_told(folder, name, other):
    (plain, model), (told, same_model) = measure(folder, name), measure(folder, name, **other)
    assert told.losses(same_model) == pytest.approx(plain.losses(model), rel=1e-5)


def test_it_does_not_depend_on_the_size_of_its_batches(folder, monkeypatch):
    looker, model = measure(folder)
    together = looker.losses(model)
    monkeypatch.setattr(held_out, "BATCH_SIZE", 1)
    assert looker.losses(model) == pytest.approx(together, rel=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_it_sees_what_the_adapter_has_learnt(folder, name):
    looker, model = measure(folder, name)
    before = looker.losses(model)
    optimizer = torch.optim.AdamW(model.adapter.parameters(), lr=3e-3)
    samples = looker.samples[:4]
    latents = torch.stack([sample.latents for sample in samples])
    prompts = looker.family.batch([looker.prompts[sample.caption] for sample in samples])
    torch.manual_seed(0)
    model.eval()
    for _ in range(40):
        timesteps = looker.family.timesteps(torch.rand(4))
        looker.family.losses(model, latents, torch.randn_like(latents), timesteps, prompts).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    after = looker.losses(model)
    assert sum(after.values()) < 0.95 * sum(before.values())
