"""The protocol of PEFT's image comparison on a tiny FLUX.2 klein: trained, measured, written down."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.peft_image_gen import __main__ as protocol

from .tiny_pipelines import flux_2_klein


@pytest.fixture
def params(tmp_path):
    torch.manual_seed(0)
    model = tmp_path / "model"
    flux_2_klein.make().save_pretrained(model)
    return {
        "model_id": str(model), "dtype": "float32", "resolution": 32, "batch_size": 2, "max_steps": 4, "use_gc": True,
        "seed": 0, "grad_norm_clip": 100.0, "optimizer_kwargs": {"lr": 0.5, "weight_decay": 1e-4}, "valid_size": 2,
        "test_size": 2, "num_inference_steps": 2, "guidance_scale": 3.5, "max_sequence_length": 8,
        "weighting_scheme": "none", "drift_image_prompts": ["a dog", "a tree"],
    }  # fmt: skip


def photos(count=7):
    rng = np.random.default_rng(0)
    return [
        (Image.fromarray(rng.integers(0, 255, (40, 24, 3), dtype=np.uint8)), f"sks cat number {i}")
        for i in range(count)
    ]


def features(images):
    rows = torch.stack([torch.from_numpy(np.array(image.resize((4, 4)))).float().flatten() for image in images])
    return torch.nn.functional.normalize(rows - rows.mean(1, keepdim=True), dim=1)


def test_the_split_is_that_of_peft():
    np.random.seed(0)
    order = np.arange(20)
    np.random.shuffle(order)
    learnt, tested = protocol.split(photos(20), {"valid_size": 2, "test_size": 4})
    assert [prompt for _, prompt in learnt] == [f"sks cat number {i}" for i in order[:14]]
    assert [prompt for _, prompt in tested] == [f"sks cat number {i}" for i in order[16:]]


def test_it_trains_and_measures(params, tmp_path):
    args = protocol.parse_args(["--rank", "4", "--output_dir", str(tmp_path / "run")])
    result = protocol.run(args, params, photos(), features)
    assert result == json.loads((tmp_path / "run" / "result.json").read_text())
    assert -1 <= result["dino_similarity"] <= 1 and 0 < result["drift"] < 1
    assert result["file_bytes"] > 0
    pictures = sorted((tmp_path / "run" / "photos").glob("*.png"))
    assert len(pictures) == 3 and Image.open(pictures[0]).size == (32, 32)
    settings = (tmp_path / "run" / "adapter" / "run.yaml").read_text()
    assert "learning_rate: 0.5" in settings and "max_train_steps: 4" in settings


def test_drift_is_nought_for_an_adapter_that_does_nothing(params):
    from lily_diffusion import LilyConfig, attach

    pipe = protocol.load(params)
    attach(pipe.transformer, LilyConfig(r=4))
    assert protocol.measure(pipe, photos(2), params, features)["drift"] == pytest.approx(0, abs=1e-6)
