"""Models in their real sizes, without their weights: how many parameters an adapter has, and how fast it attaches."""

import math
import time
from collections import Counter

import pytest
import torch
from diffusers import Flux2Transformer2DModel, FluxTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel

from lily_diffusion import LilyConfig, attach
from lily_diffusion.sharing import attention_modules

SD15 = {"cross_attention_dim": 768, "attention_head_dim": 8}
SDXL = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SD3 = {
    "num_layers": 24,
    "num_attention_heads": 24,
    "attention_head_dim": 64,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 192,
    "sample_size": 128,
    "out_channels": 16,
}
KLEIN = {
    "num_layers": 5,
    "num_single_layers": 20,
    "num_attention_heads": 24,
    "joint_attention_dim": 7680,
    "guidance_embeds": False,
}
SHAPES = {  # class, configuration, parameters in millions, attention modules, adapted projections
    "SD 1.5": (UNet2DConditionModel, SD15, 860, 32, 128),
    "SDXL": (UNet2DConditionModel, SDXL, 2567, 140, 560),
    "SD3 medium": (SD3Transformer2DModel, SD3, 2028, 24, 24 * 8 - 1),
    "FLUX.1": (FluxTransformer2DModel, {"guidance_embeds": True}, 11901, 57, 19 * 8 + 38 * 3),
    "FLUX.2 klein 4B": (Flux2Transformer2DModel, KLEIN, 3876, 25, 5 * 8 + 20 * 2),
}


@pytest.mark.parametrize("name", SHAPES)
def test_counts_and_time(name):
    kind, config, millions, attentions, projections = SHAPES[name]
    with torch.device("meta"):
        model = kind(**config)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == millions
    lily = LilyConfig(r=32, stride_A=4, num_B=4)
    started = time.process_time()
    adapter = attach(model, lily)
    assert time.process_time() - started < 1

    layers = Counter()  # by hand: every linear layer inside an attention module, by name and shape
    for _, attention in attention_modules(model):
        for path, layer in attention.named_modules():
            if isinstance(layer, torch.nn.Linear):
                layers[path, layer.in_features, layer.out_features] += 1
    assert sum(1 for _ in attention_modules(model)) == attentions and layers.total() == projections
    formula = sum(
        math.ceil(count / 4) * n_in * 32 + 4 * 32 * n_out + count * 32 * 4 for (_, n_in, n_out), count in layers.items()
    )
    assert adapter.num_parameters() == formula
