"""What the command line means: defaults, lists, advice for flags of other programs, and uploads."""

from __future__ import annotations

import pytest

from lily_diffusion.training import model_card, parse_args
from lily_diffusion.training.checks import complete

pytest_plugins = ("tests.training_base",)  # its fixtures: base, pictures, arguments


def test_defaults_depend_on_the_base(arguments):
    small = complete(arguments(pretrained_model_name_or_path="embedded", resolution=None, learning_rate=None, rank=32))
    large = complete(arguments(resolution=None, learning_rate=None, max_train_steps=None, rank=32))
    assert (small.resolution, small.learning_rate, small.validation_guidance_scale) == (None, 1e-3, 3.0)
    assert (large.resolution, large.learning_rate, large.validation_guidance_scale) == (None, 1e-4, None)
    assert large.max_train_steps == 500


def test_targets_may_be_separated_by_commas_and_prompts_repeated():
    required = ["--pretrained_model_name_or_path", "x", "--instance_data_dir", "y"]
    args = parse_args([*required, "--target_modules", "to_q,to_k", "to_v", "--validation_prompt", "a", "b",
                       "--validation_prompt", "c"])  # fmt: skip
    assert complete(args).target_modules == ["to_q", "to_k", "to_v"]
    assert args.validation_prompt == ["a", "b", "c"]


def test_flags_of_other_scripts_get_advice_and_help_teaches(capsys):
    required = ["--pretrained_model_name_or_path", "x", "--instance_data_dir", "y"]
    with pytest.raises(SystemExit):
        parse_args([*required, "--ne_2", "3", "--lora_alpha=4"])
    err = capsys.readouterr().err
    assert "--ne_2: write --num_B" in err and "--lora_alpha: write --scaling" in err
    with pytest.raises(SystemExit):
        parse_args(["--help"])
    out = capsys.readouterr().out
    assert out.index("accelerate launch") < out.index("--stride_A") and "prior preservation" in out


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
