"""The demo: learn a robot and a teddy bear from five pictures each, then draw both with every weight and blended."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from . import base_model
from .grid import labelled_grid
from .loaders import load_lily_weights
from .save_and_load import WEIGHT_NAME
from .switches import disable_lily, enable_lily, set_adapters

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "train_scripts" / "train_dreambooth_lily.py"
EXAMPLES = ROOT / "examples" / "subjects"
SUBJECTS = ("robot", "teddy_bear")  # folders of EXAMPLES, and the adapters' names
TRAINING = {
    "max_train_steps": 200,
    "train_batch_size": 4,
    "rank": 16,
    "stride_A": 4,
    "num_B": 4,
    "scaling": 2.0,
    "learning_rate": 1.4e-3,
    "seed": 0,
}
PROMPTS = (
    "a sks robot on a teal background",
    "a sks robot on a yellow background",
    "a zwx bear on a blue background",
    "a cat on a red background",
)
COLUMNS: dict[str, dict[str, float]] = {
    "base": {},
    "robot at 0.5": {"robot": 0.5},
    "robot at 1.0": {"robot": 1.0},
    "robot at 0.6 and bear at 0.9": {"robot": 0.6, "teddy_bear": 0.9},
}
STEPS, GUIDANCE, SEED = 25, 3.0, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Train both adapters, draw the sheet, and say what was made.

    Raises:
        ValueError: this is no source checkout, accelerate is missing, or training failed.
    """
    parser = argparse.ArgumentParser("lily-diffusion demo", description=__doc__)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/demo"), help="(default: outputs/demo)")
    parser.add_argument("--max_train_steps", type=int, default=TRAINING["max_train_steps"], help="for each subject")
    args = parser.parse_args(argv)
    _check_installation()
    started = time.monotonic()
    files = {}
    for subject in SUBJECTS:
        print(f"\nLearning {subject.replace('_', ' ')} from examples/subjects/{subject} ...", flush=True)
        files[subject] = _learn(subject, args.output_dir, args.max_train_steps)
    learned = time.monotonic()
    sheet = _draw(files)
    picture = args.output_dir / "demo.png"
    sheet.save(picture)
    _report(picture, files, learned - started, time.monotonic() - learned)
    return 0


def _check_installation() -> None:
    missing = [path for path in (SCRIPT, *(EXAMPLES / subject for subject in SUBJECTS)) if not path.exists()]
    if missing:
        raise ValueError(f"the demo runs in a source checkout, and there is no {missing[0]}.")
    if importlib.util.find_spec("accelerate") is None:
        raise ValueError("the demo trains with accelerate, which is not installed: pip install 'lily-diffusion[train]'")


def _learn(subject: str, output_dir: Path, steps: int) -> Path:
    """Run the training program as a user would, and return the adapter's file."""
    output_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output_dir, prefix=f".{subject}-") as folder:  # what is there stays
        _train(subject, folder, steps)
        return (Path(folder) / WEIGHT_NAME).replace(output_dir / f"{subject}.safetensors")  # all that the demo needs


def _train(subject: str, folder: str, steps: int) -> None:
    settings = {**TRAINING, "max_train_steps": steps}
    command = [
        *(sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1"),
        *("--dynamo_backend", "no", "--mixed_precision", _precision()),
        *("--num_cpu_threads_per_process", str(_threads())),
        *(() if torch.cuda.is_available() else ("--cpu",)),
        *(str(SCRIPT), "--pretrained_model_name_or_path", "embedded"),
        *("--instance_data_dir", str(EXAMPLES / subject), "--output_dir", folder),
        *("--cache_latents", "--checkpointing_steps", "0", "--report_to", "none"),
        *(text for name, value in settings.items() for text in (f"--{name}", str(value))),
    ]
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "DIFFUSERS_VERBOSITY": "error"}
    code = subprocess.run(command, check=False, env={**quiet, **os.environ}).returncode
    if code:
        raise ValueError(
            f"training on examples/subjects/{subject} ended with code {code}; its last lines above say why."
        )


def _precision() -> str:
    """bf16 is several times faster where the processor multiplies it, and slower where it does not."""
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "no"
    return "bf16" if getattr(torch.cpu, "_is_avx512_bf16_supported", bool)() else "no"


def _threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS", 0)) or torch.get_num_threads()


def _draw(files: dict[str, Path]) -> Image.Image:
    pipe = base_model.load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    pipe.to("cuda" if torch.cuda.is_available() else "cpu")
    for name, file in files.items():
        load_lily_weights(pipe, file, name)
    print(flush=True)
    columns = [_column(pipe, weights) for weights in tqdm(COLUMNS.values(), desc="Drawing", unit="column")]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return labelled_grid(rows, PROMPTS, list(COLUMNS), title="One base model, two adapters of five pictures each")


def _column(pipe: Any, weights: dict[str, float]) -> list[Image.Image]:
    """All prompts with these adapters, each from the same noise in every column."""
    if weights:
        enable_lily(pipe)
        set_adapters(pipe, list(weights), list(weights.values()))
    else:
        disable_lily(pipe)
    generators = [torch.Generator("cpu").manual_seed(SEED + i) for i in range(len(PROMPTS))]
    return pipe(list(PROMPTS), num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=generators).images


def _report(picture: Path, files: dict[str, Path], training: float, drawing: float) -> None:
    print(f"\nMade in {training + drawing:.0f} seconds ({training:.0f} of them training):")
    print(f"  {picture}  the prompts down, the adapters' weights across")
    for file in files.values():
        print(f"  {file}  {file.stat().st_size / 1e6:.1f} MB")
    robot, bear = files.values()
    command = "lily-diffusion"
    if shutil.which(command) is None:  # the virtual environment that `make` fills is not active
        command = os.path.relpath(Path(sys.executable).parent / command)
    prompt = '"two sks robot on a pink background"'
    print("\nTry next:")
    print(f"  {command} generate --adapter {robot}:0.8 --prompt {prompt} --num_images 4")
    print(f"  {command} inspect {bear}")
    print("  make ui")
