import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
)
from transformers import Qwen3Config, Qwen3ForCausalLM

from .words import qwen_tokenizer, small


def make() -> Flux2KleinPipeline:
    text_encoder = Qwen3ForCausalLM(Qwen3Config(**small(layers=27)))  # the pipeline reads layers 9, 18 and 27
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return Flux2KleinPipeline(scheduler, flux_2_vae(), text_encoder, qwen_tokenizer(), flux_2_transformer(False))


def flux_2_vae() -> AutoencoderKLFlux2:
    """16 pixels -> 8 latents, with statistics that are not 0 and 1."""
    vae = AutoencoderKLFlux2(
        block_out_channels=(4, 8), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4,
        norm_num_groups=4, up_block_types=("UpDecoderBlock2D",) * 2, sample_size=16,
    )  # fmt: skip
    vae.bn.running_mean.copy_(torch.linspace(-0.5, 0.5, 16))
    vae.bn.running_var.copy_(torch.linspace(0.5, 2, 16))
    return vae


def flux_2_transformer(guided: bool) -> Flux2Transformer2DModel:
    return Flux2Transformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=4,
        joint_attention_dim=24, timestep_guidance_channels=16, axes_dims_rope=(2, 2, 2, 2), guidance_embeds=guided,
    )  # fmt: skip
