from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import CLIPTextModelWithProjection

from . import clip, vae


def make() -> StableDiffusion3Pipeline:
    text_encoder, tokenizer = clip(CLIPTextModelWithProjection)
    text_encoder_2, _ = clip(CLIPTextModelWithProjection)
    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=16,
        num_attention_heads=4, joint_attention_dim=16, caption_projection_dim=64, pooled_projection_dim=16,
        pos_embed_max_size=4, qk_norm="rms_norm",
    )  # fmt: skip
    return StableDiffusion3Pipeline(
        transformer, FlowMatchEulerDiscreteScheduler(shift=3.0), vae(shift_factor=0.06), text_encoder, tokenizer,
        text_encoder_2, tokenizer, None, None,
    )  # fmt: skip
