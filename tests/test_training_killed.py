"""A run that is killed again and again, also in the middle of saving, ends as if nothing had happened.

LILY_KILLS=20 python -m pytest tests/test_training_killed.py
"""

from __future__ import annotations

import csv
import os
import random
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from lily_diffusion.save_and_load import WEIGHT_NAME, read_file
from lily_diffusion.training import train
from lily_diffusion.training.checkpoints import list_checkpoints, read_progress

from .forked import start
from .training_base import arguments, base, pictures, same, weights  # noqa: F401

KILLS = int(os.environ.get("LILY_KILLS", 6))
STEPS = 4 * KILLS


def losses(folder: Path) -> dict[int, str]:
    with (folder / "loss.csv").open() as file:
        return {int(row["step"]): row["loss"] for row in csv.DictReader(file)}


def reached(folder: Path) -> int:
    return max((int(path.name.split("-")[1]) for path in list_checkpoints(folder)), default=0)


def wait_for(condition: Callable[[], bool], child: BaseProcess) -> None:
    while not condition():
        assert child.is_alive(), "the run ended before it could be killed"
        time.sleep(0.0005)


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(arguments):  # noqa: F811
    flags = {
        "max_train_steps": STEPS, "checkpointing_steps": 1, "checkpoints_total_limit": 2, "lily_dropout": 0.1,
        "random_flip": True, "use_ema": True, "resume_from_checkpoint": "latest",
    }  # fmt: skip
    whole = train(arguments("whole", **flags)).output_dir
    args = arguments("killed", **flags)
    killed, rng = Path(args.output_dir), random.Random(0)
    for number in range(KILLS):
        before = reached(killed)
        child = start(train, args)
        wait_for(lambda before=before: reached(killed) > before, child)
        saves = number % 2  # every other one is killed as soon as it begins to save
        if saves:
            wait_for(lambda: any(killed.glob(".checkpoint-*.writing")), child)
        time.sleep(rng.uniform(0, 0.02 if saves else 0.06))
        child.kill()
        child.join()
        for checkpoint in list_checkpoints(killed):
            read_progress(checkpoint), read_file(checkpoint / WEIGHT_NAME)
            for part in checkpoint.glob("*.pt"):
                torch.load(part, weights_only=True)
        assert len([path for path in killed.iterdir() if path.name.startswith(".checkpoint")]) <= 1
    assert reached(killed) < STEPS
    last = start(train, args)
    last.join()
    assert last.exitcode == 0
    assert same(weights(whole), weights(killed))
    assert losses(whole) == losses(killed)
    assert not [path for path in killed.rglob("*") if path.name.startswith(".")]
