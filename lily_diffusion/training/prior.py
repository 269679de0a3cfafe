"""Class pictures for prior preservation: those that are missing are painted by the base model itself."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from PIL import Image
from tqdm.auto import tqdm

from .dataset import Item, is_picture, list_pictures
from .decoding import full_precision
from .draws import generator_for

INFERENCE_STEPS = 30
OURS = re.compile(r"(\d{4,})(?:-[0-9a-f]{12})?\.png")  # a generated picture's index; once its name had a hash as well


def count_pictures(folder: Path | str) -> int:
    """How many pictures a folder holds; 0 if it is not there."""
    return len(_names(folder))


def class_items(folder: Path | str, prompt: str, count: int) -> list[Item]:
    """The first `count` pictures of the class, with `prompt` as the caption of those that have none of their own."""
    return list_pictures(folder, prompt).items[:count]


def missing_pictures(folder: Path | str, count: int) -> list[int]:
    """The indices of the pictures that are to be generated so that a folder holds `count`.

    They follow on the pictures that were not generated, and fill the gaps that a killed run left.
    """
    names = _names(folder)
    made = {int(match[1]) for name in names if (match := OURS.fullmatch(name))}
    first = len(names) - len(made)
    free = (index for index in range(first, first + count + len(made)) if index not in made)
    return list(itertools.islice(free, max(0, count - len(names))))


def generate_class_pictures(
    pipe: DiffusionPipeline,
    folder: Path | str,
    prompt: str,
    count: int,
    *,
    batch_size: int,
    resolution: int,
    seed: int,
    dtype: torch.dtype | None,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
) -> int:
    """Fill `folder` up to `count` square pictures, each from a seed of its own; returns how many were made here.

    The pipeline must have no adapter attached. `dtype` is the autocast type, None for full precision. Of several
    processes, number `rank` of `world` makes those whose index leaves that remainder: they need not wait for each
    other before or while they work, only afterwards.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    indices = [index for index in missing_pictures(folder, count) if index % world == rank]
    if not indices:
        return 0
    pipe.to(device)
    pipe.set_progress_bar_config(disable=True)
    with tqdm(total=len(indices), desc=f"Class pictures of {prompt!r}", position=rank) as bar:
        for start in range(0, len(indices), batch_size):
            batch = indices[start : start + batch_size]
            generators = [generator_for(seed, "class picture", i) for i in batch]
            autocast = torch.autocast(device.type, dtype, enabled=dtype is not None)
            with torch.no_grad(), autocast, full_precision(pipe.vae):
                images = pipe(
                    prompt=[prompt] * len(batch),
                    generator=generators,
                    height=resolution,
                    width=resolution,
                    num_inference_steps=INFERENCE_STEPS,
                ).images
            for index, image in zip(batch, images, strict=True):
                _save(image, folder, index)
            bar.update(len(batch))
    return len(indices)


def _names(folder: Path | str) -> list[str]:
    if not (folder := Path(folder)).is_dir():
        return []
    return [p.name for p in folder.iterdir() if p.is_file() and is_picture(p)]


def _save(image: Image.Image, folder: Path, index: int) -> None:
    """Under a hidden name first, so that a run that is killed leaves no half picture."""
    temporary = folder / f".{index}.writing.png"
    image.save(temporary)
    os.replace(temporary, folder / f"{index:04d}.png")
