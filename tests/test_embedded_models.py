"""The two models that ship here: what they weigh, what they draw, and that both kinds of training teach them."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
import torch

from benchmarks.measures import as_tensor, background_colours
from lily_diffusion.base_model import CALL_OPTIONS, FOLDERS, embedded_name, load_pipeline, resolve
from lily_diffusion.components import public_name
from lily_diffusion.training import parse_args, train

ROBOT = Path(__file__).parents[1] / "examples" / "subjects" / "robot"
both = pytest.mark.parametrize("name", FOLDERS)


@both
def test_names_and_weights(name):
    size = sum(file.stat().st_size for file in FOLDERS[name].rglob("*") if file.is_file())
    assert size <= 45e6
    assert not list(FOLDERS[name].rglob("*.bin")) and (FOLDERS[name] / "README.md").is_file()
    assert embedded_name(name) == embedded_name(resolve(name)) == public_name(resolve(name)) == name
    assert embedded_name("owner/model") is None


@both
def test_it_draws_on_the_background_that_is_asked_for(name):
    pipe = load_pipeline(name)
    pipe.set_progress_bar_config(disable=True)
    colours = ["red", "blue", "green"]
    prompts = [f"a cat on a {colour} background" for colour in colours]
    generator = [torch.Generator().manual_seed(seed) for seed in range(3)]
    drawn = pipe(prompts, num_inference_steps=8, generator=generator, **CALL_OPTIONS[name]).images
    assert background_colours(as_tensor(drawn)) == colours


@both
@pytest.mark.slow
def test_training_teaches_it_a_subject(name, tmp_path):
    """The loss of a picture that was held out falls, most of all where noise is strong and the words decide."""
    folders = {kind: tmp_path / kind for kind in ("learnt", "held_out")}
    files = sorted(ROBOT.iterdir())
    for kind, folder in folders.items():
        folder.mkdir()
        for file in files:
            if (file.stem == files[0].stem) == (kind == "held_out"):
                shutil.copy(file, folder)
    argv = [
        *("--pretrained_model_name_or_path", name, "--instance_data_dir", str(folders["learnt"])),
        *("--validation_data_dir", str(folders["held_out"]), "--output_dir", str(tmp_path / "out")),
        *("--max_train_steps", "30", "--validation_steps", "30", "--train_batch_size", "2", "--cache_latents"),
        *("--checkpointing_steps", "0", "--report_to", "none", "--seed", "0", "--instance_prompt", "a sks robot"),
        *(["--max_sequence_length", "1"] if name == "embedded-dit" else []),
    ]
    train(parse_args(argv))
    with (tmp_path / "out" / "loss.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["held_out_0.875"]]
    levels = [key for key in rows[0] if key.startswith("held_out")]
    assert [row["step"] for row in rows] == ["0", "30"]
    before, after = (sum(float(row[level]) for level in levels[1:]) for row in rows)
    print(name, [(row["step"], [row[level] for level in levels]) for row in rows])
    assert after < 0.9 * before
