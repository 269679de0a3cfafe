"""Base models for the page: which may be loaded, loading one, and the settings that fit it.

A graphics card is used when torch finds one, with half precision for models other than the embedded ones, and with
xformers when it is installed. Both are written after the libraries' documents and were not tested on such a machine.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lily_diffusion.base_model import FOLDERS, load_pipeline
from lily_diffusion.pipelines import default_guidance, precision_for
from ui.keeping.recipe import MAX_EDGE, MAX_GUIDANCE, MAX_STEPS, clean_name
from ui.pipeline.adapter_folder import without_paths

EMBEDDED = "embedded"
HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9][A-Za-z0-9_.-]{0,95}")
NEEDED = {"prompt", "num_inference_steps", "height", "width", "generator", "callback_on_step_end"}


class BaseModelError(ValueError):
    """A base model that cannot be used; the message is for the user and has no paths in it."""


@dataclass(frozen=True)
class Defaults:
    """Settings to start from and bounds for sizes (pixels)."""

    steps: int
    guidance_scale: float
    width: int
    height: int
    size_step: int
    max_edge: int


@dataclass(frozen=True)
class BaseModel:
    """A loaded pipeline, the module that adapters are attached to, and what its pictures are made with."""

    label: str
    pipe: Any
    denoiser: torch.nn.Module
    defaults: Defaults
    checks_pictures: bool  # a safety checker looks at every picture


def labels(models: Sequence[str]) -> dict[str, str]:
    """Return ``{label to show: what from_pretrained is given}``, the embedded model always among them."""
    named: dict[str, str] = {}
    for source in dict.fromkeys([*models, EMBEDDED]):
        label = source if source in FOLDERS or is_hub_id(source) else clean_name(Path(source).resolve().name)
        number = 2
        while label in named:
            label, number = f"{label.rpartition(' (')[0] or label} ({number})", number + 1
        named[label] = source
    return named


def is_hub_id(text: str) -> bool:
    """Whether ``text`` names a model of the Hub, and no folder of this machine."""
    return bool(HUB_ID.fullmatch(text)) and ".." not in text and not Path(text).exists()


def load(label: str, source: str) -> BaseModel:
    """Load a text-to-image pipeline from safetensors only, on the best device that there is.

    Raises:
        BaseModelError: it cannot be loaded, or it is not a text-to-image pipeline.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        pipe = load_pipeline(source, dtype=precision_for(source, device))
    except Exception as error:  # diffusers and the Hub raise many kinds for a missing, broken or foreign model
        reason = without_paths(str(error).strip().split("\n")[0])[:300]
        raise BaseModelError(f"The base model '{label}' could not be loaded: {reason}") from error
    denoiser = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    missing = sorted(NEEDED - inspect.signature(pipe.__call__).parameters.keys())
    if denoiser is None or missing:
        raise BaseModelError(f"The base model '{label}' ({type(pipe).__name__}) does not make pictures from text.")
    pipe.set_progress_bar_config(disable=True)
    try:
        pipe.to(device)
    except RuntimeError as error:  # the base model of before is still there
        reason = without_paths(str(error).strip().split("\n")[0])[:300]
        raise BaseModelError(f"The base model '{label}' does not fit onto the graphics card: {reason}") from error
    if device == "cuda" and importlib.util.find_spec("xformers"):
        pipe.enable_xformers_memory_efficient_attention()
    checks = getattr(pipe, "safety_checker", None) is not None
    return BaseModel(label, pipe, denoiser, _defaults(pipe, denoiser, source), checks)


def _defaults(pipe: Any, denoiser: torch.nn.Module, source: str) -> Defaults:
    factor = int(getattr(pipe, "vae_scale_factor", 8))
    sample = getattr(pipe, "default_sample_size", None) or getattr(denoiser.config, "sample_size", None) or 64
    tall, wide = sample if isinstance(sample, (list, tuple)) else (sample, sample)
    size_step = max(8, factor * (2 if hasattr(pipe, "transformer") else 1))
    width, height = (max(size_step, int(n) * factor // size_step * size_step) for n in (wide, tall))
    usual = inspect.signature(pipe.__call__).parameters
    steps = 25 if source in FOLDERS else usual["num_inference_steps"].default
    return Defaults(
        steps=min(int(steps), MAX_STEPS),
        guidance_scale=min(default_guidance(pipe, source), MAX_GUIDANCE),
        width=width,
        height=height,
        size_step=size_step,
        max_edge=min(MAX_EDGE, 2 * max(width, height)),
    )
