from diffusers import FlowMatchEulerDiscreteScheduler, Flux2Pipeline
from transformers import Mistral3Config, Mistral3ForConditionalGeneration, MistralConfig, PixtralVisionConfig

from .flux_2_klein import flux_2_transformer, flux_2_vae
from .words import qwen_tokenizer, small


def make() -> Flux2Pipeline:
    """The tokenizer stands in for Mistral's processor, which wants torchvision."""
    vision = PixtralVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=16, patch_size=8
    )
    text = MistralConfig(**small(layers=30))  # the pipeline reads layers 10, 20 and 30
    text_encoder = Mistral3ForConditionalGeneration(Mistral3Config(text_config=text, vision_config=vision))
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return Flux2Pipeline(scheduler, flux_2_vae(), text_encoder, qwen_tokenizer(), flux_2_transformer(True))
