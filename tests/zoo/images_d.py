"""Tiny image transformers: Krea, LongCat-Image, Nucleus, Ovis-Image, PRX and Qwen-Image 2.1."""

import torch
from diffusers import (
    Krea2Transformer2DModel,
    LongCatImageTransformer2DModel,
    NucleusMoEImageTransformer2DModel,
    OvisImageTransformer2DModel,
    PRXTransformer2DModel,
    QwenImage21Transformer2DModel,
)
from torch import nn

from . import Tiny, tiny
from .images_c import grid, text_mask


@tiny("Krea2Transformer2DModel")
def krea2() -> Tiny:
    model = Krea2Transformer2DModel(
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=32,
        timestep_embed_dim=8,
        text_hidden_dim=16,
        num_text_layers=3,
        text_num_attention_heads=2,
        text_num_key_value_heads=1,
        text_intermediate_size=16,
        axes_dims_rope=(2, 2, 4),
    )
    return model, {
        "hidden_states": torch.randn(2, 6, 4),
        "encoder_hidden_states": torch.randn(2, 5, 3, 16),
        "timestep": torch.tensor([0.1, 0.8]),
        "position_ids": torch.cat([torch.zeros(5, 3, dtype=torch.long), grid(1, 2, 3)]),
        "encoder_attention_mask": text_mask(),
    }


@tiny("LongCatImageTransformer2DModel")
def longcat_image() -> Tiny:
    model = LongCatImageTransformer2DModel(
        in_channels=4,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        axes_dims_rope=[2, 2, 4],
    )
    return model, {
        "hidden_states": torch.randn(2, 6, 4),
        "encoder_hidden_states": torch.randn(2, 5, 12),
        "timestep": torch.tensor([0.1, 0.8]),
        "img_ids": grid(1, 2, 3),
        "txt_ids": torch.zeros(5, 3),
    }


@tiny("NucleusMoEImageTransformer2DModel")
def nucleus_moe_image() -> Tiny:
    model = NucleusMoEImageTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=5,
        attention_head_dim=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        joint_attention_dim=12,
        axes_dims_rope=(2, 2, 4),
        mlp_ratio=6.0,  # dense layers round their width down to a multiple of 128
        dense_moe_strategy="leave_first_three_blocks_dense",
        num_experts=4,
        moe_intermediate_dim=16,
        capacity_factors=2.0,
    )
    for block in model.transformer_blocks[3:]:
        for weight in block.img_mlp.experts.parameters():  # diffusers leaves them uninitialised
            nn.init.normal_(weight, std=0.1)
    return model, {
        "hidden_states": torch.randn(2, 6, 4),
        "img_shapes": [(1, 2, 3)] * 2,
        "encoder_hidden_states": torch.randn(2, 5, 12),
        "encoder_hidden_states_mask": text_mask(),
        "timestep": torch.tensor([0.1, 0.8]),
    }


@tiny("OvisImageTransformer2DModel")
def ovis_image() -> Tiny:
    model = OvisImageTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        axes_dims_rope=(2, 2, 4),
    )
    return model, {
        "hidden_states": torch.randn(2, 6, 4),
        "encoder_hidden_states": torch.randn(2, 5, 12),
        "timestep": torch.tensor([0.1, 0.8]),
        "img_ids": grid(1, 2, 3),
        "txt_ids": torch.zeros(5, 3),
    }


@tiny("PRXTransformer2DModel")
def prx() -> Tiny:
    model = PRXTransformer2DModel(
        in_channels=4,
        patch_size=2,
        context_in_dim=12,
        hidden_size=16,
        num_heads=2,
        depth=2,
        axes_dim=[4, 4],
    )
    return model, {
        "hidden_states": torch.randn(2, 4, 4, 6),
        "timestep": torch.tensor([0.1, 0.8]),
        "encoder_hidden_states": torch.randn(2, 5, 12),
        "attention_mask": text_mask(),
    }


@tiny("QwenImage21Transformer2DModel")
def qwen_image21() -> Tiny:
    model = QwenImage21Transformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        context_in_dim=12,
        axes_dims_rope=(2, 2, 4),
    )
    # Two tokens of text, the slot of a 2x2 condition image, two tokens of text, the two slots of the 2x4 target.
    slots = torch.tensor([False, False, True, False, False, True, True])
    return model, {
        "hidden_states": torch.randn(2, 12, 4),
        "encoder_hidden_states": torch.randn(2, 5, 12),
        "timestep": torch.tensor([0.1, 0.8]),
        "img_shapes": [[(1, 2, 2), (1, 2, 4)]] * 2,
        "img_mask": slots.expand(2, 7),
        "encoder_hidden_states_mask": torch.tensor([[True] * 5, [True] * 4 + [False]]),
    }
