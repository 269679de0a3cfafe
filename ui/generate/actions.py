"""What the buttons do that make pictures: generate, interrupt, skip; and loading a base model."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import gradio as gr

from ui.events import HIDDEN
from ui.generate.asking import FIXED, OWN_SCHEDULER, next_seed, order_of, user_errors
from ui.keeping.recipe import infotext
from ui.keeping.thumbnails import address
from ui.messages import Finished, Order, Picture, Preparing, Preview, Step
from ui.pipeline import schedulers
from ui.session import Session
from ui.style import careful, progress_bar, spoken
from ui.translations import said, speaking

SMALL_EDGE = 128  # pixels up to which a picture is enlarged without smoothing


class Actions:
    """Every error that a user can cause becomes a message; others name only their kind."""

    def __init__(self, session: Session, ui: SimpleNamespace) -> None:
        self.session, self.ui = session, ui

    def load_base(self, name: str) -> str:
        with user_errors():
            return self.session.load_base(str(name or "")).label

    def based(self) -> list[Any]:
        """What the page shows of the base model, in the order of ``ui.based``."""
        base = self.session.base
        fits = base.defaults
        checker = "with" if base.checks_pictures else "without"
        note = spoken(f"{type(base.pipe).__name__} on {base.pipe.device}, {checker} a safety checker.")
        pixelated = gr.update(elem_classes=["pixelated"] if max(fits.width, fits.height) <= SMALL_EDGE else [])
        return [
            gr.update(label=said(f"Base model: {base.label}")),
            gr.update(choices=self.session.base_labels, value=base.label), note, fits.steps, fits.guidance_scale,
            gr.update(value=fits.width, step=fits.size_step), gr.update(value=fits.height, step=fits.size_step),
            gr.update(choices=[OWN_SCHEDULER, *schedulers.names(base.pipe)[1:]], value=OWN_SCHEDULER),
            pixelated, pixelated, pixelated,
        ]  # fmt: skip

    @speaking
    def generate(self, request: gr.Request, *values: Any) -> Iterator[dict[Any, Any]]:
        ui = self.ui
        try:
            with user_errors():
                order = replace(order_of(values[:-1], self.session.styles.all()), base_model=str(values[-1] or ""))
                yield from self._pictures(order, str(values[9]), str(request.session_hash))
        except gr.Error:
            idle = {**ui.turn.over, ui.skip: gr.update(interactive=False)}
            yield {ui.progress: progress_bar(0, "That did not work."), ui.preview: "", **idle}
            raise

    def _pictures(self, order: Order, mode: str, owner: str) -> Iterator[dict[Any, Any]]:
        ui, pace = self.ui, _Pace()
        made: list[Picture] = []
        with closing(self.session.generate(order, owner)) as run:
            yield {
                ui.progress: progress_bar(0, "Starting ..."),
                ui.gallery: gr.update(value=[], columns=_columns(order.count)),
                ui.note: "",
                ui.info: gr.update(visible=HIDDEN),
                ui.made: [],
                **ui.turn.begun,
                ui.skip: gr.update(interactive=order.count > 1),
            }
            for event in run:
                if isinstance(event, Step):
                    yield {ui.progress: pace.bar(event), **ui.turn.going}
                elif isinstance(event, Preparing):
                    yield {ui.progress: progress_bar(0, _preparing(event)), **ui.turn.going}
                elif isinstance(event, Preview):
                    yield {ui.preview: _small(event, bool(made))}
                elif isinstance(event, Picture):
                    made.append(event)
                    yield self._shown(made)
                else:
                    yield self._ended(event, order, mode, made)

    def _shown(self, made: list[Picture]) -> dict[Any, Any]:
        """What the page shows when another picture is done. Until the end, what was chosen meanwhile stays in hand."""
        ui, last = self.ui, made[-1]
        kept = [picture for picture in made if self.session.history.has(picture.id)]
        cached = [(ui.gallery.move_resource_to_block_cache(p.path), f"seed {p.recipe.seed}") for p in kept]
        return {
            ui.gallery: cached,
            ui.made: [(p.id, p.recipe.seed) for p in kept],
            ui.preview: "",
            ui.note: said("The safety checker of the base model blackened a picture.") if last.hidden else "",
            **(self._in_hand(last) if len(made) == 1 else {}),
        }

    def _in_hand(self, picture: Picture) -> dict[Any, Any]:
        ui = self.ui
        return {
            ui.info: gr.update(value=infotext(picture.recipe), visible=True),
            ui.hand: picture.id,
            ui.tools: gr.update(visible=True),
        }

    def _ended(self, event: Finished, order: Order, mode: str, made: list[Picture]) -> dict[Any, Any]:
        ui = self.ui
        text = f"Done: {event.pictures} picture{'s' if event.pictures != 1 else ''}."
        if event.interrupted:
            text = f"Interrupted: {event.pictures} of {order.count} pictures are done."
        update: dict[Any, Any] = {ui.progress: progress_bar(event.pictures / order.count, text), ui.preview: ""}
        update |= {**ui.turn.over, ui.skip: gr.update(interactive=False)}
        if made:
            first, last = made[0].recipe.seed, made[-1].recipe.seed
            if mode != FIXED:  # what was typed meanwhile stays
                update[ui.seed] = next_seed(mode, first, last)
            update[ui.note] = self._note(order, first)
            if self.session.history.has(made[-1].id):  # not deleted meanwhile
                update |= self._in_hand(made[-1])
        return update

    def _note(self, order: Order, seed: int) -> str:
        cut = self.session.unread_part(order.prompt)
        unread = careful("The base model does not read the end of this prompt:", cut) if cut else ""
        return said(f"Saved in the output folder, each with its recipe. First seed: {seed}.") + unread

    def interrupt(self, request: gr.Request) -> Any:
        self.session.interrupt(str(request.session_hash))
        return gr.update(interactive=False)

    def skip(self, request: gr.Request) -> None:
        self.session.skip(str(request.session_hash))


class _Pace:
    """How long the rest of a run takes, told from its steps so far."""

    def __init__(self) -> None:
        self._start: tuple[float, int] | None = None

    def bar(self, event: Step) -> str:
        done = (event.picture - 1) * event.steps + event.step
        total, now = event.pictures * event.steps, time.monotonic()
        if self._start is None:
            self._start = (now, done)
        began, first = self._start
        text = f"Picture {event.picture} of {event.pictures} · step {event.step} of {event.steps}"
        if done - first >= 2:
            left = (now - began) / (done - first) * (total - done)
            text += f" · {_spoken(left)} left" if left >= 1 else ""
        return progress_bar(done / total, text)


def _preparing(event: Preparing) -> str:
    return f"{event.text} · step {event.step} of {event.steps}"


def _spoken(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _small(event: Preview, beside: bool) -> str:
    """The HTML of a preview: large while there is nothing else to see."""
    data = io.BytesIO()
    event.image.save(data, format="WEBP", quality=80)
    kind = "beside" if beside else "alone"
    return f'<img class="{kind}" src="{address(data.getvalue())}" alt="Preview of picture {event.picture}">'


def _columns(pictures: int) -> int:
    return 1 if pictures == 1 else 2 if pictures <= 4 else 3
