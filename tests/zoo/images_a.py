"""Tiny transformers of text-to-image models that attend to text and image together."""

import torch
from diffusers import (
    AuraFlowTransformer2DModel,
    CogView3PlusTransformer2DModel,
    CogView4Transformer2DModel,
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    HiDreamImageTransformer2DModel,
    Lumina2Transformer2DModel,
    OmniGenTransformer2DModel,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    ZImageTransformer2DModel,
)

from . import Tiny, tiny


@tiny("SD3Transformer2DModel")
def sd3() -> Tiny:
    model = SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=4,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        caption_projection_dim=16,
        pooled_projection_dim=10,
        pos_embed_max_size=4,
        dual_attention_layers=(0, 1),
        qk_norm="rms_norm",
    )
    return model, {
        "hidden_states": torch.randn(2, 4, 8, 8),
        "encoder_hidden_states": torch.randn(2, 5, 12),
        "pooled_projections": torch.randn(2, 10),
        "timestep": torch.tensor([3, 500]),
    }


@tiny("FluxTransformer2DModel")
def flux() -> Tiny:
    model = FluxTransformer2DModel(
        in_channels=4,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        pooled_projection_dim=10,
        axes_dims_rope=(2, 2, 4),
    )
    return model, {
        "hidden_states": torch.randn(2, 6, 4),
        "encoder_hidden_states": torch.randn(2, 5, 12),
        "pooled_projections": torch.randn(2, 10),
        "timestep": torch.tensor([0.1, 0.7]),
        "img_ids": torch.cartesian_prod(torch.zeros(1), torch.arange(2.0), torch.arange(3.0)),
        "txt_ids": torch.zeros(5, 3),
    }


@tiny("Flux2Transformer2DModel")
def flux2() -> Tiny:
    model = Flux2Transformer2DModel(
        in_channels=4,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        timestep_guidance_channels=16,
        mlp_ratio=2.0,
        axes_dims_rope=(2, 2, 2, 2),
    )
    zero = torch.zeros(1)
    return model, {
        "hidden_states": torch.randn(2, 6, 4),
        "encoder_hidden_states": torch.randn(2, 5, 12),
        "timestep": torch.tensor([0.1, 0.7]),
        "img_ids": torch.cartesian_prod(zero, torch.arange(2.0), torch.arange(3.0), zero),
        "txt_ids": torch.cartesian_prod(zero, zero, zero, torch.arange(5.0)),
        "guidance": torch.tensor([3.0, 4.0]),
    }


def _z_image(siglip_feat_dim: int | None) -> ZImageTransformer2DModel:
    return ZImageTransformer2DModel(
        in_channels=4,
        dim=16,
        n_layers=2,
        n_refiner_layers=2,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=12,
        siglip_feat_dim=siglip_feat_dim,
        axes_dims=[4, 2, 2],
        axes_lens=[128, 16, 16],
    )


@tiny("ZImageTransformer2DModel")
def z_image() -> Tiny:
    return _z_image(siglip_feat_dim=None), {
        "x": [torch.randn(4, 1, 8, 8), torch.randn(4, 1, 8, 8)],
        "t": torch.tensor([0.1, 0.7]),
        "cap_feats": [torch.randn(5, 12), torch.randn(7, 12)],
    }


@tiny("ZImageTransformer2DModel (with reference images)")
def z_image_omni() -> Tiny:
    return _z_image(siglip_feat_dim=10), {
        "x": [[torch.randn(4, 1, 8, 8), torch.randn(4, 1, 8, 8)] for _ in range(2)],
        "t": torch.tensor([0.1, 0.7]),
        "cap_feats": [[torch.randn(5, 12), torch.randn(7, 12)] for _ in range(2)],
        "siglip_feats": [[torch.randn(2, 3, 10), None] for _ in range(2)],
        "image_noise_mask": [[0, 1], [0, 1]],
    }


@tiny("QwenImageTransformer2DModel")
def qwen_image() -> Tiny:
    model = QwenImageTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        axes_dims_rope=(4, 2, 2),
    )
    return model, {
        "hidden_states": torch.randn(2, 6, 4),
        "encoder_hidden_states": torch.randn(2, 5, 12),
        "encoder_hidden_states_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
        "timestep": torch.tensor([0.1, 0.7]),
        "img_shapes": [[(1, 2, 3)], [(1, 2, 3)]],
    }


