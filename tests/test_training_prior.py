"""Class pictures: who makes which, that nothing is made twice, and that a killed run is taken up where it ended."""

from __future__ import annotations

import contextlib
import multiprocessing
from pathlib import Path

import pytest
import torch
from PIL import Image

from lily_diffusion import base_model
from lily_diffusion.training import prior
from lily_diffusion.training.draws import generator_for
from lily_diffusion.training.prior import class_items, count_pictures, generate_class_pictures, missing_pictures

from .tiny_pipelines import resolution, save_pipeline


class Decoder:
    """Stands in for an autoencoder."""

    device = torch.device("cpu")

    def decode(self, latents):
        raise NotImplementedError


class Painter:
    """Stands in for a pipeline: its pictures show their generator's first number. It may fail at a picture."""

    def __init__(self, fails_at: int | None = None):
        self.calls, self.fails_at = 0, fails_at
        self.vae = Decoder()

    def to(self, device):
        return self

    def set_progress_bar_config(self, **config):
        pass

    def __call__(self, *, prompt, generator, height, width, num_inference_steps):
        assert len(prompt) == len(generator)
        images = []
        for drawn in generator:
            if self.calls == self.fails_at:
                raise KeyboardInterrupt
            self.calls += 1
            images.append(Image.new("RGB", (width, height), tuple(torch.randint(256, (3,), generator=drawn).tolist())))
        return type("Output", (), {"images": images})


def fill(folder: Path, count: int, pipe=None, **more) -> int:
    options = {"batch_size": 3, "resolution": 8, "seed": 5, "dtype": None, "device": torch.device("cpu"), **more}
    return generate_class_pictures(pipe or Painter(), folder, "a dog", count, **options)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_names_and_seeds_are_those_of_the_index(tmp_path):
    assert count_pictures(tmp_path / "class") == 0
    assert fill(tmp_path / "class", 5) == 5
    assert sorted(bytes_of(tmp_path / "class")) == [f"{i:04d}.png" for i in range(5)]
    for i in range(5):
        colour = torch.randint(256, (3,), generator=generator_for(5, "class picture", i)).tolist()
        with Image.open(tmp_path / "class" / f"{i:04d}.png") as picture:
            assert picture.size == (8, 8) and list(picture.getpixel((0, 0))) == colour
    assert fill(tmp_path / "class", 5) == fill(tmp_path / "class", 2) == 0
    assert len(class_items(tmp_path / "class", "a dog", 3)) == 3


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_processes_share_the_work_and_make_what_one_makes(tmp_path, world):
    fill(tmp_path / "one", 11)
    painters = [Painter() for _ in range(world)]
    made = [fill(tmp_path / "many", 11, painters[rank], rank=rank, world=world) for rank in range(world)]
    assert made == [painter.calls for painter in painters] == [len(range(rank, 11, world)) for rank in range(world)]
    assert bytes_of(tmp_path / "many") == bytes_of(tmp_path / "one")


def _fill_part(folder: Path, rank: int) -> None:
    fill(folder, 40, rank=rank, world=2)


def test_processes_need_not_wait_for_each_other(tmp_path):
    fill(tmp_path / "one", 40)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_fill_part, args=(tmp_path / "two", rank)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=30)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert bytes_of(tmp_path / "two") == bytes_of(tmp_path / "one")


@pytest.mark.parametrize("world", [1, 2])
def test_a_killed_run_is_completed_and_nothing_is_made_twice(tmp_path, world):
    fill(tmp_path / "one", 11)
    for rank in range(world):
        with contextlib.suppress(KeyboardInterrupt):
            fill(tmp_path / "cut", 11, Painter(fails_at=4 - rank), batch_size=1, rank=rank, world=world)
    before = bytes_of(tmp_path / "cut")
    assert 0 < len(before) < 11
    assert sum(fill(tmp_path / "cut", 11, rank=rank, world=3) for rank in range(3)) == 11 - len(before)
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "one")


def test_own_pictures_count_and_what_is_made_follows_on_them(tmp_path):
    for name in ("rex.jpg", "1.png", "0001.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "rex.txt").write_text("rex")
    (tmp_path / ".9.writing.png").write_bytes(b"half a picture")
    assert missing_pictures(tmp_path, 6) == [3, 4, 5] and missing_pictures(tmp_path, 3) == []
    Image.new("RGB", (8, 8)).save(tmp_path / "0004-0123456789ab.png")  # as earlier versions named them
    assert missing_pictures(tmp_path, 6) == [3, 5]
    assert fill(tmp_path, 6) == 2 and count_pictures(tmp_path) == 6
    assert {item.caption for item in class_items(tmp_path, "a dog", 6)} == {"a dog", "rex"}


def test_a_folder_always_ends_with_the_number_asked_for(tmp_path):
    for name in ("0000.png", "0002.png", "0007.png", "own.png", "0007-0123456789ab.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    before = bytes_of(tmp_path)
    fill(tmp_path, 9)
    assert count_pictures(tmp_path) == 9 and before.items() <= bytes_of(tmp_path).items()


@pytest.mark.parametrize("family", ["stable_diffusion", "flux", "z_image"])
def test_pipelines_paint_the_same_pictures_however_many_share_the_work(tmp_path, family, monkeypatch):
    monkeypatch.setattr(prior, "INFERENCE_STEPS", 1)
    pipe = base_model.load_pipeline(str(save_pipeline(family, tmp_path / "pipe")))
    edge = resolution(family)
    assert fill(tmp_path / "one", 2, pipe, batch_size=1, resolution=edge) == 2
    made = [fill(tmp_path / "two", 2, pipe, batch_size=1, resolution=edge, rank=r, world=2) for r in range(2)]
    assert made == [1, 1] and bytes_of(tmp_path / "one") == bytes_of(tmp_path / "two")
    a, b = bytes_of(tmp_path / "one").values()
    assert a != b
    with Image.open(tmp_path / "one" / "0000.png") as picture:
        assert picture.size == (edge, edge)
