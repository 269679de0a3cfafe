"""Opening base models by name, for the command line: a pipeline, or only the shape of its denoiser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from . import base_model
from .components import COMPONENTS


def open_pipeline(name: str, device: str | None = None) -> Any:
    """A pipeline on its device, without a progress bar of its own: in half precision on CUDA, in float32 elsewhere.

    Args:
        name: "embedded", a pipeline's folder, or a Hub id.
        device: such as "cuda"; None takes CUDA if there is one.

    Raises:
        ValueError: there is no such pipeline, or it cannot be loaded.
    """
    check_name(name)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        pipe = base_model.load_pipeline(name, dtype=torch.float16 if device.startswith("cuda") else torch.float32)
    except Exception as error:  # hub, file and configuration errors are of many kinds, and all mean the same here
        raise ValueError(f"the model {name} cannot be loaded: {_reason(error)}") from error
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def open_shapes(name: str) -> Any:
    """The UNet or transformer of a pipeline on the meta device: its configuration is read, its weights are not.

    Raises:
        ValueError: there is no such pipeline, or it has neither.
    """
    import diffusers

    check_name(name)
    folder = base_model.resolve(name)
    try:
        parts = diffusers.DiffusionPipeline.load_config(folder)
        component = next((c for c in COMPONENTS if parts.get(c, (None,))[0]), None)
        if component is None:
            raise ValueError("it has neither a unet nor a transformer")
        kind = getattr(diffusers, parts[component][1])
        with torch.device("meta"):
            return kind.from_config(kind.load_config(folder, subfolder=component))
    except Exception as error:  # as above
        raise ValueError(f"the configuration of {name} cannot be loaded: {_reason(error)}") from error


def check_name(name: str) -> None:
    """Raise ValueError for what can be neither a pipeline's folder nor a Hub id."""
    if not Path(base_model.resolve(name)).is_dir() and (name.count("/") != 1 or name.startswith((".", "/"))):
        raise ValueError(
            f"there is no pipeline folder {name}; name a folder, a hub id such as owner/model, or 'embedded'."
        )


def base_at_hand(name: str | None) -> str | None:
    """The base that a file's header names, where it can be opened without a download: embedded, or a folder here."""
    folder = Path(base_model.resolve(name)) if name else None
    return name if folder and (folder / "model_index.json").is_file() else None


def default_guidance(name: str) -> float:
    """The guidance scale that suits a model when none is asked for."""
    return base_model.GUIDANCE_SCALE if base_model.embedded_name(name) else 7.5


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
