"""Masks: which part of each picture the loss looks at. They come from a folder, or are the pictures' own alpha."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .decode import alpha, flat, open_picture, upright_size
from .errors import TrainingError

ALPHA = "alpha"  # in place of a mask's file: the picture's own alpha channel
STRETCH = 0.02  # a mask and its picture are of one shape if their aspect ratios differ by no more than this


def find_masks(folder: Path | str, pictures: Sequence[Path], is_picture: Callable[[Path], bool]) -> dict[str, Path]:
    """The mask file for the stem of each picture that has one.

    Raises:
        TrainingError: no such folder, or it is the pictures' own, or two files are a mask of one picture, or no file
            belongs to any picture.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise TrainingError(f"there is no folder {folder}; --mask_data_dir is the folder that holds the masks")
    if folder.resolve() == pictures[0].parent.resolve():
        raise TrainingError("--mask_data_dir is the folder of the pictures themselves; masks need one of their own")
    masks: dict[str, Path] = {}
    stems = {picture.stem for picture in pictures}
    for path in sorted(folder.iterdir(), key=lambda p: p.name):
        if not is_picture(path) or path.stem not in stems:
            continue
        if path.stem in masks:
            raise TrainingError(
                f"{folder} has two masks of one name, {masks[path.stem].name} and {path.name}; keep one"
            )
        masks[path.stem] = path
    if not masks:
        raise TrainingError(f"no file in {folder} is a mask; masks have the pictures' names, as {pictures[0].stem}.png")
    return masks


def read_mask(source: Path | str | None, picture: Image.Image, name: str, size: tuple[int, int]) -> Tensor | None:
    """The mask of one picture, (1, H, W) uint8 of `size` (width, height); None where the whole picture counts.

    `picture` is upright and in its own mode.

    Raises:
        TrainingError: the mask cannot be read, or hides everything.
    """
    if source is None:
        return None
    if source == ALPHA:
        grey = alpha(picture)
        wrong = f"{name} is wholly transparent, so --alpha_mask leaves nothing of it to learn; take it out"
    else:
        grey = flat(open_picture(source), "black").convert("L")
        wrong = f"the mask {source} has nothing white, so nothing of {name} would be learnt; paint it or remove both"
    if grey is None:
        return None
    mask = np.array(grey.resize(size, Image.Resampling.BILINEAR))  # no filter that rings: a mask stays in its range
    if not mask.any():
        raise TrainingError(wrong)
    return torch.from_numpy(mask)[None]


def stretched(mask: Path | str | None, size: tuple[int, int]) -> bool:
    """Whether a mask file is of another shape than its picture of `size` (width, height)."""
    if mask is None or mask == ALPHA:
        return False
    width, height = upright_size(mask)
    return abs(math.log(width * size[1] / (height * size[0]))) > STRETCH
