"""What passes between the page and the session: an order goes in, events come out, cards tell about adapters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from PIL.Image import Image

from ui.keeping.recipe import SUM, Recipe


@dataclass(frozen=True)
class AdapterCard:
    """What the page shows of one adapter. ``reason`` says why it cannot be used with the base, or is None."""

    id: str
    name: str
    about: str
    trigger_words: tuple[str, ...]
    reason: str | None
    folder: str = ""  # the sub-folder that it is in
    base: str = ""  # the base model that it was trained on
    date: str = ""


@dataclass(frozen=True)
class Order:
    """What a user asks for.

    Attributes:
        seed: of the first picture; -1 draws one.
        weights: adapter id -> a number, or the text of `lily_diffusion.adapter_weight` for blocks and steps.
        scheduler: a name of `ui.pipeline.schedulers`; empty is the base model's own.
        blend: one of `ui.keeping.recipe.BLENDS`, how the adapters are combined.
        preview: a small picture of what is there every so many steps; 0 for none.
        base_model: the label of the one that it is meant for; empty: whichever is loaded.
    """

    prompt: str
    negative_prompt: str = ""
    steps: int = 25
    guidance_scale: float = 5.0
    width: int = 64
    height: int = 64
    seed: int = -1
    count: int = 1
    weights: Mapping[str, float | str] | None = None
    scheduler: str = ""
    preview: int = 0
    blend: str = SUM
    base_model: str = ""


@dataclass(frozen=True)
class Preparing:
    """Before the first picture of a merge: ``step`` of ``steps`` of what ``text`` says, which is ours."""

    text: str
    step: int
    steps: int


@dataclass(frozen=True)
class Step:
    """A denoising step is done: ``step`` of ``steps`` of picture number ``picture`` (from 1) of ``pictures``."""

    picture: int
    pictures: int
    step: int
    steps: int


@dataclass(frozen=True)
class Preview:
    """What picture number ``picture`` looks like so far, small and rough."""

    picture: int
    image: Image


@dataclass(frozen=True)
class Picture:
    """A picture is done and saved."""

    path: Path
    recipe: Recipe
    hidden: bool  # the base model's safety checker blackened it
    id: str = ""  # its id in the history


@dataclass(frozen=True)
class Finished:
    """The run is over, after ``pictures`` pictures."""

    pictures: int
    interrupted: bool


Event = Preparing | Step | Preview | Picture | Finished
