"""Writing an adapter in the format that was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..adapter import LilyAdapter
from ..interchange import lora
from ..save_and_load import adapter_state_dict, make_header, write_file

FORMATS = ("lily", *lora.FORMATS)


def check_output(path: Path, format: str) -> None:
    """Raise ValueError for a format that is unknown, or a file that is no .safetensors."""
    if format not in FORMATS:
        raise ValueError(f"--format must be one of {', '.join(FORMATS)}, not {format!r}.")
    if path.suffix != ".safetensors":
        raise ValueError(f"--output must end in .safetensors, not {path.name!r}.")


def write_adapter(
    adapter: LilyAdapter,
    path: Path,
    format: str,
    component: str,
    model_class: str,
    base_model: str | None,
    trigger_words: Sequence[str],
    metadata: Mapping[str, str],
    model: Any = None,
) -> None:
    """Write a Lily file, or a frozen adapter as LoRA; `model`, whose config is read, matters to kohya's SDXL names."""
    words = tuple(trigger_words)
    if format == "lily":
        tensors = adapter_state_dict(adapter, component)
        header = make_header(adapter, tensors, component, model_class, base_model, words, metadata)
        write_file(path, tensors, header)
        return
    lora.write_lora(
        adapter,
        path,
        component=component,
        format=format,
        model_class=model_class,
        base_model=base_model,
        trigger_words=words,
        unet_config=None if model is None else model.config,
        metadata=metadata,
    )
