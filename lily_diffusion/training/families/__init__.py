"""The families of pipelines that can be trained; the base model's own pipeline class and scheduler pick one."""

from __future__ import annotations

import argparse
from typing import Any

import torch
from diffusers import AutoModel, BitsAndBytesConfig, DiffusionPipeline, PipelineQuantizationConfig, TorchAoConfig

from ... import base_model
from ..errors import TrainingError
from .base import Condition, Family
from .edm import EDM
from .flux import Flux
from .flux_2 import Flux2
from .flux_2_klein import Flux2Klein
from .lumina_2 import Lumina2
from .pixart import PixArt
from .qwen_image import QwenImage
from .sana import Sana
from .stable_diffusion import StableDiffusion
from .stable_diffusion_3 import StableDiffusion3
from .stable_diffusion_xl import StableDiffusionXL
from .z_image import ZImage

FAMILIES: tuple[type[Family], ...] = (
    StableDiffusion, EDM, StableDiffusionXL, StableDiffusion3, Flux, Flux2Klein, Flux2, ZImage, QwenImage, PixArt,
    Sana, Lumina2,
)  # fmt: skip
__all__ = ["FAMILIES", "Condition", "Family", "family_class", "load_family"]


def family_class(args: argparse.Namespace) -> type[Family]:
    """The family of what ``--pretrained_model_name_or_path`` names; no weights are loaded.

    Raises:
        TrainingError: there is no such pipeline, or it is of no family that can be trained.
    """
    name = args.pretrained_model_name_or_path
    try:
        options = {"revision": args.revision, "cache_dir": args.cache_dir}
        parts = DiffusionPipeline.load_config(base_model.resolve(name), **options)
        kind, scheduler = parts["_class_name"], parts.get("scheduler", [None])[-1]
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(f"cannot load the base model {name!r}: {str(error).strip().splitlines()[0]}") from error
    for family in FAMILIES:
        if kind in family.pipelines and (not family.schedulers or scheduler in family.schedulers):
            return family
    known = ", ".join(dict.fromkeys(name for family in FAMILIES for name in family.pipelines))
    raise TrainingError(f"the base model is a {kind}; pipelines that can be trained: {known}")


def load_family(args: argparse.Namespace, dtype: torch.dtype = torch.float32) -> Family:
    """Load what ``--pretrained_model_name_or_path`` names, as the family that its pipeline belongs to.

    Args:
        dtype: of everything but the autoencoder, which overflows in half precision.

    Raises:
        TrainingError: it cannot be loaded, or is of no family that can be trained.
    """
    family = family_class(args)
    name = args.pretrained_model_name_or_path
    options: dict[str, Any] = {"revision": args.revision, "variant": args.variant, "cache_dir": args.cache_dir}
    try:
        if args.pretrained_vae_model_name_or_path:
            vae_name = args.pretrained_vae_model_name_or_path
            options["vae"] = AutoModel.from_pretrained(vae_name, dtype=torch.float32, cache_dir=args.cache_dir)
        if args.quantize_base:
            options["quantization_config"] = _quantization(args.quantize_base, dtype)
        dtypes = {"vae": torch.float32, "default": dtype}
        pipe = base_model.load_pipeline(name, dtype=dtypes, **options)
    except (OSError, ValueError) as error:
        raise TrainingError(f"cannot load the base model {name!r}: {str(error).strip().splitlines()[0]}") from error
    if getattr(pipe, "safety_checker", None) is not None:
        pipe.register_modules(safety_checker=None)  # training sees no picture that it could judge
    return family(pipe, args)


def _quantization(kind: str, dtype: torch.dtype) -> PipelineQuantizationConfig:
    """The weights of the denoiser alone: in 8 bits by torchao, or in 4 by bitsandbytes, which needs a GPU."""
    config: Any
    if kind == "int8":
        from torchao.quantization import Int8WeightOnlyConfig

        config = TorchAoConfig(Int8WeightOnlyConfig())
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_compute_dtype=dtype, bnb_4bit_use_double_quant=True
        )
    return PipelineQuantizationConfig(quant_mapping={"unet": config, "transformer": config})
