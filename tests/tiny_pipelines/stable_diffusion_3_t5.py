from diffusers import StableDiffusion3Pipeline

from . import stable_diffusion_3
from .words import t5


def make() -> StableDiffusion3Pipeline:
    """With the third text encoder, which many leave out."""
    pipe = stable_diffusion_3.make()
    text_encoder, tokenizer = t5(width=16)
    pipe.register_modules(text_encoder_3=text_encoder, tokenizer_3=tokenizer)
    return pipe
