"""Tiny transformers of image models that attend to the image and, separately, to the text or to nothing else."""

import torch
from diffusers import (
    DiTTransformer2DModel,
    DreamLiteTransformer2DModel,
    HunyuanDiT2DModel,
    LuminaNextDiT2DModel,
    PixArtTransformer2DModel,
    PriorTransformer,
    SanaTransformer2DModel,
    Transformer2DModel,
)
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import get_2d_rotary_pos_embed_lumina
from diffusers.models.unets.unet_dreamlite import DreamLiteAttnProcessor2_0

from . import Tiny, tiny


@tiny("DiTTransformer2DModel")
def dit() -> Tiny:
    model = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=8,
        num_embeds_ada_norm=10,
    )
    return model, {
        "hidden_states": torch.randn(2, 4, 8, 8),
        "timestep": torch.tensor([3, 500]),
        "class_labels": torch.tensor([1, 7]),
    }


@tiny("HunyuanDiT2DModel")
def hunyuan_dit() -> Tiny:
    model = HunyuanDiT2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        patch_size=2,
        sample_size=8,
        hidden_size=16,
        num_layers=6,
        mlp_ratio=2.0,
        cross_attention_dim=12,
        cross_attention_dim_t5=8,
        pooled_projection_dim=10,
        text_len=5,
        text_len_t5=4,
        use_style_cond_and_image_meta_size=False,
    )
    angles = torch.randn(16, 8)
    return model, {
        "hidden_states": torch.randn(2, 4, 8, 8),
        "timestep": torch.tensor([3.0, 500.0]),
        "encoder_hidden_states": torch.randn(2, 5, 12),
        "text_embedding_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
        "encoder_hidden_states_t5": torch.randn(2, 4, 8),
        "text_embedding_mask_t5": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
        "image_rotary_emb": (angles.cos(), angles.sin()),
    }


@tiny("LuminaNextDiT2DModel")
def lumina_next() -> Tiny:
    model = LuminaNextDiT2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=16,
        num_layers=2,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=8,
        cross_attention_dim=12,
    )
    return model, {
        "hidden_states": torch.randn(2, 4, 8, 8),
        "timestep": torch.tensor([0.1, 0.7]),
        "encoder_hidden_states": torch.randn(2, 5, 12),
        "encoder_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
        "image_rotary_emb": get_2d_rotary_pos_embed_lumina(embed_dim=8, len_h=4, len_w=4),
        "cross_attention_kwargs": {},  # its default, None, is an error
    }


@tiny("PixArtTransformer2DModel")
def pixart() -> Tiny:
    model = PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        cross_attention_dim=16,
        sample_size=8,
        caption_channels=12,
        use_additional_conditions=False,
    )
    return model, {
        "hidden_states": torch.randn(2, 4, 8, 8),
        "encoder_hidden_states": torch.randn(2, 5, 12),
        "timestep": torch.tensor([3, 500]),
        "encoder_attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    }


@tiny("PriorTransformer")
def prior() -> Tiny:
    model = PriorTransformer(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        embedding_dim=12,
        num_embeddings=5,
        additional_embeddings=4,
    )
    return model, {
        "hidden_states": torch.randn(2, 12),
        "timestep": torch.tensor([3, 500]),
        "proj_embedding": torch.randn(2, 12),
        "encoder_hidden_states": torch.randn(2, 5, 12),
        "attention_mask": torch.tensor([[True, True, True, True, True], [True, True, True, False, False]]),
    }


@tiny("SanaTransformer2DModel")
def sana() -> Tiny:
    model = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=12,
        sample_size=4,
        qk_norm="rms_norm_across_heads",
    )
    return model, {
        "hidden_states": torch.randn(2, 4, 4, 4),
        "encoder_hidden_states": torch.randn(2, 5, 12),
        "timestep": torch.tensor([3, 500]),
        "encoder_attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    }


@tiny("Transformer2DModel (GLIGEN)")
def transformer_2d() -> Tiny:
    model = Transformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=16,
        num_layers=2,
        norm_num_groups=4,
        cross_attention_dim=12,
        attention_type="gated",
    )
    return model, {
        "hidden_states": torch.randn(2, 16, 4, 4),
        "encoder_hidden_states": torch.randn(2, 5, 12),
        "cross_attention_kwargs": {"gligen": {"objs": torch.randn(2, 3, 12)}},
    }


@tiny("DreamLiteTransformer2DModel")
def dreamlite() -> Tiny:
    model = DreamLiteTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=16,
        num_layers=2,
        norm_num_groups=4,
        cross_attention_dim=12,
        qk_norm="rms_norm",
        num_kv_heads=1,
        ff_mult=2,
    )
    for module in model.modules():
        if isinstance(module, Attention):
            module.set_processor(DreamLiteAttnProcessor2_0())  # as its UNet does: the default one needs equal heads
    return model, {
        "hidden_states": torch.randn(2, 16, 4, 4),
        "encoder_hidden_states": torch.randn(2, 5, 12),
    }
