from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

from . import clip, vae
from .words import t5


def make() -> FluxPipeline:
    text_encoder, tokenizer = clip()
    text_encoder_2, tokenizer_2 = t5()
    transformer = FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=4,
        joint_attention_dim=8, pooled_projection_dim=8, guidance_embeds=True, axes_dims_rope=(4, 2, 2),
    )  # fmt: skip
    return FluxPipeline(
        FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True), vae(shift_factor=0.06),
        text_encoder, tokenizer, text_encoder_2, tokenizer_2, transformer,
    )  # fmt: skip
