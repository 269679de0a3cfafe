"""Tiny UNets."""

import torch
from diffusers import (
    DreamLiteUNetModel,
    I2VGenXLUNet,
    Kandinsky3UNet,
    StableCascadeUNet,
    UNet2DConditionModel,
    UNet2DModel,
    UNet3DConditionModel,
    UNetControlNetXSModel,
    UNetMotionModel,
    UNetSpatioTemporalConditionModel,
    UVit2DModel,
)

from . import Tiny, tiny


@tiny("UNet2DModel")
def unet_2d() -> Tiny:
    model = UNet2DModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("AttnDownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "AttnUpBlock2D"),
        attention_head_dim=4,
        norm_num_groups=4,
    )
    return model, {"sample": torch.randn(2, 3, 8, 8), "timestep": torch.tensor([3, 500])}


@tiny("UNet2DConditionModel (Stable Diffusion 1.5)")
def unet_sd15() -> Tiny:
    model = UNet2DConditionModel(
        block_out_channels=(8, 16, 16, 16),
        layers_per_block=1,
        attention_head_dim=2,
        cross_attention_dim=24,
        norm_num_groups=4,
    )
    return model, {
        "sample": torch.randn(2, 4, 16, 16),  # 2x2 at the bottom, so that attention has a choice there
        "timestep": torch.tensor([3, 500]),
        "encoder_hidden_states": torch.randn(2, 7, 24),
    }


@tiny("UNet2DConditionModel (SDXL)")
def unet_sdxl() -> Tiny:
    model = UNet2DConditionModel(
        block_out_channels=(8, 16, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        attention_head_dim=(1, 2, 4),
        use_linear_projection=True,
        cross_attention_dim=24,
        norm_num_groups=4,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=60,
    )
    return model, {
        "sample": torch.randn(2, 4, 8, 8),
        "timestep": torch.tensor([3, 500]),
        "encoder_hidden_states": torch.randn(2, 7, 24),
        "added_cond_kwargs": {
            "text_embeds": torch.randn(2, 12),
            "time_ids": torch.tensor([[64, 64, 0, 0, 64, 64], [48, 64, 8, 0, 64, 64]]),
        },
    }


@tiny("UNet2DConditionModel (added keys and values)")
def unet_added_kv() -> Tiny:
    model = UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("SimpleCrossAttnDownBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "SimpleCrossAttnUpBlock2D"),
        only_cross_attention=(False, True),
        attention_head_dim=4,
        cross_attention_dim=32,
        cross_attention_norm="group_norm",
        resnet_time_scale_shift="scale_shift",
        norm_num_groups=4,
        encoder_hid_dim=12,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
    )
    return model, {
        "sample": torch.randn(2, 4, 8, 8),
        "timestep": torch.tensor([3, 500]),
        "encoder_hidden_states": torch.randn(2, 7, 12),
    }


@tiny("DreamLiteUNetModel")
def unet_dreamlite() -> Tiny:
    model = DreamLiteUNetModel(
        block_out_channels=(8, 16, 16),
        layers_per_block=1,
        attention_head_dim=(1, 2, 2),
        cross_attention_dim=24,
        norm_num_groups=4,
        use_linear_projection=True,
        ff_mult=2,
    )
    return model, {
        "sample": torch.randn(2, 4, 8, 8),
        "timestep": torch.tensor([3, 500]),
        "encoder_hidden_states": torch.randn(2, 7, 24),
    }


@tiny("UNet3DConditionModel")
def unet_3d() -> Tiny:
    model = UNet3DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        attention_head_dim=2,
        cross_attention_dim=24,
        norm_num_groups=4,
    )
    return model, {
        "sample": torch.randn(2, 4, 3, 4, 4),
        "timestep": torch.tensor([3, 500]),
        "encoder_hidden_states": torch.randn(2, 7, 24),
    }


@tiny("I2VGenXLUNet")
def unet_i2vgen_xl() -> Tiny:
    model = I2VGenXLUNet(
        in_channels=8,  # the real model's 4 make projections 4 wide
        block_out_channels=(8, 16),
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        attention_head_dim=2,
        cross_attention_dim=16,
        norm_num_groups=4,
    )
    return model, {
        "sample": torch.randn(2, 8, 3, 4, 4),
        "timestep": torch.tensor([3, 500]),
        "fps": torch.tensor([8, 16]),
        "image_latents": torch.randn(2, 4, 3, 4, 4),
        "image_embeddings": torch.randn(2, 16),
        "encoder_hidden_states": torch.randn(2, 7, 16),
    }


