"""The small text-to-image model that ships with us; ``embedded`` names it wherever a base model is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "pipeline"
SUBJECTS = Path(__file__).parent / "subjects"  # pictures of the subjects that it has never seen


def resolve(name_or_path: str) -> str:
    """Return the folder of the embedded model for ``"embedded"``, and anything else as it is."""
    return str(FOLDER) if name_or_path == "embedded" else name_or_path


def load_pipeline(name_or_path: str = "embedded", **kwargs: Any):
    """Load a pipeline as ``DiffusionPipeline.from_pretrained`` does; ``embedded`` names the model that ships here.

    Only safetensors are read. The embedded model is stored in half precision and computes in float32 unless
    ``dtype`` says otherwise.

    Raises:
        OSError: there is no such pipeline.
    """
    import torch
    from diffusers import DiffusionPipeline

    if name_or_path == "embedded" and not {"torch_dtype", "dtype"} & kwargs.keys():
        kwargs["dtype"] = torch.float32
    folder = resolve(name_or_path)
    parts = DiffusionPipeline.load_config(folder, **{k: kwargs[k] for k in ("revision", "cache_dir") if k in kwargs})
    absent = {name: None for name, kind in parts.items() if kind == [None, None]}  # from_pretrained wants to be told
    return DiffusionPipeline.from_pretrained(folder, **{"use_safetensors": True, **absent, **kwargs})
