"""What the benchmarks measure with: the colour of a background, pictures as tensors, how results are written down."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from lily_diffusion.base_model.pictures import COLOURS

RESULTS = Path(__file__).parent / "results"
PLACES = ("--results_dir", "--pictures_dir", "--work_dir")  # where things lie, which no number depends on
RING = 3  # pixels: the border that counts as background


def as_tensor(images: Sequence[Image.Image]) -> torch.Tensor:
    """Pictures of one size -> (B, 3, H, W) in [-1, 1]."""
    pixels = np.stack([np.array(image.convert("RGB")) for image in images])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def as_images(pictures: torch.Tensor) -> list[Image.Image]:
    """(B, 3, H, W) in [-1, 1] -> pictures of 8 bits."""
    pixels = ((pictures.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture) for picture in pixels]


def background_colours(pictures: torch.Tensor) -> list[str]:
    """Name the background of each picture: the one of COLOURS that is nearest, in CIELAB, to the mean of its border.

    Args:
        pictures: (B, 3, H, W) in [-1, 1].
    """
    border = torch.ones(pictures.shape[2:], dtype=torch.bool)
    border[RING:-RING, RING:-RING] = False
    ring = (pictures.float().cpu()[:, :, border].mean(-1) + 1) / 2  # (B, 3)
    known = torch.tensor(list(COLOURS.values())) / 255  # (12, 3)
    nearest = torch.cdist(lab(ring), lab(known)).argmin(1)
    return [list(COLOURS)[i] for i in nearest]


def lab(rgb: torch.Tensor) -> torch.Tensor:
    """sRGB (N, 3) in [0, 1] -> CIELAB (N, 3) under the white of D65 (CIE 15:2004; matrix of IEC 61966-2-1)."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp(min=0) + 0.055) / 1.055) ** 2.4)
    matrix = torch.tensor([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ matrix.T / torch.tensor([0.95047, 1.0, 1.08883])
    f = torch.where(xyz > (6 / 29) ** 3, xyz.clamp(min=1e-9) ** (1 / 3), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return torch.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], dim=1)


def percent(hits: Sequence[bool]) -> float:
    return round(100 * sum(hits) / len(hits), 1)


def conditions() -> dict[str, Any]:
    """What a number depends on: the command, and the versions that it ran on."""
    packages = ("lily-diffusion", "torch", "diffusers", "transformers")
    module = sys.modules["__main__"].__spec__
    program = f"python -m {module.name.removesuffix('.__main__')}" if module else f"python {sys.argv[0]}"
    given = zip(sys.argv, sys.argv[1:], strict=False)
    flags = [word for before, word in given if before not in PLACES and word not in PLACES]
    return {
        "command": f"{program} {shlex.join(flags)}".strip(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def results_name(name: str, model: str) -> str:
    """Results on another base than ``embedded`` have its name behind theirs."""
    return name if model == "embedded" else f"{name}_{Path(model).name.replace('-', '_')}"


def write_results(name: str, result: dict[str, Any], text: str, folder: Path = RESULTS) -> None:
    """Write ``<folder>/<name>.json`` and ``<folder>/<name>.md``; the conditions close the second."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{name}.json", result)
    (folder / f"{name}.md").write_text(closed(text, result["conditions"]))


def closed(text: str, facts: dict[str, Any]) -> str:
    """A page of results with the sentence that closes it."""
    return f"{text.rstrip()}\n\n{measured_with(facts)}\n"


def measured_with(facts: dict[str, Any]) -> str:
    """The sentence that closes a page of results."""
    versions = ", ".join(f"{key} {value}" for key, value in facts.items() if key != "command")
    return f"Measured with `{facts['command']}` ({versions})."


def write_json(path: Path, result: dict[str, Any]) -> None:
    """All or nothing: an interrupted run leaves no half of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".writing")
    temporary.write_text(json.dumps(result, indent=1) + "\n")
    os.replace(temporary, path)
