from typing import Any

from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel

from . import vae
from .words import t5

RESOLUTION = 32  # the autoencoder has a factor of 4, so that the 256 pixels that the pipeline goes through are fast


def make() -> PixArtSigmaPipeline:
    return PixArtSigmaPipeline(*parts(sample_size=32))


def parts(sample_size: int) -> tuple[Any, ...]:
    """Tokenizer, text encoder, autoencoder, transformer and scheduler."""
    text_encoder, tokenizer = t5()
    transformer = PixArtTransformer2DModel(
        sample_size=sample_size, num_layers=2, num_attention_heads=6, attention_head_dim=16, cross_attention_dim=96,
        caption_channels=8,
    )  # fmt: skip
    scheduler = DPMSolverMultistepScheduler(beta_start=1e-4, beta_end=0.02)
    return tokenizer, text_encoder, vae(blocks=3), transformer, scheduler
