"""The command line, called as a person does; the embedded model is the one that draws, with few steps."""

import functools
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from lily_diffusion import LilyConfig, attach, base_model, cli, demo, save_lily_weights
from lily_diffusion.generate import parse_adapters
from lily_diffusion.training import parse_args as parse_training_args
from ui.keeping.recipe import read_png

PROMPT = "a cat on a red background"


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """Two adapter files for the embedded model; their experts are random, so that they show."""
    folder, files = tmp_path_factory.mktemp("adapters"), []
    for seed, name in enumerate(("robot", "bear")):
        unet = base_model.load_pipeline().unet
        torch.manual_seed(seed)
        adapter = attach(unet, LilyConfig(r=8, stride_A=2, num_B=2))
        for parameter in adapter.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        facts = {"trigger_words": [f"sks {name}"], "metadata": {"steps": "3", "note": "plain \x1b[31mred"}}
        files.append(save_lily_weights(unet, folder, weight_name=f"{name}.safetensors", base_model="embedded", **facts))
    return files


def run(capsys, *argv):
    """(exit code, stdout, stderr) of one call."""
    code = cli.main([str(arg) for arg in argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def draw(capsys, folder, *argv):
    """Draw with two steps and return the files named on stdout."""
    code, out, err = run(capsys, "generate", "--steps", 2, "--output_dir", folder, *argv)
    assert code == 0, err
    return out.split()


def pixels(file):
    with Image.open(file) as image:
        return np.array(image).astype(int)


def test_generate_draws_every_prompt_and_every_seed_and_a_grid(tmp_path, capsys):
    files = draw(capsys, tmp_path, "--prompt", PROMPT, "--prompt", "two dogs", "--num_images", 2, "--seed", 5)
    assert [file.rsplit("/")[-1] for file in files] == [
        *("00001-5.png", "00002-6.png", "00003-5.png", "00004-6.png", "00005-grid.png")
    ]
    assert pixels(files[0]).shape == (64, 64, 3)
    assert (pixels(files[0]) != pixels(files[1])).any()


def test_every_picture_carries_its_recipe_and_none_is_overwritten(tmp_path, capsys, adapters):
    argv = ("--prompt", PROMPT, "--seed", 9, "--negative_prompt", "grey", "--adapter", f"{adapters[0]}:0.5")
    (first,), (second,) = draw(capsys, tmp_path, *argv), draw(capsys, tmp_path, *argv)
    assert first != second
    assert (pixels(first) == pixels(second)).all()
    recipe = read_png(first)
    assert (recipe.prompt, recipe.negative_prompt, recipe.seed, recipe.steps) == (PROMPT, "grey", 9, 2)
    assert [(used.name, used.weight) for used in recipe.adapters] == [("robot", 0.5)]
    with Image.open(first) as image:
        assert image.info["parameters"].startswith(f"{PROMPT}\nNegative prompt: grey\nSteps: 2")


def test_adapter_weights_are_what_the_picture_is_drawn_with(tmp_path, capsys, adapters):
    robot, bear = adapters
    plain, nothing, one, blend = (
        pixels(draw(capsys, tmp_path, "--prompt", PROMPT, "--seed", 1, *(f"--adapter={text}" for text in texts))[0])
        for texts in ([], [f"{robot}:0"], [robot], [f"{robot}:1", f"other={bear}:-0.7"])
    )
    path = draw(capsys, tmp_path, "--prompt", PROMPT, "--seed", 1, f"--adapter={robot}:1@0,0@1,held,mid=0.5")[0]
    assert read_png(path).adapters[0].weight == "1@0,0@1,held,mid=0.5"
    assert (pixels(path) != one).any() and (pixels(path) != plain).any()
    assert (plain == nothing).all()
    assert (plain != one).any()
    assert (one != blend).any()


def test_adapter_arguments(adapters, tmp_path):
    odd = tmp_path / "a=b:2.safetensors"
    odd.write_bytes(adapters[0].read_bytes())
    robot = str(adapters[0])
    assert parse_adapters([robot]) == [("robot", adapters[0], 1.0)]
    assert parse_adapters([f"{robot}:0.25"]) == [("robot", adapters[0], 0.25)]
    assert parse_adapters([f"x={robot}:-1", f"y={robot}"]) == [("x", adapters[0], -1.0), ("y", adapters[0], 1.0)]
    assert parse_adapters([str(odd)]) == [("a_b_2", odd, 1.0)]
    assert parse_adapters([f"x={robot}:mid=0.5", f"{robot}:1@0,0@1,up.1=0"]) == [
        ("x", adapters[0], "mid=0.5"),
        ("robot", adapters[0], "1@0,0@1,up.1=0"),
    ]


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["generate", "--prompt", "x", "--adapter", "nowhere.safetensors:0.5"], "there is no adapter file nowhere"),
        (["generate", "--prompt", "x", "--adapter", "nowhere.safetensors:strong"], "must be a finite number"),
        (["generate", "--prompt", "x", "--adapter", "ROBOT", "--adapter", "ROBOT"], "two adapters are named"),
        (["generate", "--prompt", "x", "--adapter", "ROBOT:nan"], "finite"),
        (["generate", "--prompt", "x", "--adapter", __file__], "not a safetensors file"),
        (["generate", "--prompt", "x", "--model", "/no/folder"], "there is no pipeline folder /no/folder"),
        (["generate", "--prompt", "x", "--device", "toaster"], "the model cannot be put on toaster: "),
        (["generate", "--prompt", "x", "--steps", "0"], "--steps must be 1 or more"),
        (["generate", "--prompt", "x", "--seed", "-1"], "--seed must be from 0"),
        (["generate", "--prompt", "x", "--guidance_scale", "nan"], "--guidance_scale must be a finite number, not nan"),
        (["generate", "--prompt", "x", "--adapter", "LORA"], "or lily-diffusion convert."),
        (["inspect", "LORA"], "or lily-diffusion convert."),
        (["inspect", "HOSTILE"], "?]0;pwned"),
        (
            ["inspect", "ROBOT", "--model", "embedded", "--prompt", "x", "--seed", "4294967296"],
            "--seed must be at most 4294967295, not 4294967296",
        ),
        (["demo"], "the demo runs in a source checkout"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(argv, sentence, capsys, adapters, monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "SCRIPT", tmp_path / "train_dreambooth_lily.py")
    lora = tmp_path / "lora.safetensors"
    save_file({"unet.mid_block.attn1.to_q.lora_A.weight": torch.zeros(4, 4)}, lora)
    hostile = tmp_path / "hostile.safetensors"
    save_file({"\x1b]0;pwned\x07\x1b[2J": torch.zeros(1)}, hostile)
    files = {"ROBOT": adapters[0], "LORA": lora, "HOSTILE": hostile}
    argv = [functools.reduce(lambda text, name: text.replace(name, str(files[name])), files, arg) for arg in argv]
    code, out, err = run(capsys, *argv)
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1 and "\x1b" not in err
    assert not out


@pytest.mark.parametrize("command", [[], ["generate"], ["inspect"]])
def test_help_teaches_by_example(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([*command, "--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert "examples:" in out
    assert f"lily-diffusion {' '.join(command)}".strip() in out


def test_ui_hands_its_arguments_to_the_page(capsys, monkeypatch):
    heard = []
    monkeypatch.setitem(sys.modules, "ui.app", types.SimpleNamespace(main=heard.append))
    assert run(capsys, "ui", "--port", 1234)[0] == 0
    assert heard == [["--port", "1234"]]


def test_ui_without_gradio_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setattr(cli.importlib.util, "find_spec", lambda name: None)
    code, _, err = run(capsys, "ui")
    assert code == 2
    assert "pip install 'lily-diffusion[ui]'" in err


def test_demo_trains_as_a_user_would_and_draws_the_sheet(tmp_path, capsys, monkeypatch, adapters):
    """The training program is replaced by a copy of an adapter file; its flags are checked by its own parser."""
    commands = []

    def train(command, **_):
        commands.append(command)
        flags = parse_training_args(command[command.index(str(demo.SCRIPT)) + 1 :])
        folder = Path(flags.output_dir)
        (folder / "pytorch_lily_weights.safetensors").write_bytes(adapters[len(commands) - 1].read_bytes())
        return types.SimpleNamespace(returncode=0)

    monkeypatch.setattr(demo.subprocess, "run", train)
    monkeypatch.setattr(demo, "_check_installation", lambda: None)
    monkeypatch.setattr(demo, "STEPS", 1)
    photo = tmp_path / "demo" / "robot" / "photo.jpg"
    photo.parent.mkdir(parents=True)
    photo.touch()
    code, out, err = run(capsys, "demo", "--output_dir", tmp_path / "demo", "--max_train_steps", 7)
    assert code == 0, err
    assert [command[1:3] for command in commands] == [["-m", "accelerate.commands.launch"]] * 2
    assert all("7" in command for command in commands)
    assert (tmp_path / "demo" / "robot.safetensors").is_file()
    assert (tmp_path / "demo" / "teddy_bear.safetensors").is_file()
    assert photo.is_file() and len(list((tmp_path / "demo").iterdir())) == 4  # nothing else is left
    with Image.open(tmp_path / "demo" / "demo.png") as sheet:
        assert sheet.width > 192 * len(demo.COLUMNS)
        assert sheet.height > 192 * len(demo.PROMPTS)
    assert "demo.png" in out
    assert "Try next" in out


def test_demo_says_when_training_failed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo.subprocess, "run", lambda command, **_: types.SimpleNamespace(returncode=2))
    monkeypatch.setattr(demo, "_check_installation", lambda: None)
    code, _, err = run(capsys, "demo", "--output_dir", tmp_path)
    assert code == 2
    assert "training on examples/subjects/robot ended with code 2" in err
