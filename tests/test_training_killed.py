"""A run that is killed again and again, also in the middle of saving, ends as if nothing had happened.

LILY_KILLS=20 python -m pytest tests/test_training_killed.py
"""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .training_base import arguments, base, pictures, same, weights  # noqa: F401

KILLS = int(os.environ.get("LILY_KILLS", 8))
STEPS = 4 * KILLS
# Imports once and forks a process for every attempt, so that an attempt costs the run alone. Nothing has been computed
# before the fork, so there are no threads to lose. Every other attempt is killed as soon as it begins to save.
ATTEMPTS = """
import os, random, signal, sys, time
from pathlib import Path
from lily_diffusion.save_and_load import WEIGHT_NAME, read_file
from lily_diffusion.training import parse_args, train
from lily_diffusion.training.checkpoints import list_checkpoints, read_progress, _read
kills, argv = int(sys.argv[1]), sys.argv[2:]
output, rng = Path(argv[argv.index("--output_dir") + 1]), random.Random(0)

def attempt():
    child = os.fork()
    if child == 0:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1), os.dup2(silence, 2)
        train(parse_args([*argv, "--resume_from_checkpoint", "latest"]))
        os._exit(0)
    return child

def steps():
    return [int(p.name.split("-")[1]) for p in list_checkpoints(output)]

def wait_for(condition, child):
    while not condition():
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the run ended before it could be killed"
        time.sleep(0.0005)

for number in range(kills):
    before = max(steps(), default=0)
    child = attempt()
    wait_for(lambda: max(steps(), default=0) > before, child)
    if number % 2:
        wait_for(lambda: any(output.glob(".checkpoint-*.writing")), child)
    time.sleep(rng.uniform(0, 0.02 if number % 2 else 0.06))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for checkpoint in list_checkpoints(output):
        read_progress(checkpoint), read_file(checkpoint / WEIGHT_NAME)
        for part in checkpoint.glob("*.pt"):
            _read(part)
    hidden = [p.name for p in output.iterdir() if p.name.startswith(".checkpoint")]
    print("killed after", max(steps()), hidden)
    assert len(hidden) <= 1, hidden
assert max(steps(), default=0) < int(argv[argv.index("--max_train_steps") + 1])
assert os.waitpid(attempt(), 0)[1] == 0
"""


def losses(folder: Path) -> dict[int, str]:
    with (folder / "loss.csv").open() as file:
        return {int(row["step"]): row["loss"] for row in csv.DictReader(file)}


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(arguments, tmp_path):  # noqa: F811
    flags = {
        "max_train_steps": STEPS, "checkpointing_steps": 1, "checkpoints_total_limit": 2, "lily_dropout": 0.1,
        "random_flip": True, "use_ema": True, "resume_from_checkpoint": "latest",
    }  # fmt: skip
    script, environment = tmp_path / "attempts.py", {**os.environ, "OMP_NUM_THREADS": "1"}
    script.write_text(ATTEMPTS)
    for name, kills in (("whole", 0), ("killed", KILLS)):
        given = {n: v for n, v in vars(arguments(name, **flags)).items() if v not in (None, False)}
        argv = [word for n, v in given.items() for word in ([f"--{n}"] if v is True else [f"--{n}", str(v)])]
        command = [sys.executable, str(script), str(kills), *argv]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
        assert ran.returncode == 0, ran.stdout + ran.stderr[-3000:]
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    assert losses(tmp_path / "whole") == losses(tmp_path / "killed")
    assert not [p for p in (tmp_path / "killed").rglob("*") if p.name.startswith(".")]
