from diffusers import FlowMatchEulerDiscreteScheduler, Lumina2Pipeline, Lumina2Transformer2DModel

from . import vae
from .gemma import gemma

RESOLUTION = 64  # the pipeline takes every autoencoder for one of a factor of 8


def make() -> Lumina2Pipeline:
    text_encoder, tokenizer = gemma()
    transformer = Lumina2Transformer2DModel(
        sample_size=8, in_channels=4, hidden_size=64, num_layers=4, num_refiner_layers=1, num_attention_heads=8,
        num_kv_heads=2, multiple_of=16, axes_dim_rope=(4, 2, 2), axes_lens=(300, 64, 64), cap_feat_dim=8,
    )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(shift=6.0)
    return Lumina2Pipeline(transformer, scheduler, vae(blocks=4, shift_factor=0.06), text_encoder, tokenizer)
