"""The pictures of a subject, their captions and their masks, as training asks for them.

Every picture is turned the way its EXIF data says, laid on white where it is transparent, made RGB, and kept in
memory just large enough to cover its bucket.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .buckets import Bucket, nearest_bucket
from .captions import METADATA, read_caption, read_metadata
from .decode import flat, open_picture, read_picture
from .errors import TrainingError
from .masks import ALPHA, find_masks, read_mask, stretched

__all__ = ["Item", "Listing", "Pictures", "check_pictures", "is_picture", "list_pictures", "read_picture"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class Item:
    """A picture, the caption that belongs to it, and where its mask is."""

    path: Path  # its file; only its name where `load` opens it
    caption: str
    mask: Path | str | None = None  # a file, or "alpha" for the picture's own alpha channel
    load: Callable[[], BinaryIO] | None = None


@dataclass(frozen=True)
class Listing:
    """What a folder or dataset holds: the pictures in order, and what was left out."""

    items: list[Item]
    notes: list[str] = field(default_factory=list)


def list_pictures(
    folder: Path | str, prompt: str | None = None, masks: Path | str | None = None, alpha_mask: bool = False
) -> Listing:
    """List the pictures of a folder (not of its subfolders), sorted by name.

    A ``.txt`` file with the picture's name is its caption and wins over its line in a ``metadata.jsonl``, which wins
    over `prompt`. Hidden files are passed over, other files and subfolders are passed over with a note.

    Args:
        folder: the pictures' folder.
        prompt: the caption of pictures that have none of their own.
        masks: a folder with masks that have the pictures' names: what is white in them is learnt.
        alpha_mask: the pictures' own alpha channels are their masks.

    Raises:
        TrainingError: no such folder, no picture in it, an empty or unreadable caption, or no caption at all; or
            masks that cannot be those of the pictures.
    """
    folder = Path(folder)
    if masks is not None and alpha_mask:
        raise TrainingError("give --alpha_mask or --mask_data_dir, not both")
    if not folder.is_dir():
        raise TrainingError(f"there is no folder {folder}; give the folder that holds the pictures")
    files, notes = _sort_out(folder)
    if not files.pictures:
        raise TrainingError(f"{folder} holds no picture ({', '.join(SUFFIXES)}){'; ' + notes[0] if notes else ''}")
    found = find_masks(masks, files.pictures, is_picture) if masks is not None else {}
    if masks is not None and (bare := [p.name for p in files.pictures if p.stem not in found]):
        notes.append(f"{_some(bare)}: no mask in {masks}, so all of it counts")
    items = [
        Item(path, _caption(path, files, prompt), ALPHA if alpha_mask else found.get(path.stem))
        for path in files.pictures
    ]
    return Listing(items, notes)


def check_pictures(items: Iterable[Item]) -> list[tuple[int, int]]:
    """Read every picture and forget it: (width, height) of each as it is shown, what `automatic_buckets` asks for.

    Raises:
        TrainingError: a file is not a picture, or damaged.
    """
    return [open_picture(item.path, item.load).size for item in items]


def is_picture(path: Path) -> bool:
    """Whether a file is one of a folder's pictures, by its name."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


