"""Validation sheets: what the pipeline itself would draw, rows that can be read, and no trace in training."""

from __future__ import annotations

import argparse
import contextlib
import importlib

import pytest
import torch

from lily_diffusion import LilyConfig, attach
from lily_diffusion.training import validation
from lily_diffusion.training.draws import generator_for
from lily_diffusion.training.families.base import FAMILY_FLAGS
from lily_diffusion.training.families.stable_diffusion import StableDiffusion
from lily_diffusion.training.families.stable_diffusion_3 import StableDiffusion3
from lily_diffusion.training.families.stable_diffusion_xl import StableDiffusionXL
from lily_diffusion.training.prompts import Prompts
from lily_diffusion.training.validation import Validation, shortened

from .conftest import awaken

KINDS = {
    "stable_diffusion": StableDiffusion,
    "stable_diffusion_xl": StableDiffusionXL,
    "stable_diffusion_3": StableDiffusion3,
}
PROMPT, OTHER = "a sks robot", "a cat on a red background"
CPU = torch.device("cpu")


def make(name="stable_diffusion", texts=(PROMPT,), **model):
    """A validation of a tiny pipeline with an adapter that does something, its pipeline and that adapter."""
    torch.manual_seed(0)
    pipe = importlib.import_module(f"tests.tiny_pipelines.{name}").make()
    pipe.register_to_config(**model)
    pipe.set_progress_bar_config(disable=True)
    family = KINDS[name](pipe, argparse.Namespace(**dict.fromkeys(FAMILY_FLAGS)))
    prompts = Prompts(family, [*texts, ""], CPU)
    adapter = awaken(attach(family.denoiser, LilyConfig(r=4, scaling=8.0, dropout=0.5)), std=1.0).train()
    parts = {"unet": family.denoiser}
    look = Validation(
        family, parts, texts, prompts, resolution=16, num_images=2, guidance_scale=5.0, inference_steps=2, device=CPU
    )
    return look, pipe, adapter


def draw(pipe, prompt=PROMPT) -> list[bytes]:
    """What a user gets from the pipeline for the noise of a sheet."""
    noise = [generator_for(validation.SEED, "validation", i) for i in range(2)]
    options = {"height": 16, "width": 16, "num_inference_steps": 2, "guidance_scale": 5.0}
    with torch.no_grad():
        return [pipe(prompt=prompt, generator=one, **options).images[0].tobytes() for one in noise]


def rows(look, monkeypatch):
    """The pictures and labels of a sheet."""
    seen = {}
    real = validation.labelled_grid

    def watched(images, labels, *args, **kwargs):
        seen.update(pictures=[[image.tobytes() for image in row] for row in images], labels=labels)
        return real(images, labels, *args, **kwargs)

    monkeypatch.setattr(validation, "labelled_grid", watched)
    look.sheet(0, contextlib.nullcontext())
    return seen["pictures"], seen["labels"]


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("stable_diffusion", {}),
        ("stable_diffusion_xl", {"force_zeros_for_empty_prompt": True}),
        ("stable_diffusion_xl", {"force_zeros_for_empty_prompt": False}),
        ("stable_diffusion_3", {}),
    ],
)
def test_both_rows_are_what_the_pipeline_draws_with_guidance(monkeypatch, name, config):
    look, pipe, adapter = make(name, **config)
    (base, adapted), _ = rows(look, monkeypatch)
    adapter.eval()
    assert adapted == draw(pipe)
    adapter.requires_grad_(False)
    with torch.no_grad():
        for B in adapter.lily_B:
            B.zero_()
    assert base == draw(pipe) and base != adapted


def test_the_base_row_is_drawn_once_and_every_prompt_has_two_rows(monkeypatch):
    look, _, adapter = make(texts=(PROMPT, OTHER, PROMPT))
    before, labels = rows(look, monkeypatch)
    assert labels == [f"base: {PROMPT}", f"adapted: {PROMPT}", f"base: {OTHER}", f"adapted: {OTHER}"]
    awaken(adapter, seed=8, std=1.0)
    with monkeypatch.context() as patch:
        patch.setattr(look, "_base_rows", None)  # cannot be drawn again
        after, _ = rows(look, patch)
    assert after[0] == before[0] and after[2] == before[2] and after[1] != before[1] and after[3] != before[3]


def test_dropout_and_random_numbers_of_training_are_left_as_they_were(monkeypatch):
    look, _, adapter = make()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    (_, first), _ = rows(look, monkeypatch)
    assert torch.equal(torch.rand(3), expected) and adapter.training
    (_, second), _ = rows(look, monkeypatch)
    assert first == second  # dropout was off
    monkeypatch.setattr(look, "_row", lambda text: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        look.sheet(1, contextlib.nullcontext())
    assert adapter.training and "decode" not in vars(look.pipe.vae)


def test_adapters_on_every_part_are_off_in_the_base_row(monkeypatch):
    look, _, _ = make()
    switched = []
    look.parts["text_encoder"] = torch.nn.Identity()
    monkeypatch.setattr(validation, "set_enabled", lambda model, on: switched.append((type(model).__name__, on)))
    look.sheet(0, contextlib.nullcontext())
    names = ("UNet2DConditionModel", "Identity")
    assert switched == [(name, on) for on in (False, True) for name in names]


def test_long_prompts_are_cut_beside_their_rows_and_short_ones_are_not():
    assert shortened(PROMPT) == PROMPT
    long = "a sks robot, " * 20
    cut = shortened(long)
    assert 90 < len(cut) <= validation.LABEL_LENGTH and cut.endswith("…") and cut[-2] != ","
    assert set(cut[:-1].split()) == set(long.split())  # no word is cut
    assert len(shortened("x" * 500)) == validation.LABEL_LENGTH


def test_a_sheet_of_long_prompts_stays_as_high_as_its_pictures(tmp_path):
    short, _, _ = make(texts=(PROMPT, OTHER))
    long, _, _ = make(texts=("a very detailed photo of a sks robot, " * 12, "another, " + "masterpiece, " * 60))
    path = long.save(tmp_path / "samples", 7, contextlib.nullcontext())
    assert path == tmp_path / "samples" / "step-7.png" and path.exists()
    assert long.sheet(7, contextlib.nullcontext()).height == short.sheet(7, contextlib.nullcontext()).height
