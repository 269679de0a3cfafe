"""Tiny pipelines from diffusers' own classes, one file for each family that can be trained.

Pictures have 16 pixels unless a file has a RESOLUTION of its own.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from lily_diffusion import base_model


def save_pipeline(family: str, folder: Path) -> Path:
    """Write the tiny pipeline of a family (a module's name in ``training/families``) to a folder, from a fixed seed."""
    torch.manual_seed(0)
    importlib.import_module(f"{__name__}.{family}").make().save_pretrained(folder)
    return folder


def resolution(family: str) -> int:
    """Edge in pixels of the smallest picture that a family's tiny pipeline can be trained on sensibly."""
    return getattr(importlib.import_module(f"{__name__}.{family}"), "RESOLUTION", 16)


def clip(kind: Any = CLIPTextModel, width: int = 8) -> tuple[Any, CLIPTokenizer]:
    """A text encoder and the embedded model's tokenizer."""
    tokenizer = CLIPTokenizer.from_pretrained(base_model.FOLDER / "tokenizer")
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=8, num_hidden_layers=2, num_attention_heads=1,
        max_position_embeddings=24, projection_dim=width, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return kind(config), tokenizer


def vae(latent_channels: int = 4, blocks: int = 2, **more: Any) -> AutoencoderKL:
    """16 pixels -> 8 latents; every further block halves that."""
    return AutoencoderKL(
        block_out_channels=(4,) * (blocks - 1) + (8,), down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks, norm_num_groups=4, latent_channels=latent_channels,
        sample_size=16, **more,
    )  # fmt: skip


def ddim() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
