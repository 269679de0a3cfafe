"""Schedulers that a base model's pictures can be made with, under the names that other pages give them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import diffusers

DIFFUSION: dict[str, tuple[str, dict[str, Any]]] = {
    "DDIM": ("DDIMScheduler", {}),
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {}),
    "DPM++ 2M Karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "DPM++ 2M SDE": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "DPM2": ("KDPM2DiscreteScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "PLMS": ("PNDMScheduler", {}),
    "DDPM": ("DDPMScheduler", {}),
}
FLOW: dict[str, tuple[str, dict[str, Any]]] = {
    "Euler": ("FlowMatchEulerDiscreteScheduler", {}),
    "Euler Karras": ("FlowMatchEulerDiscreteScheduler", {"use_karras_sigmas": True}),
    "Euler a": ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}),
}
NOT_FROM_PURE_NOISE = {"DPM++ 2M Karras", "PLMS"}  # bases whose last timestep has no signal at all come out spoilt


def names(pipe: Any) -> list[str]:
    """The schedulers that fit the pipeline's own, which comes first as the empty name."""
    own = pipe.scheduler
    fit = {kind.__name__ for kind in own.compatibles} | {type(own).__name__}
    unfit = NOT_FROM_PURE_NOISE if own.config.get("rescale_betas_zero_snr") else set()
    return ["", *(name for name, (kind, _) in _table(own).items() if kind in fit and name not in unfit)]


@contextmanager
def scheduled(pipe: Any, name: str) -> Iterator[None]:
    """Give the pipeline a fresh scheduler of this name (one of `names`) inside the ``with`` block."""
    own = pipe.scheduler
    try:
        if name:
            kind, settings = _table(own)[name]
            pipe.scheduler = getattr(diffusers, kind).from_config(own.config, **settings)
        yield
    finally:
        pipe.scheduler = own


def _table(scheduler: Any) -> dict[str, tuple[str, dict[str, Any]]]:
    return FLOW if type(scheduler).__name__.startswith("FlowMatch") else DIFFUSION
