"""Reading a folder of pictures: captions, junk, and every kind of picture that a camera or a program may write."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from lily_diffusion.training.dataset import Pictures, check_pictures, list_pictures, read_picture


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


def test_exif_rotation_is_applied(tmp_path):
    picture = Image.new("RGB", (16, 8), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to show it
    picture.save(tmp_path / "turned.png", exif=exif)
    assert read_picture(tmp_path / "turned.png").size == (8, 16)
    items = list_pictures(tmp_path, "x").items
    assert check_pictures(items) == Pictures(items, [(8, 8)]).sizes == [(8, 16)]


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
    pictures = Pictures(list_pictures(tmp_path, "x").items, [(8, 8)])
    left, middle, right = (pictures.pixels(0, (place, 0.5), False) for place in (0.0, 0.5, 1.0))
    assert left.shape == (3, 8, 8) and left.min() == -1
    assert left[0].mean() < middle[0].mean() < right[0].mean()
    assert torch.equal(pictures.pixels(0, (0.5, 0.5), True), middle.flip(2))
    assert pictures.notes() == []
    assert "smaller" in Pictures(list_pictures(tmp_path, "x").items, [(12, 12)]).notes()[0]


def test_a_square_is_cut_from_the_picture_with_its_short_side_at_the_resolution(tmp_path):
    rng = np.random.default_rng(0)
    for name, size in (("wide.png", (21, 50, 3)), ("tall.png", (31, 13, 3)), ("small.png", (7, 5, 3))):
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(tmp_path / name)
    items = list_pictures(tmp_path, "x").items
    pictures = Pictures(items, [(12, 12)])
    for index, item in enumerate(items):
        picture = read_picture(item.path)
        scale = 12 / min(picture.size)
        shown = picture.resize(tuple(max(12, round(edge * scale)) for edge in picture.size), Image.Resampling.LANCZOS)
        left, top = round(0.3 * (shown.width - 12)), round(0.8 * (shown.height - 12))
        square = torch.from_numpy(np.array(shown.crop((left, top, left + 12, top + 12)))).permute(2, 0, 1)
        expected = square.float() / 127.5 - 1
        assert torch.equal(pictures.pixels(index, (0.3, 0.8), False), expected)
        assert pictures.edges(index) == (12, 12)


def test_a_picture_covers_its_bucket_and_is_cut_there(tmp_path):
    """Columns are numbered by red, rows by green, so that the place of a cut can be read from its pixels."""
    for name, (width, height) in (("wide.png", (48, 16)), ("square.png", (32, 32)), ("tall.png", (16, 40))):
        red, green = np.meshgrid(np.arange(width) * 5, np.arange(height) * 6)
        Image.fromarray(np.stack([red, green, 0 * red], axis=2).astype(np.uint8)).save(tmp_path / name)
    pictures = Pictures(list_pictures(tmp_path, "x").items, [(16, 16), (16, 32), (32, 16)])
    assert [pictures.edges(i) for i in range(3)] == [(16, 16), (32, 16), (16, 32)]  # square, tall, wide by name
    wide = (pictures.pixels(2, (1.0, 0.0), False) + 1) * 127.5
    assert wide.shape == (3, 16, 32)
    assert wide[0, 0, 0].item() == pytest.approx(16 * 5, abs=1) and wide[1, 15, 0].item() == pytest.approx(90, abs=1)
    tall = (pictures.pixels(1, (0.0, 0.5), True) + 1) * 127.5
    assert tall[1, 0, 0].item() == pytest.approx(4 * 6, abs=1) and tall[0, 0, -1].item() == pytest.approx(0, abs=1)
    (note,) = pictures.notes()
    assert note == "buckets (height x width): 1 at 16 x 16, 1 at 16 x 32, 1 at 32 x 16"
    enlarged = Pictures(list_pictures(tmp_path, "x").items, [(32, 32), (32, 64)]).notes()[0]
    assert enlarged == "tall.png, wide.png: smaller than their bucket, enlarged"


def test_the_digest_covers_captions_pictures_and_buckets(tmp_path):
    Image.new("RGB", (16, 16), "red").save(tmp_path / "a.png")
    Image.new("RGB", (16, 16), "blue").save(tmp_path / "b.png")

    def digest(prompt="x", buckets=((16, 16),)):
        return Pictures(list_pictures(tmp_path, prompt).items, buckets).digest()

    first = digest()
    assert digest() == first
    assert (
        len({first, digest("y"), digest(buckets=[(16, 12)]), digest(buckets=[(12, 16)]), digest(buckets=[(8, 8)])}) == 5
    )
    (tmp_path / "a.png").rename(tmp_path / "c.png")
    assert digest() != first


def test_metadata_gives_captions_as_imagefolder_does_and_text_files_win(tmp_path):
    for name in ("a.png", "b.png", "c.png", "d.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    lines = [
        {"file_name": "a.png", "text": " a  red\nrobot "},
        {"file_name": "b.png", "caption": "of b", "likes": 3},
        {"file_name": "c.png", "text": "of c"},
        {"file_name": "d.png"},
        {"file_name": "sub/e.png", "text": "of e"},
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    (tmp_path / "c.txt").write_text("from the file")
    listing = list_pictures(tmp_path, "prompt")
    assert [item.caption for item in listing.items] == ["a red robot", "of b", "from the file", "prompt"]
    (note,) = listing.notes
    assert note.endswith("metadata.jsonl: left out sub/e.png, not a picture in this folder")
