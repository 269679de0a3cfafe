"""Sheets of labelled pictures."""

import numpy as np
import pytest
from PIL import Image

from lily_diffusion.grid import MARGIN, contact_sheet, labelled_grid

RED, BLUE = (Image.new("RGB", (64, 64), colour) for colour in ("red", "blue"))


def holds(sheet: Image.Image, colour: tuple[int, int, int]) -> int:
    """How many pixels of the sheet have exactly this colour."""
    return int((np.array(sheet) == colour).all(-1).sum())


def test_small_pictures_are_enlarged_to_cells_of_about_200_pixels():
    sheet = labelled_grid([[RED, BLUE]], [""], ["", ""])
    assert holds(sheet, (255, 0, 0)) == holds(sheet, (0, 0, 255)) == 192 * 192
    assert sheet.height == 192 + 2 * MARGIN


def test_every_picture_is_shown_at_the_scale_asked_for():
    sheet = labelled_grid([[RED, BLUE], [BLUE, RED], [RED, RED]], ["a", "b", "c"], ["d", "e"], scale=2)
    assert holds(sheet, (255, 0, 0)) == 4 * 128 * 128
    assert holds(sheet, (0, 0, 255)) == 2 * 128 * 128


def test_labels_and_title_take_room_and_long_ones_are_wrapped():
    bare = labelled_grid([[RED]], [""], [""])
    labelled = labelled_grid([[RED]], ["a robot on a teal background " * 3], ["one"], title="Title")
    assert labelled.width > bare.width
    assert labelled.height > bare.height
    assert labelled.width < bare.width + 250  # wrapped, not stretched
    assert holds(labelled, (255, 0, 0)) == holds(bare, (255, 0, 0))  # and nothing is written over a picture


def test_large_pictures_are_shrunk():
    sheet = labelled_grid([[Image.new("RGB", (1024, 768), "red")]], [""], [""])
    assert holds(sheet, (255, 0, 0)) == 512 * 384


def test_contact_sheet_fills_the_last_row_with_blanks():
    sheet = contact_sheet([RED] * 5, [f"picture {i}" for i in range(5)], columns=3)
    assert holds(sheet, (255, 0, 0)) == 5 * 192 * 192


@pytest.mark.parametrize(
    ("images", "rows", "columns", "scale", "message"),
    [
        ([], [], [], None, "at least one picture"),
        ([[RED], [RED, BLUE]], ["a", "b"], ["c"], None, "same number of pictures"),
        ([[RED, BLUE]], ["a"], ["b"], None, "as many labels"),
        ([[RED, Image.new("RGB", (32, 64))]], ["a"], ["b", "c"], None, "same size"),
        ([[RED]], ["a"], ["b"], 0, "at least 1"),
    ],
)
def test_what_is_not_a_grid_is_refused(images, rows, columns, scale, message):
    with pytest.raises(ValueError, match=message):
        labelled_grid(images, rows, columns, scale=scale)
