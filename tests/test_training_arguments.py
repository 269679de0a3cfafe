"""Every mistake on the command line gets one sentence, before anything is loaded or written."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from lily_diffusion.training import TrainingError, model_card, parse_args, train
from lily_diffusion.training.checks import complete

pytest_plugins = ("tests.training_base",)  # its fixtures: base, pictures, arguments


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"class_prompt": "a dog"}, "class_prompt does nothing without --with_prior_preservation"),
        ({"num_class_images": 5}, "num_class_images does nothing"),
        ({"with_prior_preservation": True}, "needs --class_data_dir"),
        ({"with_prior_preservation": True, "class_data_dir": "x"}, "needs --class_prompt"),
        ({"report_to": "wandb", "hub_token": "secret", "push_to_hub": True}, "wandb"),
        ({"report_to": "comet"}, "--report_to comet is unknown"),
        ({"hub_model_id": "me/it"}, "does nothing without --push_to_hub"),
        ({"resolution": 0}, "--resolution must be 1 or more"),
        ({"train_batch_size": 0}, "--train_batch_size"),
        ({"learning_rate": 0}, "--learning_rate must be more than 0"),
        ({"learning_rate": "nan"}, "--learning_rate must be more than 0"),
        ({"snr_gamma": -1}, "--snr_gamma"),
        ({"adam_beta1": 1}, "--adam_beta1"),
        ({"lr_warmup_steps": 5}, "constant has no warm-up"),
        ({"lr_scheduler": "piecewise_constant"}, "need each other"),
        ({"validation_steps": 5}, "without --validation_prompt"),
        ({"validation_prompt": "x", "validation_steps": 5, "validation_epochs": 5}, "not both"),
    ],
)
def test_contradictions_are_refused(arguments, flags, sentence):
    with pytest.raises(TrainingError, match=sentence):
        complete(arguments(**flags))


def test_8_bit_adamw_asks_for_its_package(arguments, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(TrainingError, match="bitsandbytes, which is not installed"):
        complete(arguments(use_8bit_adam=True))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"resolution": 17}, "--resolution 17 is not a multiple of 2"),
        ({"rank": 0}, "r must be"),
        ({"rank": 99}, "r=99 is more than"),
        ({"target_modules": ["to_q", "to_nothing"]}, "to_nothing"),
        ({"mixed_precision": "fp16"}, "needs a GPU"),
        ({"lr_scheduler": "linear", "lr_warmup_steps": 4}, "leaves none of 4 steps"),
        ({"pretrained_model_name_or_path": "/nowhere"}, "cannot load the base model '/nowhere'"),
        ({"resume_from_checkpoint": "checkpoint-7"}, "is not a checkpoint"),
    ],
)
def test_what_shows_later_is_refused_too_and_nothing_is_saved(arguments, flags, sentence):
    args = arguments(**flags)
    with pytest.raises(TrainingError, match=sentence):
        train(args)
    assert not list(Path(args.output_dir).glob("*"))


def test_folders_that_cannot_be_right_are_refused(arguments, pictures, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for flags, sentence in (
        ({"output_dir": tmp_path / "file"}, "is a file"),
        ({"output_dir": pictures}, "same folder"),
        ({"instance_data_dir": tmp_path / "empty"}, "holds no picture"),
        ({"with_prior_preservation": True, "class_data_dir": pictures, "class_prompt": "x"}, "same folder"),
    ):
        with pytest.raises(TrainingError, match=sentence):
            train(arguments(**flags))


def test_defaults_depend_on_the_base(arguments):
    small = complete(arguments(pretrained_model_name_or_path="embedded", resolution=None, learning_rate=None))
    large = complete(arguments(resolution=None, learning_rate=None, max_train_steps=None))
    assert (small.resolution, small.learning_rate) == (64, 1e-3)
    assert (large.resolution, large.learning_rate, large.max_train_steps) == (None, 1e-4, 500)


def test_targets_may_be_separated_by_commas_and_prompts_repeated():
    required = ["--pretrained_model_name_or_path", "x", "--instance_data_dir", "y"]
    args = parse_args([*required, "--target_modules", "to_q,to_k", "to_v", "--validation_prompt", "a", "b",
                       "--validation_prompt", "c"])  # fmt: skip
    assert complete(args).target_modules == ["to_q", "to_k", "to_v"]
    assert args.validation_prompt == ["a", "b", "c"]


def test_flags_of_other_scripts_get_advice_and_help_teaches(capsys):
    required = ["--pretrained_model_name_or_path", "x", "--instance_data_dir", "y"]
    with pytest.raises(SystemExit):
        parse_args([*required, "--train_text_encoder", "--lora_alpha", "4"])
    err = capsys.readouterr().err
    assert "only the denoiser is adapted" in err and "--scaling" in err
    with pytest.raises(SystemExit):
        parse_args(["--help"])
    out = capsys.readouterr().out
    assert out.index("accelerate launch") < out.index("--stride_A") and "prior preservation" in out


def test_the_script_ends_with_one_line_and_a_status(arguments, capsys, monkeypatch):
    root = Path(__file__).parent.parent
    monkeypatch.syspath_prepend(str(root / "train_scripts"))
    script = importlib.import_module("train_dreambooth_lily")
    status = script.main(["--pretrained_model_name_or_path", "/nowhere", "--instance_data_dir", "/nowhere"])
    captured = capsys.readouterr()
    assert status == 2 and captured.err.startswith("error: there is no folder /nowhere")
    assert captured.err.count("\n") == 1
    sys.modules.pop("train_dreambooth_lily")


def test_an_upload_that_fails_is_told_politely(tmp_path, monkeypatch):
    import huggingface_hub

    class Offline:
        def __init__(self, token=None): ...

        def create_repo(self, *args, **kwargs):
            raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "HfApi", Offline)
    told = model_card.push_to_hub(tmp_path, "me/it", None)
    assert "no network" in told and "hf upload me/it" in told and str(tmp_path) in told


def test_an_upload_takes_the_folder_without_checkpoints(tmp_path, monkeypatch):
    import types

    import huggingface_hub

    seen = {}

    class Hub:
        def __init__(self, token=None):
            seen["token"] = token

        def create_repo(self, name, exist_ok):
            return types.SimpleNamespace(repo_id=f"me/{name}")

        def upload_folder(self, **kwargs):
            seen.update(kwargs)

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    assert "uploaded" in model_card.push_to_hub(tmp_path, "it", "t")
    assert seen["repo_id"] == "me/it" and "checkpoint-*/**" in seen["ignore_patterns"]
