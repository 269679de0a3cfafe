"""Prompts from a file, drawn by any number of processes: each picture has its own name and seed, and is drawn once.

Processes never talk to each other. Which pictures are whose follows from their number, and a picture that is there is
whole, because it was renamed into place; so whatever was killed, the same call again draws what is missing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

from ui.keeping.recipe import MAX_SEED, RECIPE_KEY, Recipe, png_info, to_json

from .grid import labelled_grid

LARGEST_GRID = 64  # pictures
JSON_KEYS = {"prompt": str, "negative_prompt": str, "seed": int}


class PromptLine(NamedTuple):
    """One line of the file. None: as the command line says."""

    line: int  # from 1
    prompt: str
    negative_prompt: str | None = None
    seed: int | None = None  # of its first picture, the next ones count up


class Drawing(NamedTuple):
    """One picture, drawn or to be drawn."""

    path: Path
    recipe: Recipe


@dataclass(frozen=True)
class Process:
    """One of several that share the work."""

    index: int
    count: int
    device: str | None  # None: the usual one


def this_process(device: str | None, environment: Mapping[str, str] = os.environ) -> Process:
    """What ``accelerate launch`` and ``torchrun`` say in the environment; without them, the only process.

    Of several, each takes the GPU of its own number, unless `device` has a number or is the CPU.
    """
    count = int(environment.get("WORLD_SIZE", "1"))
    if count < 2:
        return Process(0, 1, device)
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    own = kind if kind == "cpu" or ":" in kind else f"{kind}:{environment.get('LOCAL_RANK', '0')}"
    return Process(int(environment["RANK"]), count, own)


def read_prompts(path: Path) -> list[PromptLine]:
    """The prompts of a text file, one a line, or of a .jsonl file with ``{"prompt": ...}`` in each line.

    Blank lines are passed over, and in a text file those that begin with #. In JSON, "negative_prompt" and "seed" may
    follow.

    Raises:
        ValueError: the file cannot be read, has no prompt, or a line is damaged.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise ValueError(f"there is no file of prompts {path}.") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text in UTF-8: {error}.") from None
    numbered = [(number, text.strip()) for number, text in enumerate(lines, 1) if text.strip()]
    if path.suffix == ".jsonl":
        found = [_from_json(path, number, text) for number, text in numbered]
    else:
        found = [PromptLine(number, text) for number, text in numbered if not text.startswith("#")]
    if not found:
        raise ValueError(f"{path} holds no prompt.")
    return found


def _from_json(path: Path, number: int, text: str) -> PromptLine:
    try:
        entry: Any = json.loads(text)
    except ValueError:
        entry = None
    if not isinstance(entry, dict) or not isinstance(entry.get("prompt"), str):
        raise ValueError(f'line {number} of {path} must be JSON such as {{"prompt": "a cat"}}.')
    for key, value in entry.items():
        kind = JSON_KEYS.get(key)
        if kind is None:
            raise ValueError(f"line {number} of {path} has {key!r}; it may have {', '.join(JSON_KEYS)}.")
        if type(value) is not kind:
            raise ValueError(
                f"line {number} of {path} needs {'a text' if kind is str else 'a whole number'} for {key}."
            )
    return PromptLine(number, **entry)


def seed_of(line: PromptLine, image: int, seed: int) -> int:
    """The seed of a prompt's `image`-th picture (from 0); by line, so it is the same however the work is shared.

    Raises:
        ValueError: it is out of range.
    """
    if line.seed is None:
        return int.from_bytes(hashlib.sha256(f"{seed} {line.line} {image}".encode()).digest()[:4], "big")
    if not 0 <= line.seed + image <= MAX_SEED:
        raise ValueError(f"the seed {line.seed} of line {line.line} must be from 0 to {MAX_SEED - image}.")
    return line.seed + image


def path_of(folder: Path, line: PromptLine, image: int) -> Path:
    """``line-00012-03.png`` is the third picture of line 12."""
    return folder / f"line-{line.line:05d}-{image + 1:02d}.png"


def missing(drawings: Sequence[Drawing]) -> list[Drawing]:
    """Those that are not there yet.

    Raises:
        ValueError: a file is there that is not the picture that would be drawn.
    """
    there = [drawing for drawing in drawings if drawing.path.exists()]
    for path, recipe in there:
        if _recipe_text(path) != to_json(recipe):
            raise ValueError(
                f"{path} was made with other settings or of another prompt than {recipe.prompt[:60]!r}; "
                "take another --output_dir."
            )
    known = set(there)
    return [drawing for drawing in drawings if drawing not in known]


def _recipe_text(path: Path) -> str | None:
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return image.info.get(RECIPE_KEY)
    except Exception:  # Pillow raises many kinds for what is no PNG
        return None


def save(image: Image.Image, drawing: Drawing) -> None:
    """Write under a temporary name, then rename: a picture that has its name is whole."""
    _write(image, drawing.path, drawing.path.with_name(f".{drawing.path.name}.writing"), png_info(drawing.recipe))


def save_grid(rows: Sequence[Sequence[Drawing]], folder: Path) -> Path | None:
    """``grid.png`` with a row for each prompt, by whichever process sees that all pictures are there; or None."""
    number = sum(len(row) for row in rows)
    if not 1 < number <= LARGEST_GRID or not all(drawing.path.exists() for row in rows for drawing in row):
        return None
    images = [[Image.open(drawing.path) for drawing in row] for row in rows]
    labels = [row[0].recipe.prompt for row in rows]
    columns = [f"picture {i + 1}" for i in range(len(rows[0]))] if len(rows[0]) > 1 else [""]
    path = folder / "grid.png"
    _write(labelled_grid(images, labels, columns), path, folder / f".grid.png.{os.getpid()}.writing")
    return path


def _write(image: Image.Image, path: Path, temporary: Path, texts: Any = None) -> None:
    try:
        image.save(temporary, format="PNG", pnginfo=texts)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
