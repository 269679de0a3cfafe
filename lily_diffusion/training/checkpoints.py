"""Checkpoints: everything that a run needs to go on exactly, written beside the old ones and only then put in place.

checkpoint-N/  pytorch_lily_weights.safetensors  optimizer.pt  lr_scheduler.pt  scaler.pt (fp16)  random_states.pt
               training_state.json
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..loaders import save_lily_weights
from .errors import TrainingError

STATE_NAME = "training_state.json"
HIDDEN = ".checkpoint-"  # how the names of folders begin that are being written or removed


@dataclass
class Progress:
    """Where a run stands. Data order and noise follow from the seed and `samples_seen` alone."""

    seed: int
    step: int = 0  # optimizer steps done
    samples_seen: int = 0  # instance pictures, over all processes
    smoothed_loss: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)  # what shaped the run, to compare when it goes on


def save_checkpoint(
    output_dir: Path,
    progress: Progress,
    models: Mapping[str, nn.Module],
    parts: Mapping[str, Any],
    total_limit: int | None,
    **saving: Any,
) -> Path:
    """Write ``checkpoint-<step>`` under a temporary name, rename it, and only then remove what is beyond `total_limit`.

    Args:
        parts: name -> object with a ``state_dict``: optimizer, lr_scheduler, scaler.
        saving: trigger words and the like for `save_lily_weights`.
    """
    final = output_dir / f"checkpoint-{progress.step}"
    for leftover in output_dir.glob(f"{HIDDEN}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    temporary = output_dir / f"{HIDDEN}{progress.step}.writing"
    temporary.mkdir(parents=True)
    save_lily_weights(models, temporary, **saving)
    for name, part in parts.items():
        torch.save(part.state_dict(), temporary / f"{name}.pt")
    torch.save(random_states(), temporary / "random_states.pt")
    (temporary / STATE_NAME).write_text(json.dumps(asdict(progress), indent=2))
    if final.exists():
        _remove(final)
    os.rename(temporary, final)
    older = [path for path in list_checkpoints(output_dir) if path != final]
    excess = len(older) + 1 - total_limit if total_limit else 0
    for path in older[: max(0, excess)]:
        _remove(path)
    return final


def _remove(path: Path) -> None:
    """Out of sight first: a folder that is half removed must not look like a checkpoint."""
    hidden = path.with_name(f"{HIDDEN}{path.name.split('-')[1]}.removing")
    os.rename(path, hidden)
    shutil.rmtree(hidden)


def list_checkpoints(output_dir: Path) -> list[Path]:
    """The complete checkpoints of a run, by step."""
    found = [p for p in Path(output_dir).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", p.name)]
    return sorted((p for p in found if (p / STATE_NAME).is_file()), key=lambda p: int(p.name.split("-")[1]))


def find_checkpoint(output_dir: Path, wanted: str | None) -> Path | None:
    """The checkpoint that ``--resume_from_checkpoint`` means: a path, a name in `output_dir`, or "latest".

    None means a fresh start: nothing was asked for, or "latest" and there is none yet.

    Raises:
        TrainingError: there is no such checkpoint, or `output_dir` holds another run that a fresh start would mix with.
    """
    known = list_checkpoints(output_dir)
    if wanted is None:
        if known:
            raise TrainingError(
                f"{output_dir} holds a run that got to {known[-1].name}: go on with --resume_from_checkpoint latest, "
                "name another --output_dir, or remove its checkpoints"
            )
        return None
    if wanted == "latest":
        return known[-1] if known else None
    for path in (Path(wanted), output_dir / wanted):
        if (path / STATE_NAME).is_file():
            if known and path.resolve() != known[-1].resolve():
                raise TrainingError(
                    f"{path} is not the newest of {output_dir}: what follows would mix with {known[-1].name}; remove "
                    "the newer ones, or name another --output_dir"
                )
            return path
    there = ", ".join(p.name for p in known) or "none"
    raise TrainingError(f"--resume_from_checkpoint {wanted} is not a checkpoint; in {output_dir} there is {there}")


def read_progress(checkpoint: Path) -> Progress:
    try:
        return Progress(**json.loads((checkpoint / STATE_NAME).read_text()))
    except (ValueError, TypeError) as error:
        raise TrainingError(f"{checkpoint / STATE_NAME} is damaged ({error}); resume from an earlier one") from error


def load_parts(checkpoint: Path, parts: Mapping[str, Any]) -> None:
    """Restore optimizer, lr scheduler, scaler and the generators of random numbers. No pickled code is run.

    Raises:
        TrainingError: a file is missing, as when the run was made with another precision.
    """
    for name, part in parts.items():
        part.load_state_dict(_read(checkpoint / f"{name}.pt"))
    set_random_states(_read(checkpoint / "random_states.pt"))


def random_states() -> dict[str, Any]:
    """The states of Python's, NumPy's and torch's generators, in types that load without pickled code."""
    name, keys, *rest = np.random.get_state(legacy=True)
    plain = (name, np.asarray(keys).tolist(), *rest)
    states: dict[str, Any] = {"python": random.getstate(), "numpy": plain, "torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def set_random_states(states: Mapping[str, Any]) -> None:
    """The inverse of `random_states`; GPUs that are not here are passed over."""
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    for device, state in enumerate(states.get("cuda", ())[: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, device)


def _read(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise TrainingError(
            f"the checkpoint has no {path.name}; it was made with another --mixed_precision, or is damaged"
        ) from error
    except Exception as error:  # torch has many ways to say that a file was cut off
        raise TrainingError(f"{path} is damaged ({type(error).__name__}); resume from an earlier checkpoint") from error
