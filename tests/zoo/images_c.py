"""Tiny image transformers: Bria, Chroma, ERNIE-Image, FLUX.3, GLM-Image, HunyuanImage, Ideogram and JoyImage."""

import torch
from diffusers import (
    BriaFibo2Transformer2DModel,
    BriaFiboTransformer2DModel,
    BriaTransformer2DModel,
    ChromaTransformer2DModel,
    ErnieImageTransformer2DModel,
    Flux3Transformer2DModel,
    GlmImageTransformer2DModel,
    HunyuanImageTransformer2DModel,
    Ideogram4Transformer2DModel,
    JoyImageEditPlusTransformer3DModel,
    JoyImageEditTransformer3DModel,
)

from . import Tiny, tiny


def grid(*sizes: int) -> torch.Tensor:
    """Positions of all cells of a grid, in rows."""
    return torch.cartesian_prod(*(torch.arange(size) for size in sizes))


def text_mask() -> torch.Tensor:
    """Two prompts of five tokens, of which the second is shorter."""
    return torch.tensor([[True] * 5, [True] * 3 + [False] * 2])


@tiny("ChromaTransformer2DModel")
def chroma() -> Tiny:
    model = ChromaTransformer2DModel(
        in_channels=4,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        axes_dims_rope=(2, 2, 4),
        approximator_num_channels=8,
        approximator_hidden_dim=16,
        approximator_layers=1,
    )
    return model, {
        "hidden_states": torch.randn(2, 6, 4),
        "encoder_hidden_states": torch.randn(2, 5, 12),
        "timestep": torch.tensor([0.1, 0.8]),
        "img_ids": grid(1, 2, 3),
        "txt_ids": torch.zeros(5, 3),
    }


@tiny("BriaTransformer2DModel")
def bria() -> Tiny:
    model = BriaTransformer2DModel(
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
        "timestep": torch.tensor([3, 500]),
        "img_ids": grid(1, 2, 3),
        "txt_ids": torch.zeros(5, 3),
    }


@tiny("BriaFiboTransformer2DModel")
def bria_fibo() -> Tiny:
    model = BriaFiboTransformer2DModel(
        in_channels=4,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        axes_dims_rope=[2, 2, 4],
        text_encoder_dim=10,
    )
    return model, {
        "hidden_states": torch.randn(2, 6, 4),
        "encoder_hidden_states": torch.randn(2, 5, 12),
        "text_encoder_layers": [torch.randn(2, 5, 10) for _ in range(4)],
        "timestep": torch.tensor([3, 500]),
        "img_ids": grid(1, 2, 3),
        "txt_ids": torch.zeros(5, 3),
    }


@tiny("BriaFibo2Transformer2DModel")
def bria_fibo2() -> Tiny:
    model = BriaFibo2Transformer2DModel(
        in_channels=4,
        patch_size=2,
        dim=24,
        n_layers=4,
        n_refiner_layers=2,
        n_heads=2,
        cap_feat_dim=20,
        injection_layer_ids=(1, 3),
        perceiver_num_layers=2,
        min_num_gist_tokens=2,
        max_num_gist_tokens=6,
        gist_step=2,
        gist_min_text_len=2,
        gist_max_text_len=5,
        axes_dims=(4, 4, 4),
        axes_lens=(12, 4, 4),
    )
    return model, {
        "hidden_states": torch.randn(2, 4, 4, 6),
        "timestep": torch.tensor([0.1, 0.8]),
        "encoder_hidden_states": torch.randn(2, 3, 5, 20),
        "encoder_attention_mask": text_mask(),
        "context_latents": [torch.randn(2, 4, 4, 4)],
    }


@tiny("ErnieImageTransformer2DModel")
def ernie_image() -> Tiny:
    model = ErnieImageTransformer2DModel(
        hidden_size=16,
        num_attention_heads=2,
        num_layers=2,
        ffn_hidden_size=32,
        in_channels=4,
        out_channels=4,
        text_in_dim=12,
        rope_axes_dim=(2, 2, 4),
    )
    return model, {
        "hidden_states": torch.randn(2, 4, 2, 3),
        "timestep": torch.tensor([3, 500]),
        "text_bth": torch.randn(2, 5, 12),
        "text_lens": torch.tensor([5, 3]),
    }


