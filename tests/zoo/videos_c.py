"""Tiny video transformers, LTX to Sana."""

from typing import Any

import torch
from diffusers import (
    LTX2VideoTransformer3DModel,
    LTXVideoTransformer3DModel,
    MiniMaxH3Transformer3DModel,
    MochiTransformer3DModel,
    MotifVideoTransformer3DModel,
    SanaVideoTransformer3DModel,
    SanaWMLTX2RefinerTransformer3DModel,
    SanaWMTransformer3DModel,
)

from . import Tiny, tiny

# to_gate_logits is as wide as there are heads, so there must be at least as many as an adapter's rank.
LTX2: dict[str, Any] = {
    "in_channels": 8,
    "out_channels": 8,
    "num_attention_heads": 8,
    "attention_head_dim": 6,
    "cross_attention_dim": 48,
    "audio_in_channels": 12,
    "audio_out_channels": 12,
    "audio_num_attention_heads": 8,
    "audio_attention_head_dim": 4,
    "audio_cross_attention_dim": 32,
    "caption_channels": 16,
    "num_layers": 2,
    "gated_attn": True,
    "audio_gated_attn": True,
}


def text_mask() -> torch.Tensor:
    return torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0]])


@tiny("LTXVideoTransformer3DModel")
def ltx() -> Tiny:
    model = LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=32,
        num_layers=2,
        caption_channels=24,
    )
    return model, {
        "hidden_states": torch.randn(2, 12, 8),
        "encoder_hidden_states": torch.randn(2, 7, 24),
        "timestep": torch.tensor([3, 500]),
        "encoder_attention_mask": text_mask(),
        "num_frames": 2,
        "height": 2,
        "width": 3,
    }


@tiny("LTX2VideoTransformer3DModel")
def ltx2() -> Tiny:
    model = LTX2VideoTransformer3DModel(
        **LTX2,
        cross_attn_mod=True,
        audio_cross_attn_mod=True,
        rope_type="split",
        perturbed_attn=True,
    )
    return model, {
        "hidden_states": torch.randn(2, 12, 8),
        "audio_hidden_states": torch.randn(2, 5, 12),
        "encoder_hidden_states": torch.randn(2, 7, 16),
        "audio_encoder_hidden_states": torch.randn(2, 7, 16),
        "timestep": torch.tensor([3.0, 500.0]),
        "sigma": torch.tensor([3.0, 500.0]),
        "encoder_attention_mask": text_mask(),
        "audio_encoder_attention_mask": text_mask(),
        "num_frames": 2,
        "height": 2,
        "width": 3,
        "audio_num_frames": 5,
        "spatio_temporal_guidance_blocks": [1],
        "perturbation_mask": torch.tensor([1.0, 0.0]),
    }


@tiny("MiniMaxH3Transformer3DModel")
def minimax_h3() -> Tiny:
    model = MiniMaxH3Transformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        hidden_size=24,
        num_layers=2,
        num_refiner_layers=2,
        ffn_dim=32,
        in_channels=4,
        audio_in_channels=8,
        patch_size=(1, 2, 2),
        text_dim=20,
        freq_dim=32,
        time_embed_hidden_dim=16,
        time_embed_dim=16,
        rope_freq_dim=2,
    )
    text, video, audio = torch.arange(16).split([5, 8, 3])
    return model, {
        "hidden_states": torch.randn(2, 8, 16),
        "audio_hidden_states": torch.randn(2, 3, 8),
        "encoder_hidden_states": torch.randn(2, 5, 20),
        "timestep": torch.tensor([0.3, 1.0]),
        "timestep_indices": torch.tensor([1] * 5 + [0] * 11),
        "token_tags": torch.tensor([1] * 5 + [0] * 8 + [2] * 3),
        "position_ids": torch.randint(0, 5, (16, 3)),
        "video_indices": video,
        "audio_indices": audio,
        "text_indices": text,
    }


@tiny("MochiTransformer3DModel")
def mochi() -> Tiny:
    model = MochiTransformer3DModel(
        patch_size=2,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=3,  # the last has no to_add_out
        pooled_projection_dim=24,
        in_channels=4,
        text_embed_dim=16,
        time_embed_dim=32,
    )
    return model, {
        "hidden_states": torch.randn(2, 4, 2, 4, 4),
        "encoder_hidden_states": torch.randn(2, 7, 16),
        "timestep": torch.tensor([3, 500]),
        "encoder_attention_mask": text_mask().bool(),
    }


@tiny("MotifVideoTransformer3DModel")
def motif_video() -> Tiny:
    model = MotifVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        num_single_layers=4,
        num_decoder_layers=2,
        mlp_ratio=1.0,
        text_embed_dim=24,
        image_embed_dim=20,
        rope_axes_dim=(4, 6, 6),
        enable_text_cross_attention_dual=True,
        enable_text_cross_attention_single=True,
    )
    return model, {
        "hidden_states": torch.randn(2, 4, 2, 4, 4),
        "timestep": torch.tensor([3, 500]),
        "encoder_hidden_states": torch.randn(2, 7, 24),
        "encoder_attention_mask": text_mask(),
        "image_embeds": torch.randn(2, 3, 20),
    }


@tiny("SanaVideoTransformer3DModel")
def sana_video() -> Tiny:
    model = SanaVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=2,
        num_cross_attention_heads=3,
        cross_attention_head_dim=8,
        cross_attention_dim=32,
        caption_channels=20,
        mlp_ratio=1.0,
        rope_max_seq_len=16,
    )
    return model, {
        "hidden_states": torch.randn(2, 4, 2, 4, 4),
        "encoder_hidden_states": torch.randn(2, 7, 20),
        "timestep": torch.tensor([3, 500]),
        "encoder_attention_mask": text_mask(),
    }


@tiny("SanaWMTransformer3DModel")
def sana_wm() -> Tiny:
    model = SanaWMTransformer3DModel(
        in_channels=4,
        num_layers=4,
        hidden_size=32,
        num_attention_heads=2,
        softmax_every_n=2,
        linear_head_dim=16,
        chunk_plucker_channels=6,
        caption_channels=20,
        mlp_ratio=1.0,
    )
    poses = torch.eye(4).repeat(2, 3, 1, 1)
    poses[:, :, :3, 3] = torch.randn(2, 3, 3)
    intrinsics = torch.tensor([3.0, 3.0, 1.5, 1.0]).expand(2, 3, 4)
    return model, {
        "hidden_states": torch.randn(2, 4, 3, 2, 3),
        "timestep": torch.tensor([[[3, 3, 3]], [[500, 500, 500]]]),
        "encoder_hidden_states": torch.randn(2, 1, 7, 20),
        "encoder_attention_mask": text_mask(),
        "camera_conditions": torch.cat([poses.flatten(2), intrinsics], dim=2),
        "chunk_plucker": torch.randn(2, 6, 3, 2, 3),
    }


@tiny("SanaWMLTX2RefinerTransformer3DModel")
def sana_wm_refiner() -> Tiny:
    model = SanaWMLTX2RefinerTransformer3DModel(**LTX2)
    rotary = model.build_rotary_emb_for_absolute_positions(
        batch_size=2, frame_positions=[3, 4], height=2, width=3, device=torch.device("cpu"), fps=24.0
    )
    return model, {
        "hidden_states": torch.randn(2, 12, 8),
        "encoder_hidden_states": torch.randn(2, 7, 16),
        "timestep": torch.tensor([3.0, 500.0]),
        "video_rotary_emb": rotary,
        "encoder_attention_mask": text_mask(),
    }
