"""Every mistake gets one sentence from the script: before anything is loaded, if possible, and nothing is written."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import shutil
import sys
import types
from pathlib import Path

import diffusers
import pytest
import torch
import transformers
from PIL import Image

from lily_diffusion import WEIGHT_NAME, base_model
from lily_diffusion.training import parse_args, train
from lily_diffusion.training.checks import complete

from .mistakes import ON_THE_LINE, WITH_THE_MODEL, WITHOUT_THE_MODEL
from .tiny_pipelines import resolution, save_pipeline
from .training_base import base, pictures  # noqa: F401

SCRIPTS = Path(__file__).parent.parent / "train_scripts"
LOADERS = (
    (base_model, "load_pipeline"),
    (diffusers.DiffusionPipeline, "from_pretrained"),
    (diffusers.ModelMixin, "from_pretrained"),
    (transformers.PreTrainedModel, "from_pretrained"),
    (transformers.PreTrainedTokenizerBase, "from_pretrained"),
)


@pytest.fixture(scope="module")
def finished(base, tmp_path_factory) -> Path:  # noqa: F811
    """The folder of a run of four steps, with its checkpoint."""
    folder = tmp_path_factory.mktemp("finished")
    Image.new("RGB", (16, 16)).save(folder / "a.png")
    flags = {"instance_data_dir": "TMP", "instance_prompt": "x", "output_dir": "TMP/run", "checkpointing_steps": 4}
    train(parse_args(command({"pretrained_model_name_or_path": base, **flags}, folder)))
    return folder / "run"


@pytest.fixture
def places(base, pictures, finished, tmp_path) -> Path:  # noqa: F811
    """A folder with everything that the rows name."""
    for name in ("empty", "bare", "broken", "cut", "other", "checkout"):
        (tmp_path / name).mkdir()
    (tmp_path / "base").symlink_to(base)
    for name in ("run", "no_optimizer", "no_weights"):
        shutil.copytree(finished, tmp_path / name)
    (tmp_path / "no_optimizer" / "checkpoint-4" / "optimizer.pt").unlink()
    (tmp_path / "no_weights" / "checkpoint-4" / WEIGHT_NAME).write_bytes(b"")
    Image.new("RGB", (16, 16)).save(tmp_path / "bare" / "a.png")
    picture = (pictures / "red.png").read_bytes()
    texts = {
        "file": "x", "broken/a.png": "x", "broken/a.txt": "x", "cut/a.txt": "x", "unknown.yaml": "rnak: 3",
        "other/model_index.json": '{"_class_name": "DDPMPipeline"}', "checkout/README.md": "# mine",
    }  # fmt: skip
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "cut" / "a.png").write_bytes(picture[: len(picture) // 2])
    return tmp_path


@pytest.fixture
def script(monkeypatch, capsys):
    """A function that runs the script and returns its status and all that it says on stderr."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setattr(importlib.import_module("logging"), "basicConfig", lambda **_: None)
    main = importlib.import_module("train_dreambooth_lily").main

    def run(argv: list[str]) -> tuple[int, str]:
        try:
            status = main(argv)
        except SystemExit as stopped:
            status = stopped.code
        return status, capsys.readouterr().err

    yield run
    sys.modules.pop("train_dreambooth_lily")


def command(flags: dict, folder: Path) -> list[str]:
    """The command line of a short run with these flags; TMP in them is the folder."""
    values = {
        "pretrained_model_name_or_path": "TMP/base", "instance_data_dir": "TMP/pictures", "output_dir": "TMP/out",
        "resolution": 16, "rank": 4, "max_train_steps": 4, "train_batch_size": 2, "learning_rate": 1e-2, "seed": 1,
        "report_to": "none", "checkpointing_steps": 0, **flags,
    }  # fmt: skip
    argv = []
    for name, value in values.items():
        if value is not None:
            texts = [] if value is True else value if isinstance(value, list) else [value]
            argv += [f"--{name}", *(str(text).replace("TMP", str(folder)) for text in texts)]
    return argv


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def check_refusal(script, argv, sentence, places):
    """The script says one line with the sentence, and every file is as before; returns what was said before that."""
    before = files(places)
    status, said = script(argv)
    *earlier, line = said.splitlines()
    assert status == 2 and line.startswith("error: "), said
    assert sentence in line.replace(str(places), "TMP")
    assert files(places) == before
    return earlier


