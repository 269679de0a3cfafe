"""Thumbnails: pictures beside adapters and pictures that were made, re-encoded small and kept in a cache of our own.

What is sent to the browser is never a file that somebody else wrote.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import threading
from pathlib import Path

from PIL import Image, ImageOps

EDGE = 256  # pixels, of the longer side at most
MAX_BYTES = 32 * 2**20
MAX_PIXELS = 40 * 10**6
FORMATS = ["PNG", "JPEG", "WEBP"]


class Thumbnails:
    """A cache of ``.webp`` files in ``folder``, which is made when it is missing; files in it may be deleted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._unfit: set[str] = set()
        self.data_uri = functools.lru_cache(maxsize=512)(self._data_uri)

    def of(self, picture: Path, stamp: tuple[int, int], root: Path) -> Path | None:
        """Return the thumbnail of a picture, made if need be; None when it is no picture that can be shown.

        ``stamp`` is its modification time and size; a picture that is not inside ``root`` is not read.
        """
        key = hashlib.sha256(f"{os.fsencode(picture)!r} {stamp} {EDGE}".encode()).hexdigest()[:32]
        target = self.folder / f"{key}.webp"
        if key in self._unfit or not picture.resolve().is_relative_to(root):
            return None
        if not target.is_file():
            try:
                _make(picture, target)
            except Exception:  # Pillow raises many kinds for a damaged or hostile file
                self._unfit.add(key)
                return None
        return target

    def _data_uri(self, picture: Path, stamp: tuple[int, int], root: Path) -> str:
        """The thumbnail as a ``data:`` address, or an empty text."""
        thumbnail = self.of(picture, stamp, root)
        return address(thumbnail.read_bytes()) if thumbnail else ""


def address(webp: bytes) -> str:
    """The ``data:`` address of a picture in webp."""
    return "data:image/webp;base64," + base64.b64encode(webp).decode()


def _make(picture: Path, target: Path) -> None:
    if picture.stat().st_size > MAX_BYTES:
        raise ValueError("The file is too large.")
    with Image.open(picture, formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError("The picture is too large.")
        image.draft("RGB", (2 * EDGE, 2 * EDGE))
        small = ImageOps.exif_transpose(image).convert("RGB")
    small.thumbnail((EDGE, EDGE))
    target.parent.mkdir(parents=True, exist_ok=True)
    hidden = target.with_suffix(f".{os.getpid()}-{threading.get_ident()}.part")
    small.save(hidden, format="WEBP", quality=80)
    os.replace(hidden, target)
