"""Latents to pictures at full precision: in half precision autoencoders overflow, and pictures come out black."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_precision(vae: Any) -> Iterator[None]:
    """Let the autoencoder decode outside of autocast and in its own type, whatever it is given."""
    if vae.device.type == "cuda" and hasattr(vae, "enable_slicing"):
        vae.enable_slicing()  # one picture at a time: beside a trainer there is little room
    decode: Any = vae.decode

    @functools.wraps(decode)
    def steady(latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(latents.device.type, enabled=False):
            return decode(latents.to(vae.dtype), *args, **kwargs)

    vae.__dict__["decode"] = steady
    try:
        yield
    finally:
        del vae.__dict__["decode"]
