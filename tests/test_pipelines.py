"""What a base model is opened with when nothing is said."""

import diffusers
import pytest
import torch

from lily_diffusion.pipelines import call_arguments, default_guidance, precision_for


@pytest.mark.parametrize(
    ("kind", "scale"),
    [
        ("StableDiffusionPipeline", 7.5),
        ("StableDiffusionXLPipeline", 5.0),
        ("FluxPipeline", 3.5),
        ("QwenImagePipeline", 4.0),  # of true_cfg_scale: its guidance_scale is None
    ],
)
def test_guidance_is_the_pipelines_own(kind, scale):
    pipe = object.__new__(getattr(diffusers, kind))
    assert default_guidance(pipe, "owner/model") == scale
    assert default_guidance(pipe, "embedded") == 3.0


def called(kind, name, **wanted):
    return call_arguments(object.__new__(getattr(diffusers, kind)), name, prompt="a cat", guidance_scale=3.0, **wanted)


def test_a_recipe_is_drawn_with_the_same_arguments_everywhere():
    plain = {"prompt": "a cat", "guidance_scale": 3.0}
    assert called("StableDiffusion3Pipeline", "owner/model", width=None, no_such=1) == plain
    assert called("StableDiffusion3Pipeline", "embedded-dit") == {**plain, "max_sequence_length": 1}
    assert called("StableDiffusionPipeline", "a", negative_prompt="fog") == {**plain, "negative_prompt": "fog"}
    assert called("QwenImagePipeline", "a") == {"prompt": "a cat", "negative_prompt": " ", "true_cfg_scale": 3.0}


def test_precision_suits_model_and_device():
    assert precision_for("owner/model", "cuda:1") == torch.bfloat16
    assert {precision_for("owner/model", "cpu"), precision_for("embedded", "cuda")} == {torch.float32}