@tiny("AuraFlowTransformer2DModel")
def aura_flow() -> Tiny:
    model = AuraFlowTransformer2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        num_mmdit_layers=2,
        num_single_dit_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        caption_projection_dim=16,
        pos_embed_max_size=16,
    )
    return model, {
        "hidden_states": torch.randn(2, 4, 8, 8),
        "encoder_hidden_states": torch.randn(2, 5, 12),
        "timestep": torch.tensor([0.1, 0.7]),
    }


@tiny("CogView3PlusTransformer2DModel")
def cogview3() -> Tiny:
    model = CogView3PlusTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        text_embed_dim=12,
        time_embed_dim=10,
        condition_dim=8,
        pos_embed_max_size=4,
        sample_size=8,
    )
    return model, {
        "hidden_states": torch.randn(2, 4, 8, 8),
        "encoder_hidden_states": torch.randn(2, 5, 12),
        "timestep": torch.tensor([3, 500]),
        "original_size": torch.full((2, 2), 64.0),
        "target_size": torch.full((2, 2), 64.0),
        "crop_coords": torch.zeros(2, 2),
    }


@tiny("CogView4Transformer2DModel")
def cogview4() -> Tiny:
    model = CogView4Transformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        text_embed_dim=12,
        time_embed_dim=10,
        condition_dim=8,
        sample_size=8,
        rope_axes_dim=(16, 16),
    )
    return model, {
        "hidden_states": torch.randn(2, 4, 8, 8),
        "encoder_hidden_states": torch.randn(2, 5, 12),
        "timestep": torch.tensor([3, 500]),
        "original_size": torch.full((2, 2), 64.0),
        "target_size": torch.full((2, 2), 64.0),
        "crop_coords": torch.zeros(2, 2),
    }


@tiny("OmniGenTransformer2DModel")
def omnigen() -> Tiny:
    model = OmniGenTransformer2DModel(
        in_channels=4,
        hidden_size=16,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=24,
        num_layers=2,
        pad_token_id=0,
        vocab_size=20,
        rope_scaling={"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.0, 2.0, 3.0, 4.0]},
        pos_embed_max_size=4,
        time_step_dim=16,
    )
    length = 6 + 1 + 16  # text, timestep, image
    return model, {
        "hidden_states": torch.randn(2, 4, 8, 8),
        "timestep": torch.tensor([0.1, 0.7]),
        "input_ids": torch.randint(1, 20, (2, 6)),
        "input_img_latents": [torch.randn(1, 4, 4, 4)],
        "input_image_sizes": {0: [[1, 5]]},
        "attention_mask": torch.ones(2, length, length),
        "position_ids": torch.arange(length).repeat(2, 1),
    }


@tiny("Lumina2Transformer2DModel")
def lumina2() -> Tiny:
    model = Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=16,
        num_layers=2,
        num_refiner_layers=2,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=8,
        axes_dim_rope=(4, 2, 2),
        axes_lens=(16, 8, 8),
        cap_feat_dim=12,
    )
    return model, {
        "hidden_states": torch.randn(2, 4, 8, 8),
        "timestep": torch.tensor([0.1, 0.7]),
        "encoder_hidden_states": torch.randn(2, 5, 12),
        "encoder_attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    }


@tiny("HiDreamImageTransformer2DModel")
def hidream() -> Tiny:
    model = HiDreamImageTransformer2DModel(
        patch_size=2,
        in_channels=4,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        caption_channels=[12, 10],
        text_emb_dim=8,
        num_routed_experts=2,
        num_activated_experts=1,
        axes_dims_rope=(4, 2, 2),
        max_resolution=(8, 8),
        llama_layers=[0, 1, 2, 3],
    )
    return model, {
        "hidden_states": torch.randn(2, 4, 8, 8),
        "timesteps": torch.tensor([3, 500]),
        "encoder_hidden_states_t5": torch.randn(2, 5, 12),
        "encoder_hidden_states_llama3": torch.randn(4, 2, 6, 10),
        "pooled_embeds": torch.randn(2, 8),
    }
