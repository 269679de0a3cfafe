"""Reading one picture, or its mask, from whatever a camera or a program may write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from .errors import TrainingError


def read_picture(path: Path | str) -> Image.Image:
    """Read a picture as upright RGB; transparent parts become white.

    Raises:
        TrainingError: the file cannot be read as a picture.
    """
    return flat(open_picture(path), "white")


def open_picture(name: Path | str, load: Callable[[], BinaryIO] | None = None) -> Image.Image:
    """A picture in its own mode, turned the way its EXIF data says; `load` opens one that is not a file `name`.

    Raises:
        TrainingError: it cannot be read as a picture.
    """
    try:
        with Image.open(name if load is None else load()) as opened:
            picture = ImageOps.exif_transpose(opened)
            picture.load()
    except Exception as error:  # decoders fail in many ways over damaged files, and all mean the same here
        raise TrainingError(f"cannot read the picture {name}: {error}; repair it or take it out") from error
    if picture.mode.startswith("I"):  # 16 bits of grey: Pillow would clip them at 255
        picture = Image.fromarray((np.asarray(picture, dtype=np.float64) / 257).clip(0, 255).astype(np.uint8))
    return picture


def flat(picture: Image.Image, background: str) -> Image.Image:
    """A picture as RGB, its transparent parts laid on a background."""
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, background), picture)
    return picture.convert("RGB")


def alpha(picture: Image.Image) -> Image.Image | None:
    """How opaque a picture is, 0 to 255; None if it is wholly opaque."""
    if not picture.has_transparency_data:
        return None
    channel = picture.convert("RGBA").getchannel("A")
    return channel if channel.getextrema() != (255, 255) else None


def upright_size(name: Path | str, load: Callable[[], BinaryIO] | None = None) -> tuple[int, int]:
    """(width, height) of a picture as it is shown, from its header.

    Raises:
        TrainingError: it cannot be read as a picture.
    """
    try:
        with Image.open(name if load is None else load()) as opened:
            width, height = opened.size
            turned = opened.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except Exception as error:  # as above
        raise TrainingError(f"cannot read the picture {name}: {error}; repair it or take it out") from error
    return (height, width) if turned else (width, height)
