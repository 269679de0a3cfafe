"""A tiny Stable Diffusion pipeline from diffusers' own classes, pictures, and the arguments to train on them.

PYTEST_DONT_REWRITE: the test files import it before pytest does.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from lily_diffusion import WEIGHT_NAME, base_model
from lily_diffusion.training import parse_args, saving
from lily_diffusion.training.loss_plot import draw_losses


def save_tiny_pipeline(folder: Path, prediction_type: str = "epsilon") -> Path:
    """One block and 8 channels; 16-pixel pictures, 8x8 latents; the embedded model's tokenizer."""
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(base_model.FOLDER / "tokenizer")
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
            max_position_embeddings=24, projection_dim=8, bos_token_id=0, eos_token_id=1, pad_token_id=1,
        )
    )  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8,), layers_per_block=1, down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",), mid_block_type=None, cross_attention_dim=8, attention_head_dim=1,
        norm_num_groups=4,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(4, 8), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4,
        up_block_types=("UpDecoderBlock2D",) * 2, sample_size=16,
    )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1,
        prediction_type=prediction_type,
    )  # fmt: skip
    pipe = StableDiffusionPipeline(
        vae, text_encoder, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("base"))


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Three pictures of different colours, each with its caption."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for colour in ("blue", "green", "red"):
        Image.new("RGB", (16, 16), colour).save(folder / f"{colour}.png")
        (folder / f"{colour}.txt").write_text(f"a sks robot on a {colour} background")
    return folder


@pytest.fixture
def arguments(base, pictures, tmp_path, monkeypatch):
    """A function that makes the arguments of a short run; flags given to it win.

    Drawing the losses after each of four steps would take longer than the run; `drawn_losses` is for tests of that.
    """
    monkeypatch.setattr(saving, "draw_losses", lambda history: None)

    def make(output: str = "out", **flags) -> argparse.Namespace:
        values = {
            "pretrained_model_name_or_path": base, "instance_data_dir": pictures, "output_dir": tmp_path / output,
            "resolution": 16, "rank": 4, "max_train_steps": 4, "train_batch_size": 2, "seed": 1, "learning_rate": 1e-2,
            "report_to": "none", "checkpointing_steps": 0, **flags,
        }  # fmt: skip
        argv = []
        for name, value in values.items():
            if value is None or value is False:
                continue
            argv.append(f"--{name}")
            if value is not True:
                argv += [str(v) for v in (value if isinstance(value, list | tuple) else [value])]
        return parse_args(argv)

    return make


@pytest.fixture
def drawn_losses(arguments, monkeypatch):
    monkeypatch.setattr(saving, "draw_losses", draw_losses)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / WEIGHT_NAME)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
