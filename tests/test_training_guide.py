"""docs/training.md is true of the command line: its flags exist, none is missing, and its commands are accepted."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from lily_diffusion import base_model
from lily_diffusion.training import parse_args, train
from lily_diffusion.training.arguments import build_parser
from lily_diffusion.training.checks import complete

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "training.md").read_text()
COMMANDS = [shlex.split(block.replace("\\\n", " "))[3:] for block in re.findall(r"```bash\n(.*?)```", GUIDE, re.S)]
FLAGS = {flag for action in build_parser()._actions for flag in action.option_strings if flag.startswith("--")}


def test_every_flag_is_in_the_guide_and_every_flag_in_the_guide_exists():
    before, coming, _, after = re.split(r"^## (Coming from diffusers.*?)^## (What has)", GUIDE, flags=re.M | re.S)
    here = [line.rsplit(" | ", 1)[-1] for line in coming.splitlines() if line.startswith("|")]  # of the tables
    named = set(re.findall(r"--[a-zA-Z]\w+", "\n".join([before, *here, after])))
    assert named - FLAGS == {"--num_processes"}  # accelerate's
    without = {flag for flag in FLAGS if not flag.startswith("--no-")} - {"--help"}
    assert without - named == set()


@pytest.mark.parametrize("argv", COMMANDS, ids=[argv[1] for argv in COMMANDS])
def test_every_command_in_the_guide_is_accepted(argv, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.chdir(tmp_path)
    args = complete(parse_args(argv))
    assert args.max_train_steps in (300, 800) and args.validation_prompt


@pytest.mark.parametrize("name", base_model.FOLDERS)
def test_what_needs_no_download_is_rehearsed(name, monkeypatch, tmp_path):
    (argv,) = [argv for argv in COMMANDS if argv[1] == name]
    monkeypatch.chdir(ROOT)
    result = train(parse_args([*argv, "--output_dir", str(tmp_path / "out"), "--train_batch_size", "1", "--dry_run"]))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["first_batch.png"]
    assert f"Base model    {name}" in result.message and "300, that is 60.0 times every picture" in result.message
