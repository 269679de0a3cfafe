"""Several processes: the same numbers as one, and no process that waits for ever."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from lily_diffusion.training import TrainingError, train

from .tiny_pipelines import resolution, save_pipeline
from .training_base import arguments, base, pictures, weights  # noqa: F401

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "train_scripts" / "train_dreambooth_lily.py"
BREAKING = """
import sys
sys.path.insert(0, {folder!r})
from train_dreambooth_lily import main
from lily_diffusion.training import saving
from lily_diffusion.training.validation import Validation
def broken(*_, **__):
    raise OSError("no space left on device")
Validation.save = saving.save_checkpoint = broken
sys.exit(main())
"""


def launch(args, processes, script=SCRIPT):
    """Run the script with these arguments; if it takes too long, all of its processes are killed."""
    given = {name: value for name, value in vars(args).items() if value not in (None, False)}
    launcher = [f"--nproc_per_node={processes}", "--rdzv_backend=c10d", "--rdzv_endpoint=localhost:0"]
    flags = [f"--{name}" if value is True else f"--{name}={value}" for name, value in given.items()]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "torch.distributed.run", *launcher, str(script), *flags]
    running = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    try:
        said, _ = running.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)
        raise
    return running.returncode, said


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
    status, said = launch(args, 2)
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
    status, said = launch(args, 2)
    assert status == 0, said
    assert len(losses(args.output_dir)) == 4


@pytest.mark.slow
def test_saving_that_fails_on_the_main_process_stops_all_and_validation_none(arguments, tmp_path):  # noqa: F811
    script = tmp_path / "breaking.py"
    script.write_text(BREAKING.format(folder=str(SCRIPT.parent)))
    args = arguments(train_batch_size=1, max_train_steps=4, checkpointing_steps=2)
    args.validation_prompt = "a cat"
    status, said = launch(args, 2, script)
    assert status != 0
    assert "no validation picture (OSError: no space left on device); the run goes on" in said
    assert "the main process failed: OSError: no space left on device" in said
    assert len(losses(args.output_dir)) == 2


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_what_splits_tensors_is_refused_before_anything_is_loaded(arguments, monkeypatch, name):  # noqa: F811
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(TrainingError, match=f"{name} would split what layers share"):
        train(arguments(pretrained_model_name_or_path="nowhere"))
