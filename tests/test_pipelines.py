"""What a base model is opened with when nothing is said."""

import diffusers
import pytest
import torch

from lily_diffusion.pipelines import default_guidance, precision_for


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


def test_precision_suits_model_and_device():
    assert precision_for("owner/model", "cuda:1") == torch.bfloat16
    assert {precision_for("owner/model", "cpu"), precision_for("embedded", "cuda")} == {torch.float32}
