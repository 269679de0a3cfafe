"""generate --prompts: names and seeds are fixed, processes share the work, and what was killed is completed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from lily_diffusion import cli, many_prompts
from lily_diffusion.many_prompts import PromptLine, path_of, read_prompts, seed_of, this_process
from ui.keeping.recipe import read_png

PROMPTS = ["a cat on a red background", "two dogs", "a robot", "a bear", "an owl", "a rocket", "a cactus", "a fish"]
NAMES = [f"line-{i:05d}-01.png" for i in range(1, 9)]


@pytest.fixture(autouse=True)
def one_thread():
    """As the launched processes have: sums in another order would round differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def file(tmp_path):
    """A function that writes a file of prompts and returns its path."""

    def write(text: str, name: str = "prompts.txt") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def arguments(prompts, folder, *more):
    return ["generate", "--prompts", str(prompts), "--output_dir", str(folder), "--steps", "1", *map(str, more)]


def draw(capsys, prompts, folder, *more):
    """Draw in this process; returns the printed lines."""
    code = cli.main(arguments(prompts, folder, *more))
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return captured.out.splitlines()


def refused(capsys, prompts, folder, *more):
    """The sentence of a call that must not work."""
    assert cli.main(arguments(prompts, folder, *more)) == 2
    captured = capsys.readouterr()
    assert not captured.out and captured.err.count("\n") == 1
    return captured.err


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("line-*.png")}


def stamps(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("line-*.png")}


