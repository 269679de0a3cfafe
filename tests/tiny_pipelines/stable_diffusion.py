from diffusers import StableDiffusionPipeline, UNet2DConditionModel

from . import clip, ddim, vae


def make() -> StableDiffusionPipeline:
    text_encoder, tokenizer = clip()
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(64,), layers_per_block=1, down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",), cross_attention_dim=8, attention_head_dim=4, norm_num_groups=4,
    )  # fmt: skip
    return StableDiffusionPipeline(
        vae(), text_encoder, tokenizer, unet, ddim(), None, None, requires_safety_checker=False
    )
