"""Writing an adapter in the format that was asked for, and what of that can be checked before it is made."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..adapter import LilyAdapter
from ..attach import check_fits
from ..header import make_header
from ..interchange import lora
from ..interchange.kohya_names import sd_config
from ..pipelines import base_at_hand, open_shapes
from ..save_and_load import adapter_state_dict, write_file
from ..sharing import Group

FORMATS = ("lily", *lora.FORMATS)


def printable(text: str) -> str:
    """Without what could steer a terminal: a file may come from anyone."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def check_output(path: Path, format: str) -> None:
    """Raise ValueError for a format that is unknown, or a file that is no .safetensors or cannot be written."""
    if format not in FORMATS:
        raise ValueError(f"--format must be one of {', '.join(FORMATS)}, not {format!r}.")
    if path.suffix != ".safetensors":
        raise ValueError(f"--output must end in .safetensors, not {path.name!r}.")
    check_writable(path)


def check_writable(path: Path) -> None:
    """Raise ValueError where no file of this name can be written; folders on the way to it may be missing."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; choose another name for the file.")
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        raise ValueError(f"{path} cannot be written: {above} is a file, not a folder.")
    if not os.access(above, os.W_OK):
        raise ValueError(f"{path} cannot be written: nothing may be changed in the folder {above}.")


def unet_for_kohya(model: Any, base_model: str | None, component: str, groups: Sequence[Group]) -> Any:
    """The UNet whose config kohya's names are made from; None where the adapted layers tell enough.

    Args:
        model: the one that was named with --model, or None: then the header's `base_model` is taken if it is at hand.
        component, groups: what is adapted.

    Raises:
        ValueError: it is no UNet, it is another base than the adapter's, or it has to be named.
    """
    lora.check_format("kohya", component)
    name = base_at_hand(base_model)
    if model is None and name:
        model = open_shapes(name)
    if model is not None:
        check_fits(groups, model)
        return model
    try:
        sd_config(groups)
    except ValueError:
        raise ValueError(
            "the names in kohya's format depend on the base, and the adapter does not tell enough of it: name it with "
            "--model, a pipeline's folder or a hub id."
        ) from None
    return None


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
    further: Mapping[str, tuple[LilyAdapter, str]] | None = None,
) -> None:
    """Write a Lily file, or a frozen adapter as LoRA; `model`, whose config is read, matters to kohya's SDXL names.

    `further`: component -> (adapter, model class) of its parts for text encoders.
    """
    words, others = tuple(trigger_words), further or {}
    if format == "lily":
        tensors = adapter_state_dict(adapter, component)
        for name, (part, _) in others.items():
            tensors |= adapter_state_dict(part, name)
        header = make_header(adapter, tensors, component, model_class, base_model, words, metadata, others)
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
        text_encoders={name: part for name, (part, _) in others.items()},
    )