def test_the_file_of_prompts(file):
    path = file("# a comment\n\n  a cat  \na dog # with hash\n")
    assert read_prompts(path) == [PromptLine(3, "a cat"), PromptLine(4, "a dog # with hash")]
    path = file('{"prompt": "a"}\n\n{"prompt": "b", "seed": 5, "negative_prompt": "grey"}\n', "prompts.jsonl")
    assert read_prompts(path) == [PromptLine(1, "a"), PromptLine(3, "b", "grey", 5)]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("# nothing\n\n", "holds no prompt"),
        ("a cat", "line 1 of .*prompts.jsonl must be JSON such as"),
        ('"a cat"', "must be JSON such as"),
        ('{"prompt": 3}', "must be JSON such as"),
        ('{"prompt": "a", "sed": 3}', "has 'sed'; it may have prompt, negative_prompt, seed"),
        ('{"prompt": "a", "seed": "3"}', "needs a whole number for seed"),
        ('{"prompt": "a", "seed": true}', "needs a whole number for seed"),
        ('{"prompt": "a", "negative_prompt": 1}', "needs a text for negative_prompt"),
    ],
)
def test_a_damaged_file_has_its_sentence(file, text, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_prompts(file(text, "empty.txt" if text.startswith("#") else "prompts.jsonl"))


def test_other_mistakes_have_theirs_before_anything_is_drawn(file, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    assert "there is no file of prompts" in refused(capsys, tmp_path / "nowhere.txt", out)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    assert "is not a text in UTF-8" in refused(capsys, tmp_path / "latin.txt", out)
    path = file('{"prompt": "a", "seed": 4294967295}', "p.jsonl")
    assert "the seed 4294967295 of line 1 must be from 0 to 4294967294" in refused(capsys, path, out, "--num_images", 2)
    with pytest.raises(SystemExit):
        cli.main([*arguments(path, out), "--prompt", "x"])
    assert "--prompt: not allowed with argument --prompts" in capsys.readouterr().err
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert cli.main(["generate", "--prompt", "x"]) == 2
    assert "several processes can share --prompts FILE" in capsys.readouterr().err
    assert not out.exists()


def test_seeds_belong_to_lines_and_do_not_move():
    lines = [PromptLine(n, "x") for n in (1, 2, 3)]
    seeds = [seed_of(line, i, 0) for line in lines for i in range(3)]
    assert len(set(seeds)) == 9 and all(0 <= seed < 2**32 for seed in seeds)
    assert seeds[0] == 2424985927  # written into pictures that people have, so it stays
    assert seed_of(lines[0], 0, 1) not in seeds
    assert [seed_of(PromptLine(5, "x", seed=7), i, 3) for i in range(3)] == [7, 8, 9]
    assert path_of(Path("out"), lines[2], 9) == Path("out/line-00003-10.png")


def test_every_process_has_a_device_of_its_own(monkeypatch):
    said = {"WORLD_SIZE": "4", "RANK": "6", "LOCAL_RANK": "2"}
    assert this_process(None, {}) == this_process(None, {"WORLD_SIZE": "1"}) == many_prompts.Process(0, 1, None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert this_process(None, said) == many_prompts.Process(6, 4, "cuda:2")
    assert [this_process(d, said).device for d in ("cuda", "cuda:1", "cpu")] == ["cuda:2", "cuda:1", "cpu"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert this_process(None, said).device == "cpu"


def test_names_seeds_and_recipes(file, tmp_path, capsys):
    path = file('{"prompt": "a cat"}\n{"prompt": "a dog", "seed": 5, "negative_prompt": "blue"}', "p.jsonl")
    out = tmp_path / "out"
    said = draw(capsys, path, out, "--num_images", 2, "--negative_prompt", "grey", "--seed", 3)
    names = ["line-00001-01.png", "line-00001-02.png", "line-00002-01.png", "line-00002-02.png", "grid.png"]
    assert said == [str(out / name) for name in names]
    assert sorted(p.name for p in out.iterdir()) == sorted(names)
    recipes = [read_png(out / name) for name in names[:4]]
    assert [(r.prompt, r.negative_prompt) for r in recipes] == [("a cat", "grey")] * 2 + [("a dog", "blue")] * 2
    assert [r.seed for r in recipes] == [*(seed_of(PromptLine(1, "a cat"), i, 3) for i in range(2)), 5, 6]
    with Image.open(out / "grid.png") as grid:
        assert grid.width > 2 * 192 and grid.height > 2 * 192


def test_what_is_there_stays_and_another_recipe_is_refused(file, tmp_path, capsys, monkeypatch):
    path, out = file("a cat\n"), tmp_path / "out"
    draw(capsys, path, out)
    before = stamps(out)
    path = file("a cat\na dog\n")
    monkeypatch.setattr(many_prompts, "LARGEST_GRID", 1)
    said = draw(capsys, path, out)
    assert said == ["1 of 2 pictures are there already", str(out / NAMES[1])], "and no grid of more than the largest"
    assert stamps(out)[NAMES[0]] == before[NAMES[0]]
    before = stamps(out)
    for more in (("--seed", 1), ("--guidance_scale", 2), ("--num_images", 2, "--negative_prompt", "x")):
        assert "made with other settings or of another prompt than 'a cat'" in refused(capsys, path, out, *more)
    (out / NAMES[0]).write_bytes(b"no picture")
    assert "take another --output_dir" in refused(capsys, path, out)
    assert stamps(out).keys() == before.keys() and stamps(out)[NAMES[1]] == before[NAMES[1]]


def test_a_write_that_fails_leaves_no_half(file, tmp_path, capsys, monkeypatch):
    def broken(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(many_prompts.os, "replace", broken)
    assert cli.main(arguments(file("a cat"), tmp_path / "out")) == 2
    assert "the disk is full" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_two_processes_draw_a_half_each(file, tmp_path, capsys, monkeypatch):
    path = file("\n".join(PROMPTS[:3]))
    draw(capsys, path, tmp_path / "one")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, names in (("1", NAMES[1:2]), ("0", [NAMES[0], NAMES[2], "grid.png"])):
        monkeypatch.setenv("RANK", rank)
        said = draw(capsys, path, tmp_path / "two")
        assert [Path(line).name for line in said if line.endswith(".png")] == names, "the last one draws the grid"
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    assert (tmp_path / "two" / "grid.png").read_bytes() == (tmp_path / "one" / "grid.png").read_bytes()


KILL = """
import os, signal, threading, time
def watch():
    while not os.path.exists(os.environ["FIRST_OF_PROCESS_1"]):
        time.sleep(0.002)
    os.kill(os.getpid(), signal.SIGKILL)
if os.environ.get("RANK") == "1":
    threading.Thread(target=watch, daemon=True).start()
"""


@pytest.mark.slow
def test_a_killed_process_is_made_good_by_the_same_call_again(file, tmp_path, capsys):
    """Two processes by a launcher; the second is killed after its first picture, and nothing waits for it."""
    path, one, two = file("\n".join(PROMPTS)), tmp_path / "one", tmp_path / "two"
    draw(capsys, path, one)
    startup = tmp_path / "startup"
    startup.mkdir()
    (startup / "sitecustomize.py").write_text(KILL)
    root = Path(__file__).parent.parent
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join((str(startup), str(root))), "OMP_NUM_THREADS": "1",
        "FIRST_OF_PROCESS_1": str(two / NAMES[1]), "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    launcher = [
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--rdzv_backend=c10d",
        "--rdzv_endpoint=localhost:0",
    ]
    program = [*launcher, "-m", "lily_diffusion", *arguments(path, two)]
    done = subprocess.run([sys.executable, *program], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0 and "Signal 9 (SIGKILL)" in done.stderr, done.stderr
    expected, found, before = contents(one), contents(two), stamps(two)
    assert NAMES[1] in found and found.keys() < expected.keys()
    assert all(expected[name] == data for name, data in found.items())

    said = draw(capsys, path, two)
    assert said[0] == f"{len(found)} of 8 pictures are there already"
    assert said[1:] == [str(two / name) for name in NAMES if name not in found] + [str(two / "grid.png")]
    assert contents(two) == expected
    assert {name: stamp for name, stamp in stamps(two).items() if name in before} == before
    assert sorted(p.name for p in two.iterdir()) == sorted(p.name for p in one.iterdir())
