"""Masks stay on the pixels that they belong to, whatever is done to the picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lily_diffusion.training.dataset import Pictures, list_pictures


@pytest.fixture
def noisy(tmp_path):
    """A folder with a picture that is its own mask: what is white counts."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    spots = np.random.default_rng(0).integers(0, 2, (10, 12), dtype=np.uint8) * 255
    grey = Image.fromarray(spots).resize((480, 400), Image.Resampling.NEAREST)
    grey.convert("RGB").save(folder / "a.png")
    return folder, grey


def close(pictures: Pictures, index: int, crop: tuple[float, float], flip: bool) -> bool:
    """Whether mask and picture show the same. Their filters differ by 0.013; one pixel beside it would be 0.07."""
    shown = (pictures.pixels(index, crop, flip)[:1] + 1) / 2
    mask = pictures.mask(index, crop, flip)
    assert mask.shape == shown.shape and mask.min() >= 0 and mask.max() <= 1
    return (mask - shown).abs().mean().item() < 0.03 and mask.std().item() > 0.2


@pytest.mark.parametrize("crop", [(0.0, 0.0), (1.0, 0.3), (0.4, 1.0)])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(480, 400), (96, 80)])
def test_a_mask_file_lies_on_its_picture(noisy, tmp_path, crop, flip, size):
    folder, grey = noisy
    masks = tmp_path / "masks"
    masks.mkdir()
    grey.resize(size, Image.Resampling.BOX).save(masks / "a.png")
    pictures = Pictures(list_pictures(folder, "x", masks=masks).items, [(64, 128), (80, 90)])
    assert pictures.edges(0) == (80, 90)
    assert pictures.has_masks and close(pictures, 0, crop, flip)
    assert pictures.notes() == ["buckets (height x width): 1 at 80 x 90"]


def test_exif_turns_mask_and_picture_alike(noisy, tmp_path):
    folder, grey = noisy
    exif = Image.Exif()
    exif[0x0112] = 6
    masks = tmp_path / "masks"
    masks.mkdir()
    grey.convert("RGB").save(folder / "a.png", exif=exif)
    grey.save(masks / "a.png", exif=exif)
    pictures = Pictures(list_pictures(folder, "x", masks=masks).items, [(96, 80)])
    assert pictures.sizes == [(400, 480)] and close(pictures, 0, (0.5, 0.5), False)
    colours = Image.merge("RGBA", [grey, grey, grey, grey])
    colours.save(folder / "a.png", exif=exif)
    alpha = Pictures(list_pictures(folder, "x", alpha_mask=True).items, [(96, 80)])
    expected = grey.rotate(-90, expand=True).resize((80, 96), Image.Resampling.BILINEAR)
    assert torch.equal(alpha.mask(0, (0, 0), False)[0] * 255, torch.from_numpy(np.array(expected)).float())


def test_an_alpha_channel_is_the_mask_and_what_is_opaque_counts_with_a_note(tmp_path):
    half = Image.new("RGBA", (16, 16), (255, 0, 0, 255))
    half.paste((0, 0, 0, 0), (0, 0, 8, 16))
    half.save(tmp_path / "half.png")
    Image.new("RGB", (16, 16), "blue").save(tmp_path / "opaque.png")
    pictures = Pictures(list_pictures(tmp_path, "x", alpha_mask=True).items, [(16, 16)])
    mask = pictures.mask(0, (0, 0), False)
    assert mask[:, :, :8].eq(0).all() and mask[:, :, 8:].eq(1).all()
    assert torch.equal(pictures.mask(0, (0, 0), True), mask.flip(2))
    assert pictures.mask(1, (0, 0), False).eq(1).all() and pictures.mask(1, (0, 0), False).shape == (1, 16, 16)
    assert pictures.pixels(0, (0, 0), False)[:, :, :8].eq(1).all()  # on white as ever
    assert pictures.notes() == ["opaque.png: nothing transparent, so all of it counts"]
    plain = Pictures(list_pictures(tmp_path, "x").items, [(16, 16)])
    assert not plain.has_masks and plain.mask(0, (0, 0), False).eq(1).all() and plain.notes() == []


def test_pictures_without_a_mask_file_count_whole_and_odd_masks_are_noted(tmp_path):
    folder, masks = tmp_path / "pictures", tmp_path / "masks"
    folder.mkdir(), masks.mkdir()
    for name in ("a.png", "b.jpg", "c.png"):
        Image.new("RGB", (16, 16), "red").save(folder / name)
    Image.new("L", (32, 16), 255).save(masks / "a.jpg")
    clear = Image.new("LA", (16, 16), (255, 0))
    clear.paste((255, 255), (0, 0, 16, 8))
    clear.save(masks / "c.png")
    listing = list_pictures(folder, "x", masks=masks)
    assert listing.notes == [f"b.jpg: no mask in {masks}, so all of it counts"]
    pictures = Pictures(listing.items, [(16, 16)])
    assert pictures.notes() == ["a.png: the mask has another shape and is stretched"]
    assert pictures.mask(1, (0, 0), False).eq(1).all()
    assert (
        pictures.mask(2, (0, 0), False)[0, :, 0].tolist() == [1.0] * 8 + [0.0] * 8
    )  # what is transparent is not white


def test_the_digest_covers_masks(tmp_path):
    folder, masks = tmp_path / "pictures", tmp_path / "masks"
    folder.mkdir(), masks.mkdir()
    Image.new("RGB", (16, 16), "red").save(folder / "a.png")
    digests = {Pictures(list_pictures(folder, "x").items, [(16, 16)]).digest()}
    for grey in (255, 128, 64):
        Image.new("L", (16, 16), grey).save(masks / "a.png")
        digests.add(Pictures(list_pictures(folder, "x", masks=masks).items, [(16, 16)]).digest())
    assert len(digests) == 4
