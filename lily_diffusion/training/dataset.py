"""The pictures of a subject and their captions, read from a folder.

Every picture is turned the way its EXIF data says, laid on white where it is transparent, made RGB, and kept in
memory with its short side at the training resolution.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from .errors import TrainingError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class Item:
    """A picture file and the caption that belongs to it."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Listing:
    """What a folder holds: the pictures in order of their names, and what was left out."""

    items: list[Item]
    notes: list[str] = field(default_factory=list)


def list_pictures(folder: Path | str, prompt: str | None = None) -> Listing:
    """List the pictures of a folder (not of its subfolders), sorted by name.

    A ``.txt`` file with the picture's name is its caption and wins over `prompt`. Hidden files are passed over, other
    files and subfolders are passed over with a note.

    Raises:
        TrainingError: no such folder, no picture in it, an empty or unreadable caption, or no caption at all.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise TrainingError(f"there is no folder {folder}; give the folder that holds the pictures")
    entries = sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=lambda p: p.name)
    pictures = [p for p in entries if p.is_file() and p.suffix.lower() in SUFFIXES]
    captions = {p.stem: p for p in entries if p.is_file() and p.suffix.lower() == ".txt"}
    stems = {p.stem for p in pictures}
    ignored = [p.name + "/" * p.is_dir() for p in entries if p not in pictures and p not in captions.values()]
    ignored += [p.name for stem, p in captions.items() if stem not in stems]
    notes = [f"{folder}: left out {_some(sorted(ignored))}, not a picture or caption"] if ignored else []
    if not pictures:
        raise TrainingError(f"{folder} holds no picture ({', '.join(SUFFIXES)}){'; ' + notes[0] if notes else ''}")
    return Listing([Item(p, _caption(p, captions.get(p.stem), prompt)) for p in pictures], notes)


def read_picture(path: Path | str) -> Image.Image:
    """Read a picture as upright RGB; transparent parts become white.

    Raises:
        TrainingError: the file cannot be read as a picture.
    """
    try:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened)
            picture.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise TrainingError(f"cannot read the picture {path}: {error}; repair it or take it out") from error
    if picture.mode.startswith("I"):  # 16 bits of grey: Pillow would clip them at 255
        picture = Image.fromarray((np.asarray(picture, dtype=np.float64) / 257).clip(0, 255).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture.convert("RGB")


class Pictures:
    """The decoded pictures of a list of items, each cut to a square when it is asked for."""

    def __init__(self, items: Sequence[Item], resolution: int):
        """Read every item; `resolution` is the edge of the squares, in pixels."""
        self.items = list(items)
        self.resolution = resolution
        self.sizes: list[tuple[int, int]] = []  # as read
        self._tensors: list[Tensor] = []  # (3, H, W) uint8, short side = resolution
        for item in self.items:
            picture = read_picture(item.path)
            self.sizes.append(picture.size)
            self._tensors.append(_to_tensor(_fit(picture, resolution)))

    def __len__(self) -> int:
        return len(self.items)

    def caption(self, index: int) -> str:
        return self.items[index].caption

    def pixels(self, index: int, crop: tuple[float, float], flip: bool) -> Tensor:
        """One square of shape (3, resolution, resolution) in [-1, 1]; `crop` is 0 to 1 from left and from top."""
        picture, edge = self._tensors[index], self.resolution
        left = round(crop[0] * (picture.shape[2] - edge))
        top = round(crop[1] * (picture.shape[1] - edge))
        square = picture[:, top : top + edge, left : left + edge].float() / 127.5 - 1
        return square.flip(2) if flip else square

    def digest(self) -> str:
        """A short fingerprint of pictures and captions, to notice that they changed between runs."""
        digest = hashlib.blake2b(digest_size=8)
        for item, tensor in zip(self.items, self._tensors, strict=True):
            digest.update(item.caption.encode() + b"\0" + tensor.numpy().tobytes())
        return digest.hexdigest()

    def notes(self) -> list[str]:
        """What a user may want to know about the sizes."""
        both = zip(self.items, self.sizes, strict=True)
        small = [item.path.name for item, size in both if min(size) < self.resolution]
        return [f"{_some(small)}: smaller than {self.resolution} pixels, enlarged"] if small else []


def _caption(picture: Path, sidecar: Path | None, prompt: str | None) -> str:
    if sidecar is None:
        if not prompt:
            raise TrainingError(f"{picture} has no caption: give --instance_prompt or write {picture.stem}.txt")
        return prompt
    try:
        caption = " ".join(sidecar.read_text(encoding="utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise TrainingError(f"the caption file {sidecar} is not UTF-8 text; save it as UTF-8") from error
    if not caption:
        raise TrainingError(f"the caption file {sidecar} is empty; write a caption or remove it")
    return caption


def _fit(picture: Image.Image, resolution: int) -> Image.Image:
    scale = resolution / min(picture.size)
    width, height = (max(resolution, round(edge * scale)) for edge in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _to_tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
