"""Datasets of the package `datasets`, from local folders and files: nothing here asks the network for anything."""

from __future__ import annotations

import json
import sys

import datasets
import pytest
import torch
from PIL import Image

from lily_diffusion.training import TrainingError
from lily_diffusion.training.dataset import Pictures, check_pictures, list_pictures
from lily_diffusion.training.hub_dataset import hub_items


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An imagefolder of three pictures; the last is turned by its EXIF data and transparent in a corner."""
    folder = tmp_path_factory.mktemp("imagefolder")
    for index, colour in enumerate(("red", "green")):
        Image.new("RGB", (16, 8 + 8 * index), colour).save(folder / f"{index}.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.new("RGBA", (24, 16), "blue")
    turned.paste((0, 0, 0, 0), (0, 0, 8, 8))
    turned.save(folder / "2.png", exif=exif)
    rows = [{"file_name": f"{i}.png", "text": f" number\n{i} ", "likes": i} for i in range(3)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture
def load(tmp_path):
    """`hub_items` with a cache of its own."""
    datasets.disable_progress_bars()
    return lambda name, **more: hub_items(str(name), cache_dir=str(tmp_path / "cache"), **more)


def test_an_imagefolder_gives_what_reading_the_folder_gives(folder, load):
    listing = load(folder, caption_column="text", alpha_mask=True)
    here = list_pictures(folder, alpha_mask=True)
    assert [item.caption for item in listing.items] == ["number 0", "number 1", "number 2"]
    assert [item.path.name for item in listing.items] == ["row 0", "row 1", "row 2"]
    assert check_pictures(listing.items) == [(16, 8), (16, 16), (16, 24)]
    theirs, ours = (Pictures(found.items, [(8, 8), (12, 8)]) for found in (listing, here))
    assert theirs.digest() == ours.digest() and theirs.has_masks
    for index in range(3):
        assert torch.equal(theirs.pixels(index, (0.2, 0.7), True), ours.pixels(index, (0.2, 0.7), True))


def test_a_prompt_is_the_caption_where_no_column_is_named(folder, load):
    assert {item.caption for item in load(folder, prompt="a sks robot").items} == {"a sks robot"}
    assert {item.caption for item in load(folder, prompt="x", caption_column="text").items} != {"x"}


def table(folder, split="train", **columns):
    """A parquet file with pictures in its bytes."""
    rows = datasets.Dataset.from_dict(columns)
    for column in columns:
        if column.startswith("picture"):
            rows = rows.cast_column(column, datasets.Image())
    path = folder / "table"
    path.mkdir()
    rows.to_parquet(str(path / f"{split}.parquet"))
    return path


def test_a_table_is_read_row_by_row(folder, load, tmp_path):
    path = table(tmp_path, picture=[str(folder / "1.png"), str(folder / "0.png")], words=["green", "red"])
    pictures = Pictures(load(path, image_column="picture", caption_column="words").items, [(8, 8)])
    green, red = (pictures.pixels(i, (0, 0), False)[:, 4, 4] for i in range(2))
    assert pictures.caption(0) == "green" and green.argmax() == 1 and pictures.caption(1) == "red" and red.argmax() == 0


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"image_column": "img"}, "has no column 'img' for --image_column; it has image, text, likes"),
        ({"caption_column": "nope"}, "has no column 'nope' for --caption_column; it has image, text, likes"),
        ({}, "has no captions: give --instance_prompt, or --caption_column; there is text, likes"),
        ({"image_column": "text", "prompt": "x"}, "the column 'text' of .* holds string, not pictures"),
        ({"caption_column": "likes"}, "row 0 of the dataset .*: its caption in 'likes' is not text"),
        ({"config": "other", "prompt": "x"}, "cannot load the dataset .*'other' not found"),
    ],
)
def test_what_is_wrong_with_the_columns_is_said(folder, load, flags, sentence):
    with pytest.raises(TrainingError, match=sentence) as refusal:
        load(folder, **flags)
    assert "\n" not in str(refusal.value)


def test_what_is_wrong_with_the_rows_is_said(folder, load, tmp_path):
    path = table(tmp_path, picture=[str(folder / "0.png"), None], words=["a", " "], others=["a", None])
    for column in ("words", "others"):
        with pytest.raises(TrainingError, match=f"row 1 of the dataset .*: its caption in '{column}' is empty"):
            load(path, image_column="picture", caption_column=column)
    with pytest.raises(TrainingError, match="cannot read the picture row 1: the row has none"):
        Pictures(load(path, image_column="picture", prompt="x").items, [(8, 8)])


def test_a_dataset_that_is_not_there_or_has_nothing_to_train_on_is_refused(folder, load, tmp_path):
    with pytest.raises(TrainingError, match=r"cannot load the dataset .*nowhere"):
        load(tmp_path / "nowhere", prompt="x")
    with pytest.raises(TrainingError, match=r"cannot load the dataset .*train"):
        load(table(tmp_path, "test", picture=[str(folder / "0.png")]), image_column="picture", prompt="x")


def test_no_rows_are_refused(monkeypatch, load):
    empty = datasets.Dataset.from_dict({"image": [], "text": []})
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: empty)
    with pytest.raises(TrainingError, match="the train split of the dataset owner/name has no rows"):
        load("owner/name", prompt="x")


def test_the_name_configuration_and_cache_are_handed_on(monkeypatch, folder, tmp_path):
    asked = []
    rows = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path))
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: asked.append((args, kwargs)) or rows)
    assert len(hub_items("owner/name", "small", "image", "text", None, "there").items) == 3
    assert asked == [(("owner/name", "small"), {"split": "train", "cache_dir": "there"})]


def test_without_the_package_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(TrainingError, match="needs the package datasets, which is not installed: pip install datasets"):
        hub_items("owner/name", prompt="x")
