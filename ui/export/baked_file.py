"""Writing a baked blend into the adapter folder: under a safe name, never over another file, listed only when whole."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lily_diffusion.adapter import LilyAdapter
from lily_diffusion.components import as_in_files, denoiser
from lily_diffusion.header import make_header
from lily_diffusion.interchange.lora import write_lora
from lily_diffusion.save_and_load import adapter_state_dict, write_file
from ui.keeping import whole_files
from ui.pipeline.adapter_folder import SUFFIX, AdapterFile
from ui.pipeline.orders import SessionError

FORMATS = {"lily": "", "lora": "diffusers", "kohya": "kohya"}  # the page's name -> `lily_diffusion.interchange.lora`'s
MAX_SAME_NAME = 1000
PREFIX = ".export-"  # of the folders in which files are made; hidden ones are not listed


class InFiles(dict[str, tuple[LilyAdapter, str]]):
    """Component -> (the adapter with the layers' names of files, its model's class); and the denoiser's config."""

    config: Any = None


def in_files(whole: Mapping[str, LilyAdapter], models: Mapping[str, Any]) -> InFiles:
    """The parts as a file names them."""
    named = InFiles({c: (as_in_files(part.cpu(), models[c]), type(models[c]).__name__) for c, part in whole.items()})
    named.config = getattr(denoiser(models)[1], "config", None)
    return named


def safe_stem(name: str) -> str:
    """A file name without its ending, of letters, digits, ``-`` and ``_`` only."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", str(name or "")).strip("_-")[:60] or "blend"


def write(
    root: Path, name: str, format: str, parts: InFiles, sources: Sequence[AdapterFile], notes: Sequence[str]
) -> Path:
    """Write the file and return its path in ``root``.

    Args:
        name: what the user calls it.
        format: one of FORMATS.
        parts: what is written, the denoiser's first.
        sources: the files that it was made from.
        notes: what was measured, kept in the header.

    Raises:
        SessionError: the folder has too many files of this name.
    """
    stem = safe_stem(name)
    _sweep(root)
    hidden = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
    try:
        made = hidden / f"{stem}{SUFFIX}"
        _write(made, format, parts, sources, notes)
        for number in range(1, MAX_SAME_NAME):
            target = root / (stem + ("" if number == 1 else f"_{number}") + SUFFIX)
            if whole_files.take(made, target):
                return target
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    raise SessionError("The folder has too many files of this name. Choose another name.")


def _sweep(root: Path) -> None:
    """Delete what was left over where a page was killed while it wrote."""
    for folder in root.glob(f"{PREFIX}*"):
        if time.time() - folder.stat().st_mtime > whole_files.LEFT_OVER:
            shutil.rmtree(folder, ignore_errors=True)


def _write(path: Path, format: str, parts: InFiles, sources: Sequence[AdapterFile], notes: Sequence[str]) -> None:
    headers = [file.header for file in sources if file.header]
    bases = {header.base_model for header in headers}
    base_model = bases.pop() if len(bases) == 1 else None
    words = tuple(dict.fromkeys(word for header in headers for word in header.trigger_words))
    facts = {
        "lily_baked": json.dumps({"measured": list(notes)}),
        "merged_from": json.dumps([{"name": f.name, "content_hash": f.content_hash} for f in sources]),
    }
    component, (adapter, kind) = next(iter(parts.items()))
    further = {name: part for name, part in parts.items() if name != component}
    if format == "lily":
        tensors = {key: t for name, (part, _) in parts.items() for key, t in adapter_state_dict(part, name).items()}
        header = make_header(adapter, tensors, component, kind, base_model, words, facts, further)
        write_file(path, tensors, header)
        return
    write_lora(
        adapter,
        path,
        component=component,
        format=FORMATS[format],
        model_class=kind,
        base_model=base_model,
        trigger_words=words,
        unet_config=parts.config,
        metadata=facts,
        text_encoders={name: part for name, (part, _) in further.items()},
    )
