"""Several processes: the same numbers as one, and no process that waits for ever."""

from __future__ import annotations

import csv
import os
import runpy
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from lily_diffusion.training import TrainingError, saving, train
from lily_diffusion.training.validation import Validation

from .forked import start
from .tiny_pipelines import resolution, save_pipeline
from .training_base import arguments, base, pictures, weights  # noqa: F401

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "train_scripts" / "train_dreambooth_lily.py"


def flags_of(args) -> list[str]:
    given = {name: value for name, value in vars(args).items() if value not in (None, False)}
    flags = []
    for name, value in given.items():
        texts = [] if value is True else value if isinstance(value, list) else [value]
        flags += [f"--{name}", *map(str, texts)]
    return flags


def launch(args) -> tuple[int, str]:
    """The script in two processes by PyTorch's launcher: (exit status, what they said)."""
    launcher = ["--nproc_per_node=2", "--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "torch.distributed.run", *launcher, str(SCRIPT), *flags_of(args)]
    running = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        said, _ = running.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)
        raise
    return running.returncode, said


def fork(args, first=None) -> tuple[int, str]:
    """The same as a launcher would start them, but faster; each calls `first` before. Nobody stops one for another."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    common = {"ACCELERATE_USE_CPU": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    said = Path(args.output_dir).with_suffix(".said")
    ranks = [
        start(script, flags_of(args), first, said=said, RANK=rank, LOCAL_RANK=rank, **common) for rank in ("0", "1")
    ]
    for process in ranks:
        process.join(120)
    waiting = [process for process in ranks if process.is_alive()]
    for process in waiting:
        process.kill()
    assert not waiting, said.read_text()
    return max(abs(process.exitcode) for process in ranks), said.read_text()


def script(flags, first) -> None:
    if first is not None:
        first()
    sys.argv = [str(SCRIPT), *flags]
    runpy.run_path(str(SCRIPT), run_name="__main__")


def break_saving() -> None:
    def broken(*_, **__):
        raise OSError("no space left on device")

    Validation.save = saving.save_checkpoint = broken


def losses(folder) -> list[float]:
    with (Path(folder) / "loss.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["stable_diffusion", "qwen_image"])
def test_two_processes_make_the_steps_of_one_with_the_batch_of_both(arguments, tmp_path, family):  # noqa: F811
    """One trains its text encoder too, outside of what DDP wraps; the other leaves projections unused."""
    folder = save_pipeline(family, tmp_path / "base")
    flags = {
        "train_text_encoder": family == "stable_diffusion",
        "pretrained_model_name_or_path": folder, "resolution": resolution(family), "gradient_accumulation_steps": 2,
        "lr_scheduler": "cosine", "lr_warmup_steps": 1, "max_train_steps": 6,
    }  # fmt: skip
    one = train(arguments("one", train_batch_size=2, **flags))
    args = arguments("two", train_batch_size=1, **flags)
    status, said = launch(args) if family == "stable_diffusion" else fork(args)
    assert status == 0, said
    assert losses(args.output_dir) == pytest.approx(losses(one.output_dir), rel=1e-4)
    a, b = weights(one.output_dir), weights(Path(args.output_dir))
    assert all(torch.allclose(a[key], b[key], atol=1e-4) for key in a)


@pytest.mark.slow
def test_processes_whose_batches_have_different_shapes_do_not_wait_for_each_other(arguments, tmp_path, pictures):  # noqa: F811
    """The model has buffers, which DDP would send round at every forward pass: one process makes two, one makes one."""
    for colour in ("black", "white"):
        Image.new("RGB", (32, 16), colour).save(pictures / f"{colour}.png")
    flags = {
        "pretrained_model_name_or_path": save_pipeline("pixart", tmp_path / "base"), "use_aspect_ratio_buckets": True,
        "resolution": resolution("pixart"), "train_batch_size": 2, "max_train_steps": 4, "instance_prompt": "a robot",
        "quantize_base": "int8",
    }  # fmt: skip
    args = arguments("two", **flags)
    status, said = fork(args)
    assert status == 0, said
    assert len(losses(args.output_dir)) == 4


@pytest.mark.slow
def test_saving_that_fails_on_the_main_process_stops_all_and_validation_none(arguments):  # noqa: F811
    args = arguments(train_batch_size=1, max_train_steps=4, checkpointing_steps=2)
    args.validation_prompt = "a cat"
    status, said = fork(args, break_saving)
    assert status != 0
    assert "no validation picture (OSError: no space left on device); the run goes on" in said
    assert "the main process failed: OSError: no space left on device" in said
    assert len(losses(args.output_dir)) == 2


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_what_splits_tensors_is_refused_before_anything_is_loaded(arguments, monkeypatch, name):  # noqa: F811
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(TrainingError, match=f"{name} would split what layers share"):
        train(arguments(pretrained_model_name_or_path="nowhere"))