@tiny("Kandinsky3UNet")
def unet_kandinsky3() -> Tiny:
    model = Kandinsky3UNet(
        time_embedding_dim=16,
        groups=2,
        attention_head_dim=4,
        layers_per_block=2,
        block_out_channels=(8, 16, 16, 16),
        cross_attention_dim=24,
        encoder_hid_dim=12,
    )
    return model, {
        "sample": torch.randn(2, 4, 16, 16),
        "timestep": torch.tensor([3, 500]),
        "encoder_hidden_states": torch.randn(2, 7, 12),
        "encoder_attention_mask": torch.arange(7) < torch.tensor([[7], [5]]),
    }


@tiny("UNetMotionModel")
def unet_motion() -> Tiny:
    model = UNetMotionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlockMotion", "DownBlockMotion"),
        up_block_types=("UpBlockMotion", "CrossAttnUpBlockMotion"),
        num_attention_heads=2,
        motion_num_attention_heads=2,
        motion_max_seq_length=8,
        cross_attention_dim=24,
        norm_num_groups=4,
    )
    return model, {
        "sample": torch.randn(2, 4, 3, 4, 4),
        "timestep": torch.tensor([3, 500]),
        "encoder_hidden_states": torch.randn(2, 7, 24).repeat_interleave(3, dim=0),  # as the pipeline does, per frame
    }


@tiny("UNetSpatioTemporalConditionModel")
def unet_spatio_temporal() -> Tiny:
    model = UNetSpatioTemporalConditionModel(
        block_out_channels=(32,),  # its norms have 32 groups
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlockSpatioTemporal",),
        up_block_types=("CrossAttnUpBlockSpatioTemporal",),
        num_attention_heads=(2,),
        cross_attention_dim=24,
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=12,
    )
    return model, {
        "sample": torch.randn(2, 3, 8, 4, 4),
        "timestep": torch.tensor([3.0, 500.0]),
        "encoder_hidden_states": torch.randn(2, 5, 24),
        "added_time_ids": torch.tensor([[6.0, 127.0, 0.02], [7.0, 100.0, 0.1]]),
    }


@tiny("StableCascadeUNet")
def unet_stable_cascade() -> Tiny:
    model = StableCascadeUNet(
        in_channels=4,
        out_channels=4,
        timestep_ratio_embedding_dim=8,
        conditioning_dim=12,
        block_out_channels=(8, 16),
        num_attention_heads=(2, 2),
        down_num_layers_per_block=(1, 1),
        up_num_layers_per_block=(1, 1),
        up_blocks_repeat_mappers=(1, 2),  # the decoder calls its attention more than once in a pass
        clip_text_in_channels=10,
        clip_text_pooled_in_channels=10,
        clip_image_in_channels=10,
        clip_seq=2,
    )
    return model, {
        "sample": torch.randn(2, 4, 8, 8),
        "timestep_ratio": torch.tensor([0.2, 0.7]),
        "clip_text_pooled": torch.randn(2, 1, 10),
        "clip_text": torch.randn(2, 5, 10),
        "clip_img": torch.randn(2, 1, 10),
    }


@tiny("UVit2DModel")
def uvit_2d() -> Tiny:
    model = UVit2DModel(
        hidden_size=16,
        cond_embed_dim=12,
        micro_cond_encode_dim=4,
        micro_cond_embed_dim=20,
        encoder_hidden_size=10,
        vocab_size=20,
        codebook_size=16,
        in_channels=10,
        block_out_channels=8,
        num_res_blocks=2,
        block_num_heads=2,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        sample_size=4,
    )
    return model, {
        "input_ids": torch.randint(20, (2, 4, 4)),
        "encoder_hidden_states": torch.randn(2, 7, 10),
        "pooled_text_emb": torch.randn(2, 12),
        "micro_conds": torch.tensor([[64.0, 64.0, 0.0, 0.0, 6.0], [48.0, 64.0, 8.0, 0.0, 5.0]]),
    }


@tiny("UNetControlNetXSModel")
def unet_controlnet_xs() -> Tiny:
    model = UNetControlNetXSModel(
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        num_attention_heads=2,
        cross_attention_dim=24,
        norm_num_groups=4,
        ctrl_block_out_channels=(8, 8),
        ctrl_conditioning_embedding_out_channels=(4, 8),
        ctrl_num_attention_heads=2,
        ctrl_max_norm_num_groups=4,
    )
    return model, {
        "sample": torch.randn(2, 4, 8, 8),
        "timestep": torch.tensor([3, 500]),
        "encoder_hidden_states": torch.randn(2, 7, 24),
        "controlnet_cond": torch.randn(2, 3, 16, 16),
    }
