"""Tiny video transformers, SkyReels to Wan."""

from typing import Any

import torch
from diffusers import (
    SkyReelsV2Transformer3DModel,
    WanAnimate2Transformer3DModel,
    WanAnimateTransformer3DModel,
    WanTransformer3DModel,
    WanVACETransformer3DModel,
)
from diffusers.models import TransformerTemporalModel
from diffusers.models.transformers.transformer_wan_animate_2 import WanAnimate2KVCache

from . import Tiny, tiny

# With an image, Wan and what descends from it read only what precedes the last 512 tokens as the image's.
TEXT_LENGTH = 512
WAN: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "text_dim": 16,
    "freq_dim": 32,
    "ffn_dim": 32,
    "num_layers": 2,
    "image_dim": 20,
    "added_kv_proj_dim": 24,
    "rope_max_seq_len": 16,
}


def wan_inputs(channels: int, frames: int) -> dict[str, Any]:
    return {
        "hidden_states": torch.randn(2, channels, frames, 4, 4),
        "timestep": torch.tensor([3, 500]),
        "encoder_hidden_states": torch.randn(2, TEXT_LENGTH, 16),
        "encoder_hidden_states_image": torch.randn(2, 5, 20),
    }


@tiny("SkyReelsV2Transformer3DModel")
def skyreels_v2() -> Tiny:
    model = SkyReelsV2Transformer3DModel(in_channels=4, out_channels=4, **WAN)
    return model, wan_inputs(channels=4, frames=2)


@tiny("TransformerTemporalModel")
def transformer_temporal() -> Tiny:
    model = TransformerTemporalModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=8,
        num_layers=2,
        norm_num_groups=4,
        cross_attention_dim=24,
        double_self_attention=False,
    )
    # The pixels are the batch of the attention: two videos of 2x2 pixels and three frames.
    return model, {
        "hidden_states": torch.randn(6, 8, 2, 2),
        "encoder_hidden_states": torch.randn(8, 7, 24),
        "num_frames": 3,
    }


@tiny("WanTransformer3DModel (image to video)")
def wan_i2v() -> Tiny:
    model = WanTransformer3DModel(in_channels=4, out_channels=4, **WAN)
    return model, wan_inputs(channels=4, frames=2)


@tiny("WanAnimateTransformer3DModel")
def wan_animate() -> Tiny:
    model = WanAnimateTransformer3DModel(
        in_channels=12,
        latent_channels=4,
        out_channels=4,
        motion_encoder_channel_sizes={"4": 8, "8": 8, "16": 8},
        motion_encoder_size=16,
        motion_style_dim=8,
        motion_dim=4,
        motion_encoder_dim=8,
        face_encoder_hidden_dim=8,
        face_encoder_num_heads=2,
        inject_face_latents_blocks=1,
        **WAN,
    )
    # The face encoder makes one frame of four, and then puts an empty one first.
    return model, {
        **wan_inputs(channels=12, frames=3),
        "pose_hidden_states": torch.randn(2, 4, 2, 4, 4),
        "face_pixel_values": torch.randn(2, 3, 8, 16, 16),
    }


@tiny("WanAnimate2Transformer3DModel")
def wan_animate_2() -> Tiny:
    model = WanAnimate2Transformer3DModel(
        text_len=8,
        in_dim=8,
        dim=24,
        ffn_dim=32,
        freq_dim=32,
        text_dim=16,
        out_dim=4,
        num_heads=2,
        num_layers=2,
    )
    # The other mode, "cached", needs flex attention, which has no backward pass on a CPU.
    return model, {
        "hidden_states": list(torch.randn(2, 4, 2, 4, 4)),
        "timestep": torch.tensor([3, 500]),
        "encoder_hidden_states": [torch.randn(7, 16), torch.randn(5, 16)],
        "condition_latents": list(torch.randn(2, 4, 2, 4, 4)),
        "kv_cache": WanAnimate2KVCache(num_layers=2),
        "kv_cache_mode": "extract",
        "seq_len": 8,
        "encoder_hidden_states_image": torch.randn(2, 5, 1280),
        "offset_grid_sizes": torch.tensor([[2, 2, 2], [2, 2, 2]]),
    }


@tiny("WanVACETransformer3DModel")
def wan_vace() -> Tiny:
    model = WanVACETransformer3DModel(in_channels=4, out_channels=4, vace_layers=[0, 1], vace_in_channels=8, **WAN)
    return model, {**wan_inputs(channels=4, frames=2), "control_hidden_states": torch.randn(2, 8, 2, 4, 4)}