@pytest.mark.parametrize(("flags", "sentence"), WITHOUT_THE_MODEL, ids=[row[1] for row in WITHOUT_THE_MODEL])
def test_a_mistake_has_its_sentence_before_anything_is_loaded(script, places, monkeypatch, flags, sentence):
    def refuse(*_, **__):
        raise AssertionError("something was loaded")

    for owner, name in LOADERS:
        monkeypatch.setattr(owner, name, refuse)
    assert not check_refusal(script, command(flags, places), sentence, places)


@pytest.mark.parametrize(("flags", "sentence"), WITH_THE_MODEL, ids=[row[1] for row in WITH_THE_MODEL])
def test_what_the_model_must_tell_is_refused_as_well(script, places, flags, sentence):
    if "flow" in flags:
        folder = save_pipeline("sana", places / "sana")
        flags = {**flags, "flow": None, "pretrained_model_name_or_path": folder, "resolution": resolution("sana")}
    earlier = check_refusal(script, command(flags, places), sentence, places)
    assert not [line for line in earlier if line.startswith(("error", "Traceback"))]  # loading says things, too


@pytest.mark.parametrize(("more", "sentence"), ON_THE_LINE, ids=[row[1] for row in ON_THE_LINE])
def test_the_parser_refuses_in_one_sentence_after_the_usage(script, places, more, sentence):
    before = files(places)
    more = [text.replace("TMP", str(places)) for text in more]
    status, said = script([*command({}, places), *more])
    usage, error = said.splitlines()
    assert status == 2 and usage.startswith("usage: ") and sentence in error.replace(str(places), "TMP")
    assert files(places) == before


def test_a_folder_that_nobody_may_write_to_is_refused(script, places, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != places / "empty")
    for folder in ("TMP/empty", "TMP/empty/deep/below"):
        sentence = f"--output_dir {folder} cannot be written to; name another, or change the permissions of TMP/empty"
        check_refusal(script, command({"output_dir": folder}, places), sentence, places)
    sentence = "--disk_cache_dir TMP/empty/new cannot be written to"
    check_refusal(script, command({"disk_cache_dir": "TMP/empty/new"}, places), sentence, places)
    readable = command({"disk_cache_dir": "TMP/empty"}, places)  # a cache that can only be read is one all the same
    assert complete(parse_args(readable)).disk_cache_dir == str(places / "empty")


@pytest.mark.parametrize(
    ("flag", "package", "sentence"),
    [
        (
            {"use_8bit_adam": True},
            "bitsandbytes",
            "--use_8bit_adam needs bitsandbytes, which is not installed: pip ins",
        ),
        ({"optimizer": "prodigy", "learning_rate": None}, "prodigyopt", "--optimizer prodigy needs prodigyopt, which"),
        ({"quantize_base": "int8"}, "torchao", "--quantize_base int8 needs torchao: pip install torchao"),
        ({"report_to": "wandb"}, "wandb", "--report_to wandb needs 'pip install wandb'; or take --report_to none"),
        (
            {"dataset_name": "x", "instance_data_dir": None},
            "datasets",
            "--dataset_name needs the package datasets",
        ),
    ],
)
def test_a_package_that_is_not_there_is_asked_for(script, places, monkeypatch, flag, package, sentence):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == package else find(name, *more))
    monkeypatch.setitem(sys.modules, package, None)
    check_refusal(script, command(flag, places), sentence, places)


def test_what_needs_a_gpu_says_so_without_one(script, places, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for flags, sentence in (
        ({"quantize_base": "nf4"}, "--quantize_base nf4 needs a GPU; on the CPU take int8"),
        ({"mixed_precision": "fp16"}, "--mixed_precision fp16 needs a GPU; on the CPU take bf16 or no"),
    ):
        check_refusal(script, command(flags, places), sentence, places)


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_what_would_split_the_adapter_is_refused(script, places, monkeypatch, name):
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    check_refusal(script, command({}, places), f"{name} would split what layers share", places)


def test_a_secret_is_not_published(script, places, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", types.ModuleType("wandb"))
    sys.modules["wandb"].__spec__ = importlib.machinery.ModuleSpec("wandb", None)
    flags = {"report_to": "wandb", "hub_token": "secret", "push_to_hub": True}
    check_refusal(script, command(flags, places), "--report_to wandb would publish --hub_token", places)
