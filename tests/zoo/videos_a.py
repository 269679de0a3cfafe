"""Tiny video transformers, part one."""

import torch
from diffusers import (
    AllegroTransformer3DModel,
    AnyFlowTransformer3DModel,
    ChronoEditTransformer3DModel,
    CogVideoXTransformer3DModel,
    ConsisIDTransformer3DModel,
    Cosmos3OmniTransformer,
    CosmosTransformer3DModel,
    EasyAnimateTransformer3DModel,
    HeliosTransformer3DModel,
    LatteTransformer3DModel,
)

from . import Tiny, tiny


def rotary(tokens: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines of random angles, where a pipeline would compute rotary embeddings."""
    angles = torch.randn(tokens, width)
    return angles.cos(), angles.sin()


@tiny("AllegroTransformer3DModel")
def allegro() -> Tiny:
    model = AllegroTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        cross_attention_dim=24,
        sample_height=4,
        sample_width=4,
        sample_frames=2,
        caption_channels=16,
    )
    tables = tuple(rotary(tokens=4, width=4) for _ in range(3))  # for time, height and width
    return model, {
        "hidden_states": torch.randn(2, 4, 2, 4, 4),
        "encoder_hidden_states": torch.randn(2, 7, 16),
        "timestep": torch.tensor([3, 500]),
        "image_rotary_emb": (tables, torch.randint(4, (3, 1, 8))),
    }


@tiny("AnyFlowTransformer3DModel")
def anyflow() -> Tiny:
    model = AnyFlowTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=16,
        freq_dim=16,
        ffn_dim=16,
        num_layers=2,
        rope_max_seq_len=8,
    )
    return model, {
        "hidden_states": torch.randn(2, 2, 4, 4, 4),
        "timestep": torch.tensor([[3.0, 3.0], [500.0, 500.0]]),
        "r_timestep": torch.tensor([[1.0, 1.0], [300.0, 300.0]]),
        "encoder_hidden_states": torch.randn(2, 7, 16),
    }


@tiny("ChronoEditTransformer3DModel")
def chronoedit() -> Tiny:
    model = ChronoEditTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=16,
        freq_dim=16,
        ffn_dim=16,
        num_layers=2,
        image_dim=8,
        added_kv_proj_dim=24,
        rope_max_seq_len=16,
    )
    return model, {
        "hidden_states": torch.randn(2, 4, 3, 4, 4),
        "timestep": torch.tensor([3, 500]),
        "encoder_hidden_states": torch.randn(2, 512, 16),  # its attention counts on 512 text tokens
        "encoder_hidden_states_image": torch.randn(2, 5, 8),
    }


@tiny("CogVideoXTransformer3DModel")
def cogvideox() -> Tiny:
    model = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=12,
        num_layers=2,
        use_rotary_positional_embeddings=True,
    )
    return model, {
        "hidden_states": torch.randn(2, 2, 4, 4, 4),
        "encoder_hidden_states": torch.randn(2, 7, 12),
        "timestep": torch.tensor([3, 500]),
        "image_rotary_emb": rotary(tokens=8, width=8),
    }


@tiny("ConsisIDTransformer3DModel")
def consisid() -> Tiny:
    model = ConsisIDTransformer3DModel(
        num_attention_heads=3,
        attention_head_dim=8,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=12,
        num_layers=2,
        use_rotary_positional_embeddings=True,
        is_train_face=True,
        cross_attn_interval=1,
        cross_attn_dim_head=4,
        cross_attn_num_heads=2,
        LFE_id_dim=12,
        LFE_vit_dim=8,
        LFE_depth=2,
        LFE_dim_head=4,
        LFE_num_heads=2,
        LFE_num_id_token=2,
        LFE_num_querie=3,
        LFE_output_dim=16,  # must be two thirds of the inner width
        LFE_ff_mult=1,
        LFE_num_scale=2,
    )
    return model, {
        "hidden_states": torch.randn(2, 2, 4, 4, 4),
        "encoder_hidden_states": torch.randn(2, 7, 12),
        "timestep": torch.tensor([3, 500]),
        "image_rotary_emb": rotary(tokens=8, width=8),
        "id_cond": torch.randn(2, 12),
        "id_vit_hidden": [torch.randn(2, 5, 8) for _ in range(2)],
    }


@tiny("CosmosTransformer3DModel (2.5, image context)")
def cosmos() -> Tiny:
    model = CosmosTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=12,
        num_layers=2,
        mlp_ratio=1.0,
        text_embed_dim=16,
        adaln_lora_dim=8,
        max_size=(4, 8, 8),
        concat_padding_mask=False,
        use_crossattn_projection=True,
        crossattn_proj_in_channels=20,
        encoder_hidden_states_channels=16,
        img_context_dim_in=8,
        img_context_num_tokens=5,
        img_context_dim_out=24,
    )
    return model, {
        "hidden_states": torch.randn(2, 4, 2, 4, 4),
        "timestep": torch.tensor([3, 500]),
        "encoder_hidden_states": (torch.randn(2, 7, 20), torch.randn(2, 5, 8)),
    }


@tiny("Cosmos3OmniTransformer")
def cosmos3_omni() -> Tiny:
    model = Cosmos3OmniTransformer(
        head_dim=12,
        hidden_size=16,
        intermediate_size=16,
        latent_channel=4,
        latent_patch_size=2,
        patch_latent_dim=16,
        num_attention_heads=2,
        num_hidden_layers=3,
        num_key_value_heads=1,
        vocab_size=20,
        rope_axes_dim=(2, 2, 2),
    )
    video = torch.arange(5, 21)
    return model, {
        "input_ids": torch.randint(20, (5,)),
        "text_indexes": torch.arange(5),
        "position_ids": torch.arange(21).expand(3, -1),
        "und_len": 5,
        "sequence_length": 21,
        "vision_tokens": [torch.randn(1, 4, 2, 4, 4) for _ in range(2)],
        "vision_token_shapes": [(2, 2, 2), (2, 2, 2)],
        "vision_sequence_indexes": video,
        "vision_mse_loss_indexes": video,
        "vision_timesteps": torch.tensor([3.0, 500.0]).repeat_interleave(8),
        "vision_noisy_frame_indexes": [torch.arange(2), torch.arange(2)],
    }


@tiny("EasyAnimateTransformer3DModel")
def easyanimate() -> Tiny:
    model = EasyAnimateTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        patch_size=2,
        num_layers=4,
        mmdit_layers=2,
        time_embed_dim=8,
        text_embed_dim=12,
    )
    return model, {
        "hidden_states": torch.randn(2, 4, 2, 4, 4),
        "timestep": torch.tensor([3, 500]),
        "encoder_hidden_states": torch.randn(2, 7, 12),
    }


@tiny("HeliosTransformer3DModel")
def helios() -> Tiny:
    model = HeliosTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=16,
        freq_dim=16,
        ffn_dim=16,
        num_layers=2,
        rope_dim=(4, 4, 4),
        is_amplify_history=True,
    )
    return model, {
        "hidden_states": torch.randn(2, 4, 2, 4, 4),
        "timestep": torch.tensor([3, 500]),
        "encoder_hidden_states": torch.randn(2, 7, 16),
        "indices_hidden_states": torch.arange(2, 4).expand(2, -1),
        "indices_latents_history_short": torch.arange(2).expand(2, -1),
        "latents_history_short": torch.randn(2, 4, 2, 4, 4),
    }


@tiny("LatteTransformer3DModel")
def latte() -> Tiny:
    model = LatteTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        num_layers=2,
        cross_attention_dim=16,
        sample_size=4,
        patch_size=2,
        activation_fn="gelu-approximate",
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        caption_channels=12,
        video_length=3,
    )
    return model, {
        "hidden_states": torch.randn(2, 4, 3, 4, 4),
        "timestep": torch.tensor([3, 500]),
        "encoder_hidden_states": torch.randn(2, 7, 12),
    }
