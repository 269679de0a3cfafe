"""Opening base models by name, with what suits them: a pipeline, or only the shape of its denoiser."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch

from . import base_model
from .components import COMPONENTS


def open_pipeline(name: str, device: str | None = None) -> Any:
    """A pipeline on its device, in `precision_for` it and without a progress bar of its own.

    Args:
        name: "embedded", a pipeline's folder, or a Hub id.
        device: such as "cuda"; None takes CUDA if there is one.

    Raises:
        ValueError: there is no such pipeline, or it cannot be loaded.
    """
    check_name(name)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        pipe = base_model.load_pipeline(name, dtype=precision_for(name, device))
    except Exception as error:  # hub, file and configuration errors are of many kinds, and all mean the same here
        raise ValueError(f"the model {name} cannot be loaded: {_reason(error)}") from error
    pipe.set_progress_bar_config(disable=True)
    try:
        return pipe.to(device)
    except (RuntimeError, AssertionError) as error:  # an unknown device, or one that this torch was not built for
        raise ValueError(f"the model cannot be put on {device}: {_reason(error)}") from error


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


def precision_for(name: str, device: str) -> torch.dtype:
    """bfloat16 on CUDA, which all large models bear; float32 elsewhere, and for the small ones that ship here."""
    half = device.startswith("cuda") and not base_model.embedded_name(name)
    return torch.bfloat16 if half else torch.float32


def default_guidance(pipe: Any, name: str) -> float:
    """The guidance scale when none is asked for: the pipeline's own, but for the small models that ship here."""
    if base_model.embedded_name(name):
        return base_model.GUIDANCE_SCALE
    known = inspect.signature(pipe.__call__).parameters
    usual = [known[word].default for word in ("guidance_scale", "true_cfg_scale") if word in known]
    return next((float(scale) for scale in usual if isinstance(scale, (int, float))), 1.0)


def call_arguments(pipe: Any, name: str, *, negative_prompt: str = "", **wanted: Any) -> dict[str, Any]:
    """What the pipeline is called with, of what it takes, so that a recipe gives the same picture wherever it is drawn.

    Args:
        name: of the base model; the small ones that ship here need options of their own.
        wanted: by diffusers' usual names; guidance_scale goes by the pipeline's own.
    """
    known = inspect.signature(pipe.__call__).parameters
    given = {**base_model.call_options(name), "negative_prompt": negative_prompt or None, **wanted}
    if "true_cfg_scale" in known and known["guidance_scale"].default is None:  # Qwen-Image; it wants something to avoid
        given |= {"negative_prompt": negative_prompt or " ", "true_cfg_scale": given.pop("guidance_scale", None)}
    return {key: value for key, value in given.items() if key in known and value is not None}


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
