"""One picture: run the pipeline by a recipe with a seed of its own, and save the result with the recipe in it."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from ui.base_models import BaseModel
from ui.recipe import Recipe, png_info


def draw(
    base: BaseModel, recipe: Recipe, on_step: Callable[[int], None], stop: threading.Event
) -> tuple[Image.Image, bool] | None:
    """Return the picture and whether the safety checker hid it, or None when ``stop`` was set meanwhile.

    ``on_step`` gets the number of steps done. The noise comes from a CPU generator, so it is the same on any device.
    """

    def step_end(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        on_step(step + 1)
        if stop.is_set():
            pipe._interrupt = True  # the pipeline then skips the steps that are left
        return tensors

    wanted = {
        "prompt": recipe.prompt,
        "negative_prompt": recipe.negative_prompt or None,
        "num_inference_steps": recipe.steps,
        "guidance_scale": recipe.guidance_scale,
        "width": recipe.width,
        "height": recipe.height,
        "generator": torch.Generator("cpu").manual_seed(recipe.seed),
        "callback_on_step_end": step_end,
    }
    known = inspect.signature(base.pipe.__call__).parameters
    output = base.pipe(**{name: value for name, value in wanted.items() if name in known})
    if stop.is_set():
        return None
    flags = getattr(output, "nsfw_content_detected", None) or [False]
    return output.images[0], bool(flags[0])


def save(image: Image.Image, recipe: Recipe, output_dir: Path) -> Path:
    """Save as ``<output_dir>/YYYY-MM-DD/<number>-<seed>.png`` and return the path; no file is ever overwritten."""
    folder = output_dir / datetime.now().strftime("%Y-%m-%d")
    folder.mkdir(parents=True, exist_ok=True)
    number = 1 + max((int(p.name[:5]) for p in folder.glob("[0-9][0-9][0-9][0-9][0-9]-*.png")), default=0)
    while True:
        path = folder / f"{number:05d}-{recipe.seed}.png"
        try:
            with path.open("xb") as file:
                image.save(file, format="PNG", pnginfo=png_info(recipe))
        except FileExistsError:
            number += 1
            continue
        return path
