"""Validation pictures: one sheet a time, every prompt without and with the adapter, from the same noise."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from ..blend import set_enabled
from ..grid import labelled_grid
from ..state import get_adapters
from .checkpoints import random_states, set_random_states
from .decoding import full_precision
from .draws import generator_for
from .families import Family
from .prompts import Prompts

SEED = 0  # of the noise that the pictures start from: the same in every run, so that runs can be compared
LABEL_LENGTH = 110  # characters of a prompt beside its row


class Validation:
    """Draws the sheets. The base model's row is drawn once; training is left as it was."""

    def __init__(
        self,
        family: Family,
        parts: Mapping[str, nn.Module],
        texts: Sequence[str],
        prompts: Prompts,
        *,
        resolution: int,
        num_images: int,
        guidance_scale: float,
        inference_steps: int,
        device: torch.device,
    ):
        """`parts` are the models that carry adapters; `prompts` must have all `texts` and the empty one."""
        self.family = family
        self.pipe = without_text(family)
        self.pipe.set_progress_bar_config(disable=True)
        self.parts = dict(parts)
        self.texts = list(dict.fromkeys(texts))
        self.prompts = prompts
        self.resolution = resolution
        self.num_images = num_images
        self.guidance_scale = guidance_scale
        self.inference_steps = inference_steps
        self.device = device
        self._base: list[list[Image.Image]] | None = None

    def sheet(self, step: int, autocast: AbstractContextManager) -> Image.Image:
        """One picture with two rows for each prompt: the base model's, and the adapted model's."""
        with torch.no_grad(), self._undisturbed(), autocast:
            if self._base is None:
                self._base = self._base_rows()
            adapted = [self._row(text) for text in self.texts]
        rows = [row for pair in zip(self._base, adapted, strict=True) for row in pair]
        labels = [f"{kind}: {shortened(text)}" for text in self.texts for kind in ("base", "adapted")]
        columns = [f"noise {i}" for i in range(self.num_images)]
        return labelled_grid(rows, labels, columns, title=f"step {step}")

    def save(self, folder: Path, step: int, autocast: AbstractContextManager) -> Path:
        """Draw the sheet into ``folder/step-<step>.png``."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"step-{step}.png"
        self.sheet(step, autocast).save(path)
        return path

    def _base_rows(self) -> list[list[Image.Image]]:
        for model in self.parts.values():
            set_enabled(model, False)
        try:
            return [self._row(text) for text in self.texts]
        finally:
            for model in self.parts.values():
                set_enabled(model, True)

    def _row(self, text: str) -> list[Image.Image]:
        """One by one: where training fills the memory, several at once would not fit."""
        asked = self.family.call_arguments(self.prompts[text], self.prompts[""], 1, self.guidance_scale)
        size = {"height": self.resolution, "width": self.resolution, "num_inference_steps": self.inference_steps}
        noises = [generator_for(SEED, "validation", i) for i in range(self.num_images)]
        return [self.pipe(**asked, **size, generator=[noise]).images[0] for noise in noises]

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        states, home = random_states(), self.pipe.vae.device
        adapters = [adapter for model in self.parts.values() for adapter in get_adapters(model).values()]
        modes = [adapter.training for adapter in adapters]
        self.pipe.vae.to(self.device)
        for adapter in adapters:
            adapter.eval()
        try:
            with full_precision(self.pipe.vae):
                yield
        finally:
            for adapter, training in zip(adapters, modes, strict=True):
                adapter.train(training)
            self.pipe.vae.to(home)
            set_random_states(states)


def without_text(family: Family) -> Any:
    """A pipeline of the family's parts with a scheduler of its own, for prompts that are encoded already."""
    pipe = family.pipe
    parts = {**pipe.components, **dict.fromkeys(family.text_parts)}
    parts["scheduler"] = type(pipe.scheduler).from_config(pipe.scheduler.config)
    known = inspect.signature(type(pipe).__init__).parameters
    options = {name: value for name, value in pipe.config.items() if name in known and name not in parts}
    return type(pipe)(**parts, **options)


def shortened(text: str) -> str:
    """A prompt as it fits beside a row of pictures."""
    if len(text) <= LABEL_LENGTH:
        return text
    cut = text[: LABEL_LENGTH - 1]
    if " " in cut[-20:]:  # not in some scripts, nor within a word that is a story of its own
        cut = cut.rpartition(" ")[0]
    return cut.rstrip(" ,.") + "…"
