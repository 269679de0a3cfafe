"""The small text-to-image models that ship with us; their names work wherever a base model is asked for.

``embedded`` is a StableDiffusionPipeline with a UNet, ``embedded-dit`` a StableDiffusion3Pipeline with a transformer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "pipeline"
FOLDERS = {"embedded": FOLDER, "embedded-dit": Path(__file__).parent / "pipeline_dit"}
SUBJECTS = Path(__file__).parent / "subjects"  # pictures of the subjects that neither has ever seen
GUIDANCE_SCALE = 3.0  # that suits both
# What each is best called with. Stable Diffusion 3 puts zeros in the place of an absent T5's tokens: one is enough.
CALL_OPTIONS: dict[str, dict[str, Any]] = {
    "embedded": {"guidance_scale": GUIDANCE_SCALE},
    "embedded-dit": {"guidance_scale": GUIDANCE_SCALE, "max_sequence_length": 1},
}


def resolve(name_or_path: str) -> str:
    """Return the folder of an embedded model for its name, and anything else as it is."""
    return str(FOLDERS.get(name_or_path, name_or_path))


def embedded_name(name_or_path: str) -> str | None:
    """The name of the embedded model that a name or a folder means; None for any other model."""
    folder = Path(resolve(name_or_path)).resolve()
    return next((name for name, own in FOLDERS.items() if folder == own.resolve()), None)


def call_options(name_or_path: str) -> dict[str, Any]:
    """What an embedded model's pipeline is called with beside the usual; nothing for any other model."""
    return CALL_OPTIONS.get(embedded_name(name_or_path) or "", {})


def load_pipeline(name_or_path: str = "embedded", **kwargs: Any):
    """Load a pipeline as ``DiffusionPipeline.from_pretrained`` does; the names of the embedded models work too.

    Only safetensors are read. The embedded models are stored in half precision and compute in float32 unless
    ``dtype`` says otherwise.

    Raises:
        OSError: there is no such pipeline.
    """
    import torch
    from diffusers import DiffusionPipeline

    if name_or_path in FOLDERS and not {"torch_dtype", "dtype"} & kwargs.keys():
        kwargs["dtype"] = torch.float32
    folder = resolve(name_or_path)
    parts = DiffusionPipeline.load_config(folder, **{k: kwargs[k] for k in ("revision", "cache_dir") if k in kwargs})
    absent = {name: None for name, kind in parts.items() if kind == [None, None]}  # from_pretrained wants to be told
    return DiffusionPipeline.from_pretrained(folder, **{"use_safetensors": True, **absent, **kwargs})