class Pictures:
    """The decoded pictures of a list of items, each cut to its bucket when it is asked for."""

    def __init__(self, items: Sequence[Item], buckets: Sequence[Bucket]):
        """Read every item and find its bucket; `buckets` are (height, width) in pixels.

        Raises:
            TrainingError: a picture or mask cannot be read, or a mask hides everything.
        """
        self.items = list(items)
        self.buckets = list(buckets)
        self.sizes: list[tuple[int, int]] = []  # (width, height) as read
        self._edges: list[Bucket] = []
        self._tensors: list[Tensor] = []  # (3, H, W) uint8, just covering the bucket
        self._masks: list[Tensor | None] = []  # (1, H, W) uint8
        for item in self.items:
            self._read(item)
        if self.items and not self.has_masks and all(item.mask == ALPHA for item in self.items):
            raise TrainingError("--alpha_mask does nothing: no picture has a transparent part; leave it out")

    def _read(self, item: Item) -> None:
        picture = open_picture(item.path, item.load)
        bucket = nearest_bucket(picture.size, self.buckets)
        size = _cover(picture.size, bucket)
        self.sizes.append(picture.size)
        self._edges.append(bucket)
        self._tensors.append(_to_tensor(flat(picture, "white").resize(size, Image.Resampling.LANCZOS)))
        self._masks.append(read_mask(item.mask, picture, item.path.name, size))

    def __len__(self) -> int:
        return len(self.items)

    @property
    def has_masks(self) -> bool:
        """Whether there is a picture of which not everything counts."""
        return any(mask is not None for mask in self._masks)

    def caption(self, index: int) -> str:
        return self.items[index].caption

    def edges(self, index: int) -> Bucket:
        """(height, width) of a picture's bucket."""
        return self._edges[index]

    def pixels(self, index: int, crop: tuple[float, float], flip: bool) -> Tensor:
        """One picture cut to its bucket, (3, h, w) in [-1, 1]; `crop` is 0 to 1 from left and from top."""
        return self._cut(self._tensors[index], index, crop, flip).float() / 127.5 - 1

    def mask(self, index: int, crop: tuple[float, float], flip: bool) -> Tensor:
        """How much each pixel of `pixels` with the same arguments counts, (1, h, w) in [0, 1]."""
        mask = self._masks[index]
        if mask is None:
            return torch.ones(1, *self._edges[index])
        return self._cut(mask, index, crop, flip).float() / 255

    def _cut(self, picture: Tensor, index: int, crop: tuple[float, float], flip: bool) -> Tensor:
        height, width = self._edges[index]
        left = round(crop[0] * (picture.shape[2] - width))
        top = round(crop[1] * (picture.shape[1] - height))
        part = picture[:, top : top + height, left : left + width]
        return part.flip(2) if flip else part

    def digest(self) -> str:
        """A short fingerprint of pictures, captions, buckets and masks, to notice that they changed between runs."""
        digest = hashlib.blake2b(digest_size=8)
        for index, item in enumerate(self.items):
            digest.update(item.caption.encode() + b"\0" + self._tensors[index].numpy().tobytes())
            if len(set(self._edges[index])) > 1:  # a square's edge is that of its picture
                digest.update(f"bucket {self._edges[index]}".encode())
            if (mask := self._masks[index]) is not None:
                digest.update(b"mask" + mask.numpy().tobytes())
        return digest.hexdigest()

    def notes(self) -> list[str]:
        """What a user may want to know about sizes, buckets and masks."""
        names = [item.path.name for item in self.items]
        small = [names[i] for i, (w, h) in enumerate(self.sizes) if h < self.edges(i)[0] or w < self.edges(i)[1]]
        opaque = [names[i] for i, item in enumerate(self.items) if item.mask == ALPHA and self._masks[i] is None]
        other = [names[i] for i, item in enumerate(self.items) if stretched(item.mask, self.sizes[i])]
        edge = f"{self.buckets[0][0]} pixels" if set(self.buckets) == {self.buckets[0][:1] * 2} else "their bucket"
        notes = [f"{_some(small)}: smaller than {edge}, enlarged"] if small else []
        notes += [f"{_some(opaque)}: nothing transparent, so all of it counts"] if opaque else []
        notes += [f"{_some(other)}: the mask has another shape and is stretched"] if other else []
        if len(self.buckets) > 1:
            counts = sorted(Counter(self._edges).items())
            notes.append("buckets (height x width): " + ", ".join(f"{n} at {h} x {w}" for (h, w), n in counts))
        return notes


@dataclass(frozen=True)
class _Files:
    pictures: list[Path]
    sidecars: dict[str, Path]  # by stem
    metadata: dict[str, str | None]  # by name


def _sort_out(folder: Path) -> tuple[_Files, list[str]]:
    """What the files of a folder are, and a note on those that are nothing."""
    entries = sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=lambda p: p.name)
    pictures = [p for p in entries if p.is_file() and is_picture(p)]
    sidecars = {p.stem: p for p in entries if p.is_file() and p.suffix.lower() == ".txt"}
    table = next((p for p in entries if p.is_file() and p.name == METADATA), None)
    metadata = read_metadata(table) if table is not None else {}
    stems, names = {p.stem for p in pictures}, {p.name for p in pictures}
    known = {*pictures, *sidecars.values(), table}
    ignored = [p.name + "/" * p.is_dir() for p in entries if p not in known]
    ignored += [p.name for stem, p in sidecars.items() if stem not in stems]
    notes = [f"{folder}: left out {_some(sorted(ignored))}, not a picture or caption"] if ignored else []
    if absent := [name for name in metadata if name not in names]:
        notes.append(f"{table}: left out {_some(absent)}, not a picture in this folder")
    return _Files(pictures, sidecars, metadata), notes


def _caption(picture: Path, files: _Files, prompt: str | None) -> str:
    if sidecar := files.sidecars.get(picture.stem):
        return read_caption(sidecar)
    if caption := files.metadata.get(picture.name) or prompt:
        return caption
    raise TrainingError(f"{picture} has no caption: give --instance_prompt or write {picture.stem}.txt")


def _cover(size: tuple[int, int], bucket: Bucket) -> tuple[int, int]:
    """The (width, height) to which a picture is resized so that it just covers a bucket."""
    height, width = bucket
    scale = max(width / size[0], height / size[1])
    return max(width, round(size[0] * scale)), max(height, round(size[1] * scale))


def _to_tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
