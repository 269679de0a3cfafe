"""What passes between the page and the session: an order goes in, events come out, cards tell about adapters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ui.recipe import Recipe


@dataclass(frozen=True)
class AdapterCard:
    """What the page shows of one adapter. ``reason`` says why it cannot be used with the base, or is None."""

    id: str
    name: str
    about: str
    trigger_words: tuple[str, ...]
    reason: str | None


@dataclass(frozen=True)
class Order:
    """What a user asks for. ``seed`` -1 means a random one; ``weights`` maps adapter ids to blend weights."""

    prompt: str
    negative_prompt: str = ""
    steps: int = 25
    guidance_scale: float = 5.0
    width: int = 64
    height: int = 64
    seed: int = -1
    count: int = 1
    weights: Mapping[str, float] | None = None


@dataclass(frozen=True)
class Step:
    """A denoising step is done: ``step`` of ``steps`` of picture number ``picture`` (from 1) of ``pictures``."""

    picture: int
    pictures: int
    step: int
    steps: int


@dataclass(frozen=True)
class Picture:
    """A picture is done and saved."""

    path: Path
    recipe: Recipe
    hidden: bool  # the base model's safety checker blackened it


@dataclass(frozen=True)
class Finished:
    """The run is over, after ``pictures`` pictures."""

    pictures: int
    interrupted: bool


Event = Step | Picture | Finished
