"""Class pictures for prior preservation: those that are missing are painted by the base model itself."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from PIL import Image
from tqdm.auto import tqdm

from .dataset import Item, list_pictures
from .draws import generator_for
from .errors import TrainingError

INFERENCE_STEPS = 30


def count_pictures(folder: Path | str) -> int:
    """How many pictures a folder holds; 0 if it is not there."""
    try:
        return len(list_pictures(folder, prompt="any").items)
    except TrainingError:
        return 0


def class_items(folder: Path | str, prompt: str, count: int) -> list[Item]:
    """The first `count` pictures of the class, with `prompt` as the caption of those that have none of their own."""
    return list_pictures(folder, prompt).items[:count]


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
) -> int:
    """Fill `folder` up to `count` pictures, each from a seed of its own; returns how many were made.

    The pipeline must have no adapter attached. `dtype` is the autocast type, None for full precision.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    have = count_pictures(folder)
    pipe.to(device)
    pipe.set_progress_bar_config(disable=True)
    indices = list(range(have, count))
    with tqdm(total=len(indices), desc=f"Class pictures of {prompt!r}", disable=not indices) as bar:
        for start in range(0, len(indices), batch_size):
            batch = indices[start : start + batch_size]
            generators = [generator_for(seed, "class picture", i) for i in batch]
            with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype is not None):
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


def _save(image: Image.Image, folder: Path, index: int) -> None:
    """Under a hidden name first, so that a run that is killed leaves no half picture."""
    temporary = folder / f".{index}.writing.png"
    image.save(temporary)
    os.replace(temporary, folder / f"{index:04d}-{hashlib.sha1(image.tobytes()).hexdigest()[:12]}.png")
