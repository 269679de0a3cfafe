from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from transformers import Qwen3Config, Qwen3Model

from . import vae
from .words import qwen_tokenizer, small


def make() -> ZImagePipeline:
    transformer = ZImageTransformer2DModel(
        in_channels=4, dim=64, n_layers=2, n_refiner_layers=1, n_heads=8, n_kv_heads=8, cap_feat_dim=8,
        axes_dims=[4, 2, 2], axes_lens=[600, 16, 16],
    )  # fmt: skip
    text_encoder = Qwen3Model(Qwen3Config(**small(layers=2)))
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    return ZImagePipeline(scheduler, vae(shift_factor=0.06), text_encoder, qwen_tokenizer(), transformer)
