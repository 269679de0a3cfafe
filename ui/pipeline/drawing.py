"""One picture: run the pipeline by a recipe with a seed of its own, and save the result with the recipe in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from lily_diffusion import pipelines
from ui.keeping import whole_files
from ui.keeping.recipe import Recipe, png_info
from ui.pipeline.base_models import BaseModel


def draw(
    base: BaseModel,
    recipe: Recipe,
    on_step: Callable[[int], None],
    stop: threading.Event,
    on_latents: Callable[[int, torch.Tensor], None] | None = None,
) -> tuple[Image.Image, bool] | None:
    """Return the picture and whether the safety checker hid it, or None when ``stop`` was set meanwhile.

    ``on_step`` gets the number of steps done, ``on_latents`` that number and the latents after them. The noise comes
    from a CPU generator, so it is the same on any device. The adapters, their weights and the scheduler are those that
    the pipeline has: see `Session.using`.
    """

    def step_end(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        done = steps_done(pipe, recipe, step)
        on_step(done)
        if stop.is_set():
            pipe._interrupt = True  # the pipeline then skips the steps that are left
        elif on_latents is not None and "latents" in tensors:
            on_latents(done, tensors["latents"])
        return tensors

    noise = torch.Generator("cpu").manual_seed(recipe.seed)
    with noise_from(recipe.seed):
        output = base.pipe(**call_arguments(base, recipe), generator=noise, callback_on_step_end=step_end)
    if stop.is_set():
        return None
    flags = getattr(output, "nsfw_content_detected", None) or [False]
    return output.images[0], bool(flags[0])


@contextmanager
def noise_from(seed: int) -> Iterator[None]:
    """Seed torch inside the ``with`` block: some pipelines do not hand their generator to a scheduler's own noise."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def call_arguments(base: BaseModel, recipe: Recipe) -> dict[str, Any]:
    """What the pipeline is given for a recipe, of what it takes; all but the noise and the callback."""
    return pipelines.call_arguments(
        base.pipe,
        base.label,
        prompt=recipe.prompt,
        negative_prompt=recipe.negative_prompt,
        num_inference_steps=recipe.steps,
        guidance_scale=recipe.guidance_scale,
        width=recipe.width,
        height=recipe.height,
    )


def steps_done(pipe: Any, recipe: Recipe, number: int) -> int:
    """How many of the recipe's steps are done after the pipeline's own step ``number`` (from 0)."""
    rounds = max(recipe.steps, len(pipe.scheduler.timesteps))  # some schedulers call the model twice a step
    return (number + 1) * recipe.steps // rounds


def save(image: Image.Image, recipe: Recipe, output_dir: Path) -> Path:
    """Save as ``<output_dir>/YYYY-MM-DD/<number>-<seed>.png`` and return the path; no file is ever overwritten.

    The file appears whole or not at all: it is written under a hidden name and then linked to its own.
    """
    folder = output_dir / datetime.now().strftime("%Y-%m-%d")
    folder.mkdir(parents=True, exist_ok=True)
    number = 1 + max((int(p.name[:5]) for p in folder.glob("[0-9][0-9][0-9][0-9][0-9]-*.png")), default=0)
    hidden = folder / f".{threading.get_ident()}-{time.monotonic_ns()}.part"
    try:
        image.save(hidden, format="PNG", pnginfo=png_info(recipe))
        while True:
            path = folder / f"{number:05d}-{recipe.seed}.png"
            if whole_files.take(hidden, path):
                return path
            number += 1
    finally:
        hidden.unlink(missing_ok=True)
