"""The captions of a folder's pictures: a ``.txt`` file beside each, or one ``metadata.jsonl`` as imagefolder has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import TrainingError

METADATA = "metadata.jsonl"
COLUMNS = ("text", "caption")  # of metadata.jsonl; the first that a line has is its caption


def read_caption(sidecar: Path) -> str:
    """The caption in a ``.txt`` file, on one line.

    Raises:
        TrainingError: it is not UTF-8, or empty.
    """
    caption = one_line(_read(sidecar, "caption file"))
    if not caption:
        raise TrainingError(f"the caption file {sidecar} is empty; write a caption or remove it")
    return caption


def read_metadata(path: Path) -> dict[str, str | None]:
    """The caption for each ``file_name`` of a metadata.jsonl; None where a line has none.

    Raises:
        TrainingError: a line is not a JSON object with a file_name, or its caption is empty or not text, or a file
            comes twice.
    """
    captions: dict[str, str | None] = {}
    for number, line in enumerate(_read(path, "file").split("\n"), start=1):
        if not line.strip():
            continue
        where = f"line {number} of {path}"
        entry = _entry(line, where)
        name = entry["file_name"]
        if name in captions:
            raise TrainingError(f"{where} names {name} a second time; leave one of the two")
        captions[name] = _caption_of(entry, where)
    return captions


def one_line(text: str) -> str:
    """A text without line breaks and doubled spaces."""
    return " ".join(text.split())


def _entry(line: str, where: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise TrainingError(f"{where} is not JSON ({error}); write one object a line") from error
    if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str):
        raise TrainingError(f'{where} has no "file_name"; each line names a picture and its "text"')
    return entry


def _caption_of(entry: dict[str, Any], where: str) -> str | None:
    column = next((column for column in COLUMNS if entry.get(column) is not None), None)
    if column is None:
        return None
    if not isinstance(entry[column], str) or not one_line(entry[column]):
        raise TrainingError(f'{where} has an empty "{column}", or one that is not text; write a caption')
    return one_line(entry[column])


def _read(path: Path, kind: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TrainingError(f"the {kind} {path} is not UTF-8 text; save it as UTF-8") from error
