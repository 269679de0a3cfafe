"""Stopping and going on: checkpoints are complete, and a resumed run ends as if it had never stopped."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch

from lily_diffusion.training import TrainingError, train
from lily_diffusion.training.checkpoints import list_checkpoints, random_states, set_random_states

from .forked import start
from .training_base import same, weights

pytest_plugins = ("tests.training_base",)  # its fixtures: base, pictures, arguments

LONG = {"lily_dropout": 0.3, "random_flip": True, "lr_scheduler": "cosine", "gradient_accumulation_steps": 2}


def names(args) -> list[str]:
    return [path.name for path in list_checkpoints(Path(args.output_dir))]


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_resumed_run_ends_with_the_same_bits(arguments, signal_number):
    whole = train(arguments("whole", max_train_steps=6, **LONG))

    def interrupt(report):
        if report.step == 3:
            os.kill(os.getpid(), signal_number)

    stopped = train(arguments("parts", max_train_steps=6, **LONG), on_step=interrupt)
    assert stopped.stopped_by == signal_number and stopped.steps == 3 and stopped.weights.exists()
    assert "--resume_from_checkpoint latest" in stopped.message
    torch.manual_seed(99)  # whatever happened in between
    resumed = train(arguments("parts", max_train_steps=6, resume_from_checkpoint="latest", seed=None, **LONG))
    assert resumed.steps == 6 and len(resumed.losses) == 3
    assert resumed.losses == whole.losses[3:]
    assert same(weights(whole.output_dir), weights(resumed.output_dir))


@pytest.mark.slow
def test_a_killed_process_can_be_resumed_to_the_same_bits(arguments):
    flags = {"max_train_steps": 16, "checkpointing_steps": 2, **LONG}
    whole = train(arguments("whole", **flags))
    args = arguments("killed", **flags)
    process = start(train, args)
    deadline = time.monotonic() + 60
    while "checkpoint-4" not in names(args) and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    reached = int(names(args)[-1].split("-")[1])
    assert 4 <= reached < 16
    resumed = train(arguments("killed", resume_from_checkpoint="latest", **flags))
    assert len(resumed.losses) == 16 - reached and resumed.losses == whole.losses[reached:]
    assert same(weights(whole.output_dir), weights(resumed.output_dir))


def test_only_so_many_checkpoints_are_kept(arguments):
    flags = {"checkpointing_steps": 2, "checkpoints_total_limit": 2}
    args = arguments(max_train_steps=6, **flags)
    train(args)
    assert names(args) == ["checkpoint-4", "checkpoint-6"]
    args = arguments(max_train_steps=9, resume_from_checkpoint="checkpoint-6", **flags)
    train(args)
    assert names(args) == ["checkpoint-8", "checkpoint-9"]
    assert not [p for p in Path(args.output_dir).iterdir() if p.name.startswith(".")]


def test_a_half_written_checkpoint_is_not_seen(arguments):
    args = arguments(checkpointing_steps=2)
    train(args)
    half = Path(args.output_dir) / "checkpoint-9"
    half.mkdir()
    assert names(args) == ["checkpoint-2", "checkpoint-4"]


def test_a_checkpoint_elsewhere_is_the_one_that_is_read(arguments):
    train(arguments("first", checkpointing_steps=2))
    other = arguments("second", resume_from_checkpoint=arguments("first").output_dir + "/checkpoint-2")
    resumed = train(other)
    assert len(resumed.losses) == 2
    assert same(weights(arguments("first").output_dir), weights(resumed.output_dir))


def test_a_checkpoint_that_is_not_the_newest_there_would_mix_two_runs(arguments, monkeypatch):
    args, other = arguments("first", checkpointing_steps=2), arguments("second", checkpointing_steps=2)
    train(args)
    train(other)
    older = Path(args.output_dir, "checkpoint-2")
    monkeypatch.chdir(older.parent)
    for name in ("checkpoint-2", "../first/checkpoint-2", str(older), f"{other.output_dir}/checkpoint-4"):
        with pytest.raises(TrainingError, match=r"is not the newest of .*; remove the newer ones"):
            train(arguments("first", resume_from_checkpoint=name))


def test_latest_without_a_checkpoint_starts_afresh(arguments):
    assert len(train(arguments(resume_from_checkpoint="latest")).losses) == 4


def test_a_watcher_can_stop_the_run(arguments):
    result = train(arguments(), on_step=lambda report: report.step == 2)
    assert result.stopped_by == -1 and result.steps == 2
    assert names(arguments()) == ["checkpoint-2"]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({}, "holds a run that got to checkpoint-4"),
        ({"resume_from_checkpoint": "checkpoint-3"}, "there is checkpoint-2, checkpoint-4"),
        ({"resume_from_checkpoint": "latest"}, "raise --max_train_steps"),
        ({"resume_from_checkpoint": "latest", "max_train_steps": 6, "seed": 5}, "--seed 1"),
        ({"resume_from_checkpoint": "latest", "max_train_steps": 6, "rank": 8}, "r=4"),
        ({"resume_from_checkpoint": "latest", "max_train_steps": 6, "learning_rate": 1e-3}, "--learning_rate 0.01"),
    ],
)
def test_what_cannot_be_resumed_is_said(arguments, flags, sentence):
    train(arguments(checkpointing_steps=2))
    with pytest.raises(TrainingError, match=sentence):
        train(arguments(checkpointing_steps=2, **flags))


def test_changed_pictures_are_noted(arguments, pictures, caplog):
    caplog.set_level("INFO")
    train(arguments(checkpointing_steps=2))
    (pictures / "red.txt").write_text("a red robot")
    train(arguments(resume_from_checkpoint="latest", max_train_steps=6))
    assert "changed since the checkpoint: pictures" in caplog.text


def test_random_states_come_back():
    import random

    import numpy as np

    before = random_states()
    drawn = random.random(), np.random.rand(), float(torch.rand(()))
    set_random_states(before)
    assert (random.random(), np.random.rand(), float(torch.rand(()))) == drawn


def test_a_stop_at_the_last_step_is_the_end(arguments):
    result = train(arguments(), on_step=lambda report: report.step == 4)
    assert result.stopped_by is None and "Use it:" in result.message


def test_training_leaves_the_random_numbers_of_the_process_alone(arguments):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(arguments())
    assert torch.equal(torch.rand(3), expected)
