"""Which pipelines draw a prompt alone as beside a longer one, in float64, where rounding cannot hide anything."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from diffusers import DiffusionPipeline

from lily_diffusion import LilyConfig, attach
from lily_diffusion.sharing import KINDS

from .conftest import awaken
from .tiny_pipelines import resolution, save_pipeline

SHORT = "a sks robot"
LONG = " and ".join(["a photo of a sks robot on a red green blue background"] * 4)
PADDED = ["z_image", "qwen_image", "lumina_2"]  # to the longest prompt of the batch, inside the denoiser
FIXED = [
    "stable_diffusion", "stable_diffusion_xl", "stable_diffusion_3_t5", "flux", "flux_2_klein", "flux_2", "pixart",
    "sana",
]  # fmt: skip


def load(name, folder, routing="sample"):
    """A tiny pipeline in float64 whose adapter does much; its routers are decided, as trained ones are."""
    pipe = DiffusionPipeline.from_pretrained(save_pipeline(name, folder)).to(torch.float64)
    pipe.set_progress_bar_config(disable=True)
    model = getattr(pipe, "transformer", None) or pipe.unet
    config = LilyConfig(r=4, stride_A=1, num_B=4, scaling=4.0, routing=routing, target_modules=KINDS)
    adapter = awaken(attach(model, config)).double()
    for router in adapter.lily_router.parameters():
        router.data.mul_(10)
    return pipe


def unlike(pipe, name) -> list[float]:
    """How far each of two pictures, drawn together without guidance, is from the same one drawn alone."""
    known, edge = inspect.signature(pipe.__call__).parameters, resolution(name)
    options = {"true_cfg_scale": 1.0} if "true_cfg_scale" in known else {"guidance_scale": float(name != "z_image")}
    if "use_resolution_binning" in known:
        options |= {"use_resolution_binning": False, "clean_caption": False}

    def draw(prompts, seeds):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        size = {"height": edge, "width": edge, "num_inference_steps": 2}
        return pipe(prompt=prompts, **size, generator=generators, output_type="latent", **options).images

    together, alone = draw([SHORT, LONG], [1, 2]), torch.cat([draw([SHORT], [1]), draw([LONG], [2])])
    return ((together - alone).abs().flatten(1).amax(1) / alone.abs().max()).tolist()


def test_the_empty_prompt_of_guidance_is_padded_beside_a_prompt_in_z_image(tmp_path, monkeypatch):
    pipe, lengths = load("z_image", tmp_path), []
    forward = pipe.transformer.forward

    def listen(x, t, prompts, **options):
        lengths.append([math.ceil(len(prompt) / 32) for prompt in prompts])
        return forward(x, t, prompts, **options)

    monkeypatch.setattr(pipe.transformer, "forward", listen)
    pipe(prompt=LONG, height=16, width=16, num_inference_steps=1, guidance_scale=3.0, output_type="latent")
    assert len(lengths) == 1 and lengths[0][0] > lengths[0][1]


@pytest.mark.parametrize("name", FIXED)
def test_prompts_of_one_length_do_not_touch_each_other(tmp_path, name):
    assert max(unlike(load(name, tmp_path), name)) < 1e-9


@pytest.mark.parametrize("name", PADDED)
def test_padding_counts_in_the_mean_of_the_routers(tmp_path, name):
    """Known and documented: the shorter prompt's picture is another one; the longest prompt's is the same."""
    shorter, longest = unlike(load(name, tmp_path / "sample"), name)
    assert shorter > 1e-4 and longest < 1e-9
    for routing in ("token", "static"):
        assert max(unlike(load(name, tmp_path / routing, routing), name)) < 1e-9
