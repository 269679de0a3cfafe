"""Tiny models made from diffusers' real classes, and the order of the tests."""

import gc
from collections import Counter

import pytest
import torch
from diffusers import UNet2DConditionModel

from lily_diffusion import LilyAdapter


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, then those with many, so that no core is left alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    count = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path not in slow, -count[item.path], item.path))


def pytest_collection_finish() -> None:
    """What was imported stays: the garbage collector, which training calls often, need not look through it again."""
    gc.freeze()


def tiny_sd15() -> UNet2DConditionModel:
    """Stable Diffusion 1.5's layout: cross-attention down, in the middle and up, heads of equal number."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=48,
        attention_head_dim=4,
        norm_num_groups=8,
    ).eval()


def small_unet() -> UNet2DConditionModel:
    """One block down and one up, of three transformer layers in all: what has to be compiled."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32,),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",),
        mid_block_type=None,
        up_block_types=("CrossAttnUpBlock2D",),
        cross_attention_dim=48,
        attention_head_dim=4,
        norm_num_groups=8,
    ).eval()


def tiny_sdxl() -> UNet2DConditionModel:
    """SDXL's layout: several transformer layers a block, linear projections, text and size embeddings."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        cross_attention_dim=64,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=80,
        norm_num_groups=8,
    ).eval()


def inputs(unet: UNet2DConditionModel, batch: int = 2, seed: int = 1) -> dict:
    """Keyword arguments for one forward pass."""
    generator = torch.Generator().manual_seed(seed)
    given = {
        "sample": torch.randn(batch, 4, 8, 8, generator=generator),
        "timestep": torch.randint(0, 1000, (batch,), generator=generator),
        "encoder_hidden_states": torch.randn(batch, 7, unet.config.cross_attention_dim, generator=generator),
    }
    if unet.config.addition_embed_type == "text_time":
        given["added_cond_kwargs"] = {
            "text_embeds": torch.randn(batch, 32, generator=generator),
            "time_ids": torch.randint(0, 64, (batch, 6), generator=generator).float(),
        }
    return given


def run(unet: UNet2DConditionModel, **more) -> torch.Tensor:
    """The UNet's output for the standard inputs, without gradients."""
    with torch.no_grad():
        return unet(**{**inputs(unet), **more}).sample


def awaken(adapter: LilyAdapter, seed: int = 7, std: float = 0.1) -> LilyAdapter:
    """Give the experts (zero in a fresh adapter) random values, so that the adapter does something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for B in adapter.lily_B:
            B.copy_(torch.randn(B.shape, generator=generator) * std)
    return adapter


@pytest.fixture(params=["sd15", "sdxl"])
def unet(request) -> UNet2DConditionModel:
    return {"sd15": tiny_sd15, "sdxl": tiny_sdxl}[request.param]()


@pytest.fixture
def small() -> UNet2DConditionModel:
    return small_unet()


@pytest.fixture
def sd15() -> UNet2DConditionModel:
    return tiny_sd15()
