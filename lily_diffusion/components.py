"""What of a pipeline is adapted, and where and in which type it computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from .base_model import resolve
from .save_and_load import SAFETENSORS_NAME
from .sharing import plain

COMPONENTS = ("unet", "transformer")


def denoiser(pipe_or_model: Any) -> tuple[str, Any]:
    """("unet" or "transformer", the model) of a pipeline or of the model itself.

    Raises:
        ValueError: it is neither.
    """
    for component in COMPONENTS:
        model = getattr(pipe_or_model, component, None)
        if isinstance(model, nn.Module) and not isinstance(pipe_or_model, nn.Module):
            return component, plain(model)
    if isinstance(pipe_or_model, nn.Module):
        model = plain(pipe_or_model)
        return ("unet" if "UNet" in type(model).__name__ else "transformer"), model
    raise ValueError(f"Expected a diffusers pipeline or its UNet or transformer, not {type(pipe_or_model).__name__}.")


def public_name(base_model: Any) -> str | None:
    """A Hub id, ``embedded``, or the name of a local folder without the path to it."""
    source = str(base_model or "")
    if source.startswith(resolve("embedded")):
        return "embedded"
    return Path(source).resolve().name if source and Path(source).exists() else source or None


def dtype_of(model: nn.Module) -> torch.dtype:
    """The type that the model computes in; quantised weights are passed over."""
    return next((p.dtype for p in model.parameters() if p.dtype in SAFETENSORS_NAME), torch.float32)