@tiny("Flux3Transformer2DModel")
def flux3() -> Tiny:
    model = Flux3Transformer2DModel(
        in_channels=4,
        cond_in_channels=6,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=12,
        timestep_channels=8,
        axes_dims_rope=(2, 2, 2, 2),
    )
    return model, {
        "hidden_states": torch.randn(2, 6, 4),
        "encoder_hidden_states": torch.randn(2, 5, 12),
        "timestep": torch.tensor([0.1, 0.8]),
        "img_ids": grid(1, 2, 3, 1),
        "txt_ids": grid(1, 1, 1, 5),
        "image_cond_hidden_states": torch.randn(2, 4, 6),
        "image_cond_ids": grid(1, 2, 2, 1) + 1,
    }


@tiny("GlmImageTransformer2DModel")
def glm_image() -> Tiny:
    model = GlmImageTransformer2DModel(
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        text_embed_dim=12,
        time_embed_dim=16,
        condition_dim=4,
        prior_vq_quantizer_codebook_size=20,
    )
    return model, {
        "hidden_states": torch.randn(2, 4, 4, 6),
        "encoder_hidden_states": torch.randn(2, 5, 12),
        "prior_token_id": torch.randint(0, 20, (2, 6)),
        "prior_token_drop": torch.rand(2, 6) < 0.5,
        "timestep": torch.tensor([3, 500]),
        "target_size": torch.full((2, 2), 64.0),
        "crop_coords": torch.zeros(2, 2),
        "attention_mask": text_mask(),
    }


@tiny("HunyuanImageTransformer2DModel")
def hunyuan_image() -> Tiny:
    model = HunyuanImageTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_single_layers=2,
        num_refiner_layers=2,
        text_embed_dim=12,
        rope_axes_dim=(4, 4),
    )
    return model, {
        "hidden_states": torch.randn(2, 4, 2, 3),
        "timestep": torch.tensor([3.0, 500.0]),
        "encoder_hidden_states": torch.randn(2, 5, 12),
        "encoder_attention_mask": text_mask(),
    }


@tiny("Ideogram4Transformer2DModel")
def ideogram4() -> Tiny:
    model = Ideogram4Transformer2DModel(
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        intermediate_size=32,
        adaln_dim=16,
        llm_features_dim=12,
        mrope_section=(2, 1, 1),
    )
    text, image = torch.arange(5)[:, None].expand(5, 3), 65536 + grid(1, 2, 3)
    return model, {
        "hidden_states": torch.randn(2, 11, 4),
        "timestep": torch.tensor([0.1, 0.8]),
        "encoder_hidden_states": torch.randn(2, 11, 12),
        "position_ids": torch.cat([text, image]).expand(2, 11, 3),
        "segment_ids": torch.ones(2, 11, dtype=torch.long),
        "indicator": torch.tensor([[3] * 5 + [2] * 6] * 2),
    }


@tiny("JoyImageEditTransformer3DModel")
def joy_image_edit() -> Tiny:
    model = JoyImageEditTransformer3DModel(
        patch_size=[1, 2, 2],
        in_channels=4,
        hidden_size=16,
        num_attention_heads=2,
        text_dim=12,
        num_layers=2,
        rope_dim_list=[2, 2, 4],
    )
    return model, {
        "hidden_states": torch.randn(2, 2, 4, 1, 4, 4),
        "timestep": torch.tensor([3, 500]),
        "encoder_hidden_states": torch.randn(2, 5, 12),
    }


@tiny("JoyImageEditPlusTransformer3DModel")
def joy_image_edit_plus() -> Tiny:
    model = JoyImageEditPlusTransformer3DModel(
        patch_size=[1, 2, 2],
        in_channels=4,
        hidden_size=16,
        num_attention_heads=2,
        text_dim=12,
        num_layers=2,
        rope_dim_list=[2, 2, 4],
    )
    return model, {
        "hidden_states": torch.randn(2, 10, 4, 1, 2, 2),
        "timestep": torch.tensor([3, 500]),
        "encoder_hidden_states": torch.randn(2, 5, 12),
        "encoder_hidden_states_mask": text_mask(),
        "shape_list": [[(1, 2, 3), (1, 2, 2)], [(1, 2, 2), (1, 2, 2)]],
    }
