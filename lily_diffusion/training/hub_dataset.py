"""Pictures and captions from a dataset of the hub, or from any folder or file that the package `datasets` can load."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import Any, BinaryIO

from .captions import one_line
from .dataset import Item, Listing
from .errors import TrainingError
from .masks import ALPHA


def hub_items(
    name: str,
    config: str | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
    prompt: str | None = None,
    cache_dir: str | None = None,
    *,
    alpha_mask: bool = False,
) -> Listing:
    """The pictures of the train split, in its order, each read when it is asked for.

    Args:
        name: an id such as owner/name, or a folder.
        config: which of its configurations.
        image_column: the column of pictures; "image" if None.
        caption_column: the column of captions; None gives every picture `prompt`.
        prompt: the caption of all where there is no column of captions.
        cache_dir: where `datasets` keeps what it downloads and converts; None for its own place.
        alpha_mask: the pictures' own alpha channels are their masks.

    Raises:
        TrainingError: `datasets` is not installed; the dataset cannot be loaded or has no rows; a column is not there
            or holds something else; a caption is empty, or there is none at all.
    """
    rows = _load(name, config, cache_dir)
    image_column = image_column or "image"
    for flag, column in (("image_column", image_column), ("caption_column", caption_column)):
        if column is not None and column not in rows.column_names:
            there = ", ".join(rows.column_names)
            raise TrainingError(f"the dataset {name} has no column {column!r} for --{flag}; it has {there}")
    if caption_column is None and not prompt:
        others = ", ".join(column for column in rows.column_names if column != image_column) or "none but pictures"
        raise TrainingError(f"{name} has no captions: give --instance_prompt, or --caption_column; there is {others}")
    captions = _captions(rows, caption_column, name) if caption_column is not None else [str(prompt)] * len(rows)
    encoded = _undecoded(rows, image_column, name)
    items = [
        Item(
            path=Path(f"row {index}"),
            caption=caption,
            mask=ALPHA if alpha_mask else None,
            load=functools.partial(_open, encoded, image_column, index),
        )
        for index, caption in enumerate(captions)
    ]
    return Listing(items)


def _load(name: str, config: str | None, cache_dir: str | None) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise TrainingError(
            "--dataset_name needs the package datasets, which is not installed: pip install datasets"
        ) from error
    try:
        rows = datasets.load_dataset(name, config, split="train", cache_dir=cache_dir)
    except Exception as error:  # hub, file and format errors are of many kinds, and all mean the same here
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise TrainingError(f"cannot load the dataset {name}: {reason}") from error
    if not len(rows):
        raise TrainingError(f"the train split of the dataset {name} has no rows; take another dataset")
    return rows


def _captions(rows: Any, column: str, name: str) -> list[str]:
    captions = []
    for index, caption in enumerate(rows[column]):
        if not isinstance(caption, str) or not one_line(caption):
            wrong = "is empty" if caption is None or isinstance(caption, str) else "is not text"
            raise TrainingError(f"row {index} of the dataset {name}: its caption in {column!r} {wrong}")
        captions.append(one_line(caption))
    return captions


def _undecoded(rows: Any, column: str, name: str) -> Any:
    """The rows with their pictures as files, so that they are decoded here as any other picture is."""
    import datasets

    if not isinstance(kind := rows.features[column], datasets.Image):
        held = getattr(kind, "dtype", None) or type(kind).__name__
        raise TrainingError(f"the column {column!r} of {name} holds {held}, not pictures; give another --image_column")
    return rows.select_columns([column]).cast_column(column, datasets.Image(decode=False))


def _open(rows: Any, column: str, index: int) -> BinaryIO:
    picture = rows[index][column]
    if picture is None:
        raise ValueError("the row has none")
    content = picture["bytes"]
    return io.BytesIO(content if content is not None else Path(picture["path"]).read_bytes())
