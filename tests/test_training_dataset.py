"""Reading a folder of pictures: captions, junk, and every kind of picture that a camera or a program may write."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lily_diffusion.training import TrainingError
from lily_diffusion.training.dataset import Pictures, list_pictures, read_picture
from lily_diffusion.training.draws import Draws, micro_batch_positions, mixed_seed


def test_captions_win_over_the_prompt_and_junk_is_left_out_with_a_note(tmp_path):
    for name in ("b.png", "a.jpg", "C.PNG"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "a.txt").write_text("  a  dog\nin a tree ", encoding="utf-8-sig")
    (tmp_path / "orphan.txt").write_text("nobody")
    (tmp_path / "notes.md").write_text("junk")
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    (tmp_path / "sub").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "sub" / "d.png")
    listing = list_pictures(tmp_path, "a sks dog")
    assert [(i.path.name, i.caption) for i in listing.items] == [
        ("C.PNG", "a sks dog"),
        ("a.jpg", "a dog in a tree"),
        ("b.png", "a sks dog"),
    ]
    (note,) = listing.notes
    assert "notes.md" in note and "orphan.txt" in note and "sub/" in note and "DS_Store" not in note


@pytest.mark.parametrize(
    ("files", "prompt", "sentence"),
    [
        ({}, "x", "holds no picture"),
        ({"a.heic": b"x"}, "x", "a.heic"),
        ({"a.png": None}, None, "a.png has no caption"),
        ({"a.png": None, "a.txt": b" \n"}, "x", "a.txt is empty"),
        ({"a.png": None, "a.txt": b"\xff\xfe\xfa"}, "x", "a.txt is not UTF-8"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(tmp_path, files, prompt, sentence):
    for name, content in files.items():
        if content is None:
            Image.new("RGB", (8, 8)).save(tmp_path / name)
        else:
            (tmp_path / name).write_bytes(content)
    with pytest.raises(TrainingError, match=sentence):
        list_pictures(tmp_path, prompt)


def test_a_missing_folder_and_a_broken_picture_are_named(tmp_path):
    with pytest.raises(TrainingError, match="no folder"):
        list_pictures(tmp_path / "nowhere", "x")
    Image.new("RGB", (64, 64)).save(tmp_path / "cut.png")
    whole = (tmp_path / "cut.png").read_bytes()
    for content in (b"not a picture", whole[: len(whole) // 2], b""):
        (tmp_path / "cut.png").write_bytes(content)
        with pytest.raises(TrainingError, match=r"cut\.png"):
            Pictures(list_pictures(tmp_path, "x").items, 8)


def test_exif_rotation_is_applied(tmp_path):
    picture = Image.new("RGB", (16, 8), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to show it
    picture.save(tmp_path / "turned.png", exif=exif)
    assert read_picture(tmp_path / "turned.png").size == (8, 16)


@pytest.mark.parametrize(
    ("picture", "colour"),
    [
        (Image.new("RGBA", (8, 8), (255, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (8, 8), (255, 0, 0, 255)), (255, 0, 0)),
        (Image.new("LA", (8, 8), (0, 0)), (255, 255, 255)),
        (Image.new("L", (8, 8), 77), (77, 77, 77)),
        (Image.new("1", (8, 8), 1), (255, 255, 255)),
        (Image.new("RGB", (8, 8), (10, 200, 30)).convert("P", palette=Image.Palette.ADAPTIVE), (10, 200, 30)),
        (Image.fromarray(np.full((8, 8), 257 * 99, dtype=np.uint16)), (99, 99, 99)),
    ],
)
def test_every_mode_becomes_rgb_on_white(tmp_path, picture, colour):
    picture.save(tmp_path / "a.png")
    read = read_picture(tmp_path / "a.png")
    assert read.mode == "RGB" and read.getpixel((3, 3)) == colour


def test_a_palette_with_a_transparent_colour_is_laid_on_white(tmp_path):
    picture = Image.new("P", (8, 8), 0)
    picture.putpalette([0, 0, 0, 255, 0, 0])
    picture.save(tmp_path / "a.gif", transparency=0)
    assert read_picture(tmp_path / "a.gif").getpixel((0, 0)) == (255, 255, 255)


def test_pixels_are_cropped_and_flipped_squares(tmp_path):
    picture = np.zeros((8, 16, 3), dtype=np.uint8)
    picture[:, :, 0] = np.arange(16) * 15
    Image.fromarray(picture).save(tmp_path / "wide.png")
    pictures = Pictures(list_pictures(tmp_path, "x").items, 8)
    left, middle, right = (pictures.pixels(0, (place, 0.5), False) for place in (0.0, 0.5, 1.0))
    assert left.shape == (3, 8, 8) and left.min() == -1
    assert left[0].mean() < middle[0].mean() < right[0].mean()
    assert torch.equal(pictures.pixels(0, (0.5, 0.5), True), middle.flip(2))
    assert pictures.notes() == []
    assert "smaller" in Pictures(list_pictures(tmp_path, "x").items, 12).notes()[0]


def test_every_picture_comes_once_in_each_round_and_rounds_differ():
    draws = Draws(seed=3, stream="instance", num_pictures=5, latent_shape=(4, 2, 2))
    rounds = [[draws[5 * n + i].index for i in range(5)] for n in range(6)]
    assert all(sorted(r) == list(range(5)) for r in rounds)
    assert len({tuple(r) for r in rounds}) > 1


def test_draws_depend_on_seed_stream_and_position_alone():
    def draw(seed=3, stream="instance", position=7):
        return Draws(seed, stream, 5, (4, 8, 8), random_flip=True)[position]

    assert torch.equal(draw().noise, draw().noise) and draw().u == draw().u
    for other in (draw(seed=4), draw(stream="class"), draw(position=8)):
        assert not torch.equal(other.noise, draw().noise)
    assert not torch.equal(draw().noise, draw().posterior_noise)
    assert mixed_seed(3, "a", 1) == 5356279983702439251  # the same on every machine, or old runs could not go on


def test_flips_and_crops_are_drawn_anew_each_time():
    draws = Draws(0, "instance", 1, (4, 2, 2), random_flip=True)
    drawn = draws.at(range(200))
    assert 70 < sum(d.flip for d in drawn) < 130
    assert len({d.crop for d in drawn}) == 200
    assert {d.crop for d in Draws(0, "instance", 1, (4, 2, 2), center_crop=True).at(range(5))} == {(0.5, 0.5)}


def test_processes_and_accumulated_batches_share_the_positions_without_gap_or_overlap():
    parts = [micro_batch_positions(24, m, 2, rank, 3) for m in range(4) for rank in range(3)]
    assert sorted(p for part in parts for p in part) == list(range(24, 48))
