from diffusers import PixArtAlphaPipeline

from .pixart import RESOLUTION, parts

__all__ = ["RESOLUTION", "make"]


def make() -> PixArtAlphaPipeline:
    return PixArtAlphaPipeline(*parts(sample_size=128))  # at this size the transformer is told how large the picture is
