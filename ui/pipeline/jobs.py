"""Longer jobs on the pipeline: a thread that tells how far it is, pictures one after the other, and a way to stop it.

Nothing here imports gradio.
"""

from __future__ import annotations

import queue
import secrets
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ui.keeping.recipe import Recipe
from ui.messages import Order
from ui.pipeline import drawing
from ui.pipeline.orders import SessionError
from ui.session import Session

MAGNIFIED = 4  # times, so that small differences can be seen


class Stopped(Exception):
    """The job was asked to stop."""


@dataclass(frozen=True)
class Progress:
    """``fraction`` of the job is done; ``text`` is ours and says what is going on."""

    fraction: float
    text: str


@dataclass(frozen=True)
class Drawn:
    """A picture, its recipe, and the file that it was saved as (None: it was not)."""

    image: Image.Image
    recipe: Recipe
    path: Path | None


Work = Callable[["Job"], Any]


class Job:
    """What a job's work is given: `tell` what is to be shown, `draw` a picture. `stop` ends it at the next step.

    Args:
        session: the pipeline, the folders.
        owner: whose job it is; one owner's jobs are stopped together.
    """

    def __init__(self, session: Session, owner: str = "") -> None:
        self.session, self.owner = session, owner
        self.halt = threading.Event()
        self.early = False  # whether it was stopped before all was done
        self.pictures = 1  # how many there will be, for the progress
        self.done = 0
        self._told: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def stop(self) -> None:
        self.halt.set()

    def tell(self, what: Any) -> None:
        self._told.put(what)

    def events(self, work: Work) -> Generator[Any, None, None]:
        """Run ``work(self)`` in a thread and yield what it tells; closing the iterator stops it.

        Raises what the work raises, as a user may read it; `Stopped` only ends it.
        """
        threading.Thread(target=self._work, args=(work,), daemon=True).start()
        try:
            while (event := self._told.get()) is not None and not isinstance(event, Exception):
                yield event
        finally:
            self.stop()
        if isinstance(event, Exception):
            raise event

    def draw(self, order: Order, *, save: bool = True) -> Drawn:
        """Make the order's first picture, and save it with its recipe. Raises Stopped when asked to stop."""
        self.check()
        with self.session.using(order, self.preparing) as (_, recipe):
            image = self.picture(recipe)
        path = drawing.save(image, recipe, self.session.output_dir) if save else None
        return Drawn(image, recipe, path)

    def picture(self, recipe: Recipe, on_step: Callable[[int], None] = lambda step: None) -> Image.Image:
        """Draw inside ``with session.using(order)``. Raises Stopped when asked to stop."""

        def step_done(step: int) -> None:
            on_step(step)
            self.progress(step, recipe.steps)

        self.check()  # it may have waited for the pipeline
        drawn = drawing.draw(self.session.base, recipe, step_done, self.halt)
        if drawn is None:
            self.early = True
            raise Stopped
        self.done += 1
        return drawn[0]

    def progress(self, step: int, steps: int) -> None:
        fraction = (self.done + step / steps) / self.pictures
        self.tell(Progress(fraction, f"Picture {self.done + 1} of {self.pictures} · step {step} of {steps}"))

    def preparing(self, text: str, step: int, steps: int) -> None:
        """Tell how far a merge is. Raises Stopped when asked to stop."""
        self.check()
        self.tell(Progress(self.done / self.pictures, f"{text} · step {step} of {steps}"))

    def check(self) -> None:
        """Raise Stopped when asked to stop."""
        if self.halt.is_set():
            self.early = True
            raise Stopped

    def _work(self, work: Work) -> None:
        try:
            work(self)
            self._told.put(None)
        except Stopped:
            self._told.put(None)
        except Exception as error:  # carried over to the thread that waits for the events
            self._told.put(self.session.for_user(error))


def seeded(order: Order) -> Order:
    """The order of one picture with a seed that is settled: drawn now, where the order says -1."""
    seed = secrets.randbelow(2**31) if order.seed == -1 else order.seed
    return replace(order, seed=seed, count=1, preview=0)


def first_adapter(order: Order) -> str:
    """The id of the adapter that is named first. Raises SessionError when there is none."""
    if not order.weights:
        raise SessionError("Choose an adapter first.")
    return next(iter(order.weights))


def distance(a: Image.Image, b: Image.Image) -> float:
    """Root mean square difference of two pictures of one size, pixel values in [0, 1]."""
    one, other = (np.asarray(image.convert("RGB"), dtype=np.float64) for image in (a, b))
    return float(np.sqrt(np.square(one - other).mean())) / 255


def difference(a: Image.Image, b: Image.Image) -> Image.Image:
    """What differs between two pictures, so many times magnified as MAGNIFIED says."""
    one, other = (np.asarray(image.convert("RGB"), dtype=np.int16) for image in (a, b))
    return Image.fromarray(np.clip(abs(one - other) * MAGNIFIED, 0, 255).astype(np.uint8))
