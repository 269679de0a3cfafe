from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextModelWithProjection

from . import clip, ddim, vae


def make() -> StableDiffusionXLPipeline:
    text_encoder, tokenizer = clip()
    text_encoder_2, _ = clip(CLIPTextModelWithProjection)
    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(64,), layers_per_block=1, down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",), transformer_layers_per_block=2, cross_attention_dim=16,
        attention_head_dim=4, use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=32, norm_num_groups=4,
    )  # fmt: skip
    return StableDiffusionXLPipeline(vae(), text_encoder, text_encoder_2, tokenizer, tokenizer, unet, ddim())
