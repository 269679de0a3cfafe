"""The measures behind the benchmarks: which subject a picture is most like, and the colour of its background."""

import random
import sys

import pytest
import torch

from benchmarks.measures import as_images, as_tensor, background_colours, lab
from lily_diffusion import base_model
from lily_diffusion.base_model.likeness import Likeness
from lily_diffusion.base_model.pictures import COLOURS, HELD_OUT, Scene, draw, load_emoji, random_scene


@pytest.fixture(scope="module")
def emoji():
    return load_emoji(str(base_model.SUBJECTS), HELD_OUT)


def test_every_pose_and_colour_of_a_subject_is_nearest_to_the_subject(emoji):
    likeness, rng = Likeness(), random.Random(0)
    clean = likeness.features(draw([Scene(name, "grey") for name in HELD_OUT], emoji))
    posed = likeness.features(draw([random_scene(name, rng, style="plain", colour="teal") for name in HELD_OUT], emoji))
    assert clean.shape == (len(HELD_OUT), 1280)
    assert torch.allclose(clean.norm(dim=1), torch.ones(len(clean)), atol=1e-5)
    similarity = posed @ clean.T
    assert (similarity.argmax(1) == torch.arange(len(HELD_OUT))).all()
    assert similarity.diag().mean() > 0.85
    assert similarity.mean() < 0.6


def test_likeness_without_its_packages_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ImportError, match=r"pip install 'lily-diffusion\[bench\]'"):
        Likeness()


def test_the_background_of_true_pictures_is_told_right(emoji):
    rng = random.Random(0)
    scenes = [random_scene(name, rng, style="plain", colour=colour) for name in HELD_OUT for colour in COLOURS]
    assert background_colours(draw(scenes, emoji)) == [scene.colour for scene in scenes]


def test_lab_of_known_colours():
    """White, and sRGB's red and blue as the CIE's formulas give them."""
    rgb = torch.tensor([[1.0, 1, 1], [1, 0, 0], [0, 0, 1], [0, 0, 0]])
    known = torch.tensor([[100.0, 0, 0], [53.24, 80.09, 67.20], [32.30, 79.19, -107.86], [0, 0, 0]])
    assert torch.allclose(lab(rgb), known, atol=0.05)


def test_pictures_survive_the_way_to_8_bits_and_back():
    pictures = torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)
    assert torch.allclose(as_tensor(as_images(pictures)), pictures, atol=1 / 255 + 1e-6)
