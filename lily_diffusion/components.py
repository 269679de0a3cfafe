"""Which models of a pipeline are adapted: its parts, the denoiser and the text encoders, and what they compute in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .adapter import LilyAdapter
from .base_model import embedded_name
from .header import SAFETENSORS_NAME
from .sharing import DENOISERS, TEXT_ENCODERS, Group, find_projections, is_text_encoder, plain
from .state import chosen, get_adapters

COMPONENTS = DENOISERS
CLIP_PREFIX = "text_model."  # in every published CLIP; some versions of transformers have no such module


def denoiser(pipe_or_model: Any) -> tuple[str, Any]:
    """("unet" or "transformer", the model) of a pipeline, of a mapping as `parts` gives it, or of the model itself.

    Raises:
        ValueError: it is none of these.
    """
    models = _models(pipe_or_model)
    component = next(iter(models), "")
    if component not in DENOISERS:
        raise ValueError(_expected(pipe_or_model))
    return component, models[component]


def parts(pipe_or_model: Any) -> dict[str, Any]:
    """Component -> model: what of a pipeline can have an adapter, the denoiser first, then its text encoders.

    Args:
        pipe_or_model: a pipeline; a mapping of this form, where the pipeline is gone or not all of it is meant; or one
            model, which stands for itself (a text encoder for "text_encoder").

    Raises:
        ValueError: it is none of these.
    """
    models = _models(pipe_or_model)
    if not models or (next(iter(models)) not in DENOISERS and hasattr(pipe_or_model, "components")):
        raise ValueError(_expected(pipe_or_model))
    return models


def adapters_of(pipe_or_model: Any) -> dict[str, dict[str, LilyAdapter]]:
    """Adapter name -> component -> its part there, in the order in which they were attached, the denoiser's first."""
    found: dict[str, dict[str, LilyAdapter]] = {}
    for component, model in parts(pipe_or_model).items():
        for name, adapter in get_adapters(model).items():
            found.setdefault(name, {})[component] = adapter
    return found


def one_name(pipe_or_model: Any, adapter_name: str | None) -> tuple[str, dict[str, LilyAdapter]]:
    """The adapter of this name, by component; raises as `state.chosen` does."""
    known = adapters_of(pipe_or_model)
    name = chosen(known, adapter_name)
    return name, known[name]


def as_in_files(adapter: LilyAdapter, model: nn.Module) -> LilyAdapter:
    """The adapter of a model with its layers named as files name them, whatever the version of transformers."""
    if not type(plain(model)).__name__.startswith("CLIPText"):
        return adapter
    return _renamed(adapter, tuple(_prefixed(g, CLIP_PREFIX) for g in adapter.groups))


def as_in_model(adapter: LilyAdapter, model: nn.Module) -> LilyAdapter:
    """The inverse: the adapter of a file with its layers named as the model names them."""
    return _renamed(adapter, groups_in_model(adapter.groups, model))


def groups_in_model(groups: tuple[Group, ...], model: nn.Module) -> tuple[Group, ...]:
    """The groups of a file with their layers named as the model names them."""
    if not type(plain(model)).__name__.startswith("CLIPText"):
        return groups
    prefixed = any(p.name.startswith(CLIP_PREFIX) for p in find_projections(model))
    return tuple(_prefixed(g, CLIP_PREFIX if prefixed else "") for g in groups)


def public_name(base_model: Any) -> str | None:
    """A Hub id, ``embedded``, or the name of a local folder without the path to it."""
    source = str(base_model or "")
    if ours := embedded_name(source):
        return ours
    return Path(source).resolve().name if source and Path(source).exists() else source or None


def dtype_of(model: nn.Module) -> torch.dtype:
    """The type that the model computes in; quantised weights are passed over."""
    return next((p.dtype for p in model.parameters() if p.dtype in SAFETENSORS_NAME), torch.float32)


def _models(pipe_or_model: Any) -> dict[str, Any]:
    """`parts` of anything, perhaps none."""
    if isinstance(pipe_or_model, nn.Module):
        model = plain(pipe_or_model)
        if is_text_encoder(model):
            return {TEXT_ENCODERS[0]: model}
        return {"unet" if "UNet" in type(model).__name__ else "transformer": model}
    if isinstance(pipe_or_model, Mapping):
        if odd := [name for name in pipe_or_model if name not in (*DENOISERS, *TEXT_ENCODERS)]:
            raise ValueError(f"{odd[0]!r} is no part of a pipeline that Lily adapts.")
        found = {name: pipe_or_model.get(name) for name in (*DENOISERS, *TEXT_ENCODERS)}
    else:
        found = {name: getattr(pipe_or_model, name, None) for name in (*DENOISERS, *TEXT_ENCODERS)}
    models = {name: plain(model) for name, model in found.items() if isinstance(model, nn.Module)}
    first = next((name for name in models if name in DENOISERS), None)
    return {name: model for name, model in models.items() if name == first or name in TEXT_ENCODERS}


def _expected(given: Any) -> str:
    return f"Expected a diffusers pipeline or its UNet or transformer, not {type(given).__name__}."


def _prefixed(group: Group, prefix: str) -> Group:
    """The group with this, and no other, before its layers' names."""
    return replace(group, layers=tuple(prefix + layer.removeprefix(CLIP_PREFIX) for layer in group.layers))


def _renamed(adapter: LilyAdapter, groups: tuple[Group, ...]) -> LilyAdapter:
    """An adapter with the same tensors under other layers' names."""
    if groups == adapter.groups:
        return adapter
    with torch.device("meta"):
        renamed = LilyAdapter(adapter.config, groups)
    renamed.load_state_dict(adapter.state_dict(), assign=True)
    return renamed
