"""run.yaml: read as the command line is, refused in its words, and a run that is repeated from it is the same run."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import yaml

from lily_diffusion.training import TrainingError, config_file, train
from lily_diffusion.training.arguments import build_parser
from lily_diffusion.training.checks import complete
from lily_diffusion.training.config_file import parse_with_config, read_config, version_notes, write_config

from .training_base import same, weights

pytest_plugins = ("tests.training_base",)  # its fixtures: base, pictures, arguments

NEEDED = ["--pretrained_model_name_or_path", "embedded", "--instance_data_dir", "x"]


@pytest.fixture
def parser():
    """A parser with every kind of flag that there is."""
    parser = argparse.ArgumentParser("program")
    add = parser.add_argument
    add("--config")
    add("--name", required=True)
    add("--rank", type=int, default=4)
    add("--rate", type=float)
    add("--kind", choices=("no", "bf16"), default="no")
    add("--optimizer", type=str.lower, choices=("adamw", "lion"), default="AdamW")
    add("--targets", nargs="+")
    add("--prompt", nargs="+", action="extend")
    add("--numbers", nargs="+", type=int)
    add("--flip", action="store_true")
    add("--decouple", action=argparse.BooleanOptionalAction)
    return parser


@pytest.fixture
def file(tmp_path):
    """A function that writes a file and returns its path."""

    def write(text: str) -> Path:
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return path

    return write


def test_values_are_read_as_on_the_command_line(parser, file):
    text = """
        name: 1.10            # a text, as it is written
        rank: 16
        rate: 1e-4            # YAML itself would take this for a text
        kind: no              # and this for false
        optimizer: LION
        targets: [to_q, to_k]
        prompt: ["a: b", "yes"]
        numbers: 7
        flip: true
        decouple: false
        versions: {torch: 1.0}
    """
    path = file("\n".join(line.strip() for line in text.splitlines()))
    expected = {
        "name": "1.10", "rank": 16, "rate": 1e-4, "kind": "no", "optimizer": "lion", "targets": ["to_q", "to_k"],
        "prompt": ["a: b", "yes"], "numbers": [7], "flip": True, "decouple": False,
    }  # fmt: skip
    assert read_config(path, parser) == expected
    line = ["--name", "1.10", "--rank", "16", "--rate", "1e-4", "--kind", "no", "--optimizer", "LION", "--targets",
            "to_q", "to_k", "--prompt", "a: b", "yes", "--numbers", "7", "--flip", "--no-decouple"]  # fmt: skip
    from_line, from_file = vars(parser.parse_args(line)), vars(parse_with_config(parser, ["--config", str(path)]))
    assert {**from_line, "config": str(path)} == from_file
    assert read_config(file(""), parser) == {}


def test_the_command_line_wins_and_lists_are_replaced(parser, file):
    path = file("name: a\nrank: 16\nflip: true\ndecouple: true\nprompt: [one]\nrate: 0.5\n")
    args = parse_with_config(
        parser, ["--rank=4", "--prompt", "two", "--prompt", "three", "--no-decouple", "--config", str(path)]
    )
    assert (args.rank, args.prompt, args.decouple) == (4, ["two", "three"], False)  # 4 is also the parser's default
    assert (args.name, args.flip, args.rate, args.kind) == ("a", True, 0.5, "no")
    assert parse_with_config(parser, ["--config", str(path)]).prompt == ["one"]
    assert parse_with_config(parser, ["--name", "b"]).rank == 4


def test_what_is_required_may_come_from_either(parser, file, capsys):
    path = str(file("rank: 2"))
    with pytest.raises(SystemExit):
        parse_with_config(parser, ["--config", path])
    assert "required: --name" in capsys.readouterr().err
    assert parse_with_config(parser, ["--config", str(file("name: a"))]).name == "a"
    with pytest.raises(SystemExit):
        parser.parse_args([])  # and the parser is as it was
    assert "required: --name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("rnak: 3", r"there is no flag --rnak \(line 1\); did you mean --rank \?"),
        ("name: a\nzzzzzz: 3", r"there is no flag --zzzzzz \(line 2\)$"),
        ("config: other.yaml", "there is no flag --config"),
        ("help: true", "there is no flag --help"),
        ("rank: many", r"argument --rank: invalid int value: 'many' \(line 1\)"),
        ("rank: 2.0", "argument --rank: invalid int value: '2.0'"),
        ("rank: true", "argument --rank: invalid int value: 'true'"),
        ("rate: fast", "argument --rate: invalid float value: 'fast'"),
        ("kind: fp8", r"argument --kind: invalid choice: 'fp8' \(choose from 'no', 'bf16'\)"),
        ("optimizer: sgd", "argument --optimizer: invalid choice: 'sgd'"),
        ("numbers: [1, x]", "argument --numbers: invalid int value: 'x'"),
        ("numbers: []", "argument --numbers: expected at least one argument"),
        ("rank: [1]", "argument --rank: expected one argument, not a list"),
        ("rank: {a: 1}", "argument --rank: settings are not nested"),
        ("targets: [[a]]", "argument --targets: settings are not nested"),
        ("flip: {a: 1}", "argument --flip: must be true or false"),
        ("flip: 1", "argument --flip: must be true or false"),
        ("flip: 'true'", "argument --flip: must be true or false"),
        ("name:", "argument --name: has no value; leave the line out"),
        ("name: ~", "argument --name: has no value"),
        ("rank: 1\nrank: 2", "has rank twice"),
        ("- rank", "must map names of flags to values"),
        ("just words", "must map names of flags to values"),
        ("rank: [1", "is not YAML: "),
    ],
)
def test_mistakes_in_the_file_have_their_sentence(parser, file, text, sentence):
    with pytest.raises(TrainingError, match=sentence):
        read_config(file(text), parser)


def test_a_mistake_in_the_file_ends_the_program_as_one_on_the_line_does(parser, file, tmp_path, capsys):
    for argv, sentence in (
        (["--config", str(file("rank: x"))], "invalid int value: 'x'"),
        (["--config", str(tmp_path / "nowhere.yaml")], "nowhere.yaml cannot be read: No such file"),
        (["--config", str(tmp_path)], "cannot be read: Is a directory"),
        (["--name", "a", "--config"], "expected one argument"),
    ):
        with pytest.raises(SystemExit) as stopped:
            parse_with_config(parser, argv)
        assert stopped.value.code == 2
        assert sentence in capsys.readouterr().err


def test_flags_of_other_scripts_get_advice_in_the_file_too(file, capsys):
    with pytest.raises(SystemExit):
        parse_with_config(build_parser(), ["--config", str(file("lora_alpha: 4"))])
    assert "write --scaling" in capsys.readouterr().err


def test_only_what_is_not_a_default_is_written_and_no_token(tmp_path):
    argv = [
        *NEEDED, "--output_dir", "some/where", "--rank", "8", "--center_crop", "--target_modules", "to_q,to_k", "to_v",
        "--max_grad_norm", "inf", "--push_to_hub", "--hub_token", "secret", "--optimizer", "AdamW", "--stride_A", "4",
        "--resume_from_checkpoint", "latest", "--mixed_precision", "no", "--instance_prompt", "größer: no",
    ]  # fmt: skip
    args = complete(build_parser().parse_args(argv))
    path = write_config(args, tmp_path, build_parser(), seed=7)
    assert path == tmp_path / "run.yaml" and [p.name for p in tmp_path.iterdir()] == ["run.yaml"]
    text = path.read_text()
    assert "secret" not in text and text.startswith("# The settings of this run")
    written = yaml.safe_load(text)
    assert written.pop("versions") == config_file.versions()
    assert written == {
        "pretrained_model_name_or_path": "embedded", "instance_data_dir": "x", "instance_prompt": "größer: no",
        "center_crop": True, "rank": 8, "target_modules": ["to_q", "to_k", "to_v"], "max_train_steps": 500,
        "mixed_precision": "no", "seed": 7, "learning_rate": 0.002, "max_grad_norm": "inf", "output_dir": "some/where",
        "push_to_hub": True,
    }  # fmt: skip
    again = complete(parse_with_config(build_parser(), ["--config", str(path)]))
    left_out = {"config": str(path), "hub_token": None, "resume_from_checkpoint": None}
    assert vars(again) == {**vars(args), "seed": 7, **left_out}


@pytest.mark.parametrize(
    "argv",
    [
        ["--validation_prompt", "a", "b: c", "--num_validation_images", "2", "--validation_steps", "5"],
        ["--optimizer", "prodigy", "--prodigy_beta3", "0.9", "--no-prodigy_decouple"],
        ["--with_prior_preservation", "--class_data_dir", "y", "--class_prompt", "no", "--prior_loss_weight", "0.5"],
        ["--num_train_epochs", "3", "--use_ema", "--ema_decay", "0.99", "--learning_rate", "1e-5", "--rank", "5"],
        ["--num_train_epochs", "3", "--max_train_steps", "500", "--report_to", "none", "--caption_dropout", "0.1"],
        ["--lr_scheduler", "piecewise_constant", "--lr_step_rules", "1:10,0.1:20,0.01", "--adam_epsilon", "1e-07"],
    ],
)
def test_what_is_written_is_read_back_and_still_accepted(argv, tmp_path):
    args = complete(build_parser().parse_args([*NEEDED, *argv]))
    path = write_config(args, tmp_path, build_parser(), seed=3)
    again = complete(parse_with_config(build_parser(), ["--config", str(path)]))
    assert vars(again) == {**vars(args), "seed": 3, "config": str(path)}
    assert {"rank", "target_modules", "learning_rate"} < yaml.safe_load(path.read_text()).keys()  # defaults may change
    second = write_config(again, tmp_path, build_parser())
    assert second.read_text() == path.read_text()


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    args = complete(build_parser().parse_args(NEEDED))
    path = write_config(args, tmp_path, build_parser(), seed=1)
    before = path.read_text()

    def broken(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(config_file.os, "replace", broken)
    with pytest.raises(OSError, match="disk is full"):
        write_config(args, tmp_path, build_parser(), seed=2)
    assert path.read_text() == before


def test_other_versions_are_told(file):
    now = config_file.versions()
    path = file(f"rank: 3\nversions: {{torch: 1.0.1, python: '{now['python']}', other: 3}}\n")
    assert version_notes(path) == [f"{path} was made with torch 1.0.1, and this is {now['torch']}; the run may differ"]
    assert version_notes(file("rank: 3")) == []
    with pytest.raises(TrainingError, match=r"versions must map names of packages to versions \(line 1\)"):
        version_notes(file("versions: 3"))
    assert {"lily_diffusion", "torch", "diffusers", "transformers", "accelerate", "python"} == now.keys()


def test_a_run_repeated_from_its_file_is_the_same_run(arguments, tmp_path):
    args = arguments("one", seed=None, random_flip=True, lily_dropout=0.1, learning_rate=3e-3, max_train_steps=3)
    first = train(args)
    path = first.output_dir / "run.yaml"
    argv = ["--config", str(path), "--output_dir", str(tmp_path / "two")]
    second = train(parse_with_config(build_parser(), argv))
    assert second.losses == first.losses
    assert same(weights(second.output_dir), weights(first.output_dir))
    assert version_notes(path) == []


def test_precision_from_accelerates_own_settings_is_one_of_the_runs(arguments, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    result = train(arguments())
    assert "mixed_precision: bf16" in (result.output_dir / "run.yaml").read_text()
