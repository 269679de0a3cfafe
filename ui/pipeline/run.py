"""One run: pictures made one after the other in a thread of its own, and what it tells while it works."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from ui.keeping.recipe import MAX_SEED, Recipe
from ui.messages import Event, Finished, Picture, Preparing, Preview, Step
from ui.pipeline import drawing
from ui.pipeline.base_models import BaseModel
from ui.pipeline.orders import Weights
from ui.pipeline.preview import nearly_clean

if TYPE_CHECKING:
    from ui.session import Session


class _Interrupted(Exception):
    """Raised out of the pipeline while adapters are merged, before the first picture."""


class Run:
    """``count`` pictures from seeds that count up; ``preview`` is the number of steps between two previews, or 0."""

    def __init__(
        self, session: Session, recipe: Recipe, files: Weights, count: int, preview: int = 0, owner: str = ""
    ) -> None:
        self.session, self.owner = session, owner
        self.recipe, self.files, self.count, self.preview = recipe, files, count, preview
        self._ended = threading.Event()  # the whole run
        self._halt = threading.Event()  # the picture that is being made; set after `_ended`, cleared before it is read
        self._before: torch.Tensor | None = None  # the latents of the step before, and how many steps were made
        self._calls = 0
        self._told: queue.SimpleQueue[Event | Exception] = queue.SimpleQueue()

    def events(self) -> Generator[Event, None, None]:
        """Start, and yield what happens; the last is `Finished`. Closing the iterator interrupts the run."""
        threading.Thread(target=self._work, daemon=True).start()
        try:
            while not isinstance(event := self._told.get(), (Finished, Exception)):
                yield event
        finally:
            self.interrupt()
        if isinstance(event, Exception):
            raise event
        yield event

    def interrupt(self) -> None:
        """Stop at the next step."""
        self._ended.set()
        self._halt.set()

    def skip(self) -> None:
        """Leave the picture that is being made at its next step."""
        self._halt.set()

    def _work(self) -> None:
        try:
            with self.session.prepared(self.recipe, self.files, self._preparing) as base:
                finished = self._pictures(base)
            self._told.put(finished)
        except _Interrupted:
            self._told.put(Finished(0, interrupted=True))
        except Exception as error:  # carried over to the thread that waits for the events
            self._told.put(self.session.for_user(error))

    def _pictures(self, base: BaseModel) -> Finished:
        done = 0
        for number in range(1, self.count + 1):
            self._halt.clear()
            if self._ended.is_set():
                return Finished(done, interrupted=True)
            one = replace(self.recipe, seed=(self.recipe.seed + number - 1) % (MAX_SEED + 1))
            self._before, self._calls = None, 0
            on_latents = partial(self._show, number, base.pipe.scheduler) if self.preview else None
            drawn = drawing.draw(base, one, partial(self._step, number), self._halt, on_latents)
            if drawn is not None:
                path = drawing.save(drawn[0], one, self.session.output_dir)
                self._told.put(Picture(path, one, hidden=drawn[1], id=self.session.history.add(path, one)))
                done += 1
        return Finished(done, interrupted=self._ended.is_set() and drawn is None)

    def _preparing(self, text: str, step: int, steps: int) -> None:
        if self._ended.is_set():
            raise _Interrupted
        self._told.put(Preparing(text, step, steps))

    def _step(self, picture: int, step: int) -> None:
        self._told.put(Step(picture, self.count, step, self.recipe.steps))

    def _show(self, picture: int, scheduler: Any, step: int, latents: torch.Tensor) -> None:
        before, self._before, self._calls = self._before, latents, self._calls + 1
        if step % self.preview == 0 and step < self.recipe.steps:
            size = self.recipe.width, self.recipe.height
            image = self.session.previewer.picture(nearly_clean(scheduler, self._calls, before, latents), size)
            if image is not None:
                self._told.put(Preview(picture, image))
