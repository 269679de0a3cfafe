"""Tiny video transformers: HunyuanVideo, Kandinsky, and those that need flex attention."""

import torch
from diffusers import (
    AnyFlowFARTransformer3DModel,
    HunyuanVideo15Transformer3DModel,
    HunyuanVideoFramepackTransformer3DModel,
    HunyuanVideoTransformer3DModel,
    Kandinsky5Transformer3DModel,
    Kandinsky6SRTransformer3DModel,
    Kandinsky6Transformer3DModel,
)
from diffusers.models.transformers.transformer_anyflow_far import AnyFlowAttnProcessor

from . import Tiny, tiny


@tiny("HunyuanVideoTransformer3DModel")
def hunyuan_video() -> Tiny:
    model = HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=2,
        num_single_layers=2,
        num_refiner_layers=2,
        mlp_ratio=1.0,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(4, 4, 4),
    )
    return model, {
        "hidden_states": torch.randn(2, 4, 2, 4, 4),
        "timestep": torch.tensor([3, 500]),
        "encoder_hidden_states": torch.randn(2, 5, 16),
        "encoder_attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
        "pooled_projections": torch.randn(2, 8),
        "guidance": torch.tensor([6000.0, 1000.0]),
    }


@tiny("HunyuanVideo15Transformer3DModel")
def hunyuan_video_15() -> Tiny:
    model = HunyuanVideo15Transformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=2,
        num_refiner_layers=2,
        mlp_ratio=1.0,
        text_embed_dim=16,
        text_embed_2_dim=12,
        image_embed_dim=8,
        rope_axes_dim=(4, 4, 4),
    )
    return model, {
        "hidden_states": torch.randn(2, 4, 2, 2, 2),
        "timestep": torch.tensor([3.0, 500.0]),
        "encoder_hidden_states": torch.randn(2, 5, 16),
        "encoder_attention_mask": torch.ones(2, 5),
        "encoder_hidden_states_2": torch.randn(2, 4, 12),
        "encoder_attention_mask_2": torch.ones(2, 4),
        "image_embeds": torch.randn(2, 3, 8),
    }


@tiny("HunyuanVideoFramepackTransformer3DModel")
def hunyuan_video_framepack() -> Tiny:
    model = HunyuanVideoFramepackTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=2,
        num_single_layers=2,
        num_refiner_layers=2,
        mlp_ratio=1.0,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(4, 4, 4),
        has_image_proj=True,
        image_proj_dim=8,
        has_clean_x_embedder=True,
    )
    return model, {
        "hidden_states": torch.randn(2, 4, 2, 4, 4),
        "timestep": torch.tensor([3, 500]),
        "encoder_hidden_states": torch.randn(2, 5, 16),
        "encoder_attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
        "pooled_projections": torch.randn(2, 8),
        "image_embeds": torch.randn(2, 3, 8),
        "indices_latents": torch.arange(8, 10),
        "guidance": torch.tensor([6000.0, 1000.0]),
        "latents_clean": torch.randn(2, 4, 2, 4, 4),
        "indices_latents_clean": torch.arange(6, 8),
        "latents_history_2x": torch.randn(2, 4, 2, 4, 4),
        "indices_latents_history_2x": torch.arange(4, 6),
        "latents_history_4x": torch.randn(2, 4, 4, 4, 4),
        "indices_latents_history_4x": torch.arange(4),
    }


@tiny("Kandinsky5Transformer3DModel")
def kandinsky5() -> Tiny:
    model = Kandinsky5Transformer3DModel(
        in_visual_dim=4,
        in_text_dim=16,
        in_text_dim2=8,
        time_dim=16,
        out_visual_dim=4,
        model_dim=24,
        ff_dim=16,
        num_text_blocks=2,
        num_visual_blocks=2,
        axes_dims=(4, 4, 4),
    )
    return model, {
        "hidden_states": torch.randn(2, 2, 4, 4, 4),
        "encoder_hidden_states": torch.randn(2, 7, 16),
        "timestep": torch.tensor([3.0, 500.0]),
        "pooled_projections": torch.randn(2, 8),
        "visual_rope_pos": (torch.arange(2), torch.arange(2), torch.arange(2)),
        "text_rope_pos": torch.arange(7),
    }


@tiny("Kandinsky6Transformer3DModel")
def kandinsky6() -> Tiny:
    model = Kandinsky6Transformer3DModel(
        in_visual_dim=4,
        out_visual_dim=4,
        in_text_dim=16,
        in_text_dim2=8,
        time_dim=16,
        model_dim=24,
        ff_dim=16,
        num_text_blocks=2,
        num_visual_blocks=2,
        axes_dims=(4, 2, 2),
        in_audio_dim=6,
        out_audio_dim=6,
        model_dim_a=16,
        time_dim_a=12,
        ff_dim_a=16,
        ca_rope=True,
        cross_gates=True,
        fix_modulation=True,
    )
    return model, {
        "hidden_states": torch.randn(2, 2, 4, 4, 9),
        "encoder_hidden_states": torch.randn(2, 7, 16),
        "pooled_projections": torch.randn(2, 8),
        "timestep": torch.tensor([3.0, 500.0]),
        "audio_hidden_states": torch.randn(2, 5, 6),
    }


# The next two call flex attention by themselves, which has no backward pass on a CPU: only their outputs can be checked
# there.


@tiny("Kandinsky6SRTransformer3DModel")
def kandinsky6_sr() -> Tiny:
    model = Kandinsky6SRTransformer3DModel(
        in_visual_dim=4,
        out_visual_dim=4,
        time_dim=16,
        model_dim=32,
        ff_dim=16,
        num_visual_blocks=2,
        axes_dims=(4, 6, 6),
        nabla_window=(1, 1, 1),
    )
    return model, {"hidden_states": torch.randn(2, 2, 8, 8, 9), "timestep": torch.tensor([3.0, 500.0])}


@tiny("AnyFlowFARTransformer3DModel")
def anyflow_far() -> Tiny:
    model = AnyFlowFARTransformer3DModel(
        full_chunk_limit=1,
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=16,
        freq_dim=16,
        ffn_dim=16,
        num_layers=2,
        rope_max_seq_len=8,
        chunk_partition=(1, 2),
    )
    return model, {
        "hidden_states": torch.randn(2, 3, 4, 4, 4),
        "timestep": torch.tensor([3.0, 500.0])[:, None].expand(2, 3),
        "r_timestep": torch.tensor([1.0, 300.0])[:, None].expand(2, 3),
        "encoder_hidden_states": torch.randn(2, 7, 16),
        "chunk_partition": [1, 2],
    }


@tiny("AnyFlowFARTransformer3DModel (its processor without flex attention)")
def anyflow_far_dense() -> Tiny:
    model, inputs = anyflow_far()
    for block in model.blocks:
        block.attn1.set_processor(AnyFlowAttnProcessor())
    chunk = torch.tensor([0] + [1] * 8)  # of each token: one of the compressed frame, four of either full frame
    return model, {**inputs, "attention_mask": (chunk[:, None] >= chunk[None])[None, None]}
