"""Tiny configurations of diffusers' real denoisers, one function a class, with inputs that they accept."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from diffusers import models
from torch import nn

Tiny = tuple[nn.Module, dict[str, Any]]
ZOO: dict[str, Callable[[], Tiny]] = {}  # class name, or class name and what differs: "UNet2DConditionModel (SDXL)"
LEFT_OUT = {
    "MotionAdapter": "no denoiser: it carries weights into UNetMotionModel, which is here",
    "UNet1DModel": "its attention (SelfAttention1d) has no processors",
}


def tiny(name: str) -> Callable[[Callable[[], Tiny]], Callable[[], Tiny]]:
    """Register a function that makes one tiny model and the keyword arguments of one forward pass."""

    def register(make: Callable[[], Tiny]) -> Callable[[], Tiny]:
        assert name not in ZOO, name
        ZOO[name] = make
        return make

    return register


def build(name: str) -> Tiny:
    """The model in float32 and evaluation mode; what starts at zero (gates, last layers) would hide its attention."""
    torch.manual_seed(0)
    model, inputs = ZOO[name]()
    with torch.no_grad():
        for p in model.parameters():
            if p.is_floating_point() and not p.any():
                p.normal_(std=0.05)
    return model.eval(), inputs


def denoisers() -> set[str]:
    """The names of all model classes among diffusers' UNets and transformers."""
    found = [value for package in (models.unets, models.transformers) for value in vars(package).values()]
    return {c.__name__ for c in found if inspect.isclass(c) and issubclass(c, models.ModelMixin)}


from . import (  # noqa: E402, F401  (each file registers its classes)
    audio,
    images_a,
    images_b,
    images_c,
    images_d,
    unets,
    videos_a,
    videos_b,
    videos_c,
    videos_d,
)
