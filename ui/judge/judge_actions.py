"""What the buttons of the judging tab do: between the page's components and the jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import gradio as gr

from ui.events import HIDDEN, QUICK
from ui.generate.asking import user_errors
from ui.judge import block_view, compare, order_form, router_view, xyz
from ui.judge.axes import KINDS
from ui.judge.order_form import OrderForm
from ui.pipeline.jobs import Job, Progress, Work
from ui.session import Session
from ui.style import progress_bar, spoken
from ui.translations import said, speaking
from ui.turn import Turn

Show = Callable[[Any], dict[Any, Any]]


class Jobs:
    """Runs the jobs of all visitors of a tab, with a progress bar; each visitor stops only their own."""

    def __init__(self, session: Session, turn: Turn) -> None:
        self.session, self.turn = session, turn
        self._running: set[Job] = set()
        turn.stop.click(self.stop, outputs=[turn.stop], **QUICK)

    def start_by(self, button: gr.Button, do: Any, inputs: list[Any], shown: list[Any]) -> None:
        """Have the button start what ``do`` runs here; ``shown`` are the components that it shows things in."""
        self.turn.take([button.click], do, inputs, [*self.turn.parts, *shown], self.is_running, show_progress="hidden")

    def is_running(self, owner: str) -> bool:
        return any(job.owner == owner for job in tuple(self._running))

    def run(self, request: gr.Request, work: Callable[[], Work], show: Show, clear: dict) -> Iterator[dict]:
        """Yield updates of the page: ``clear`` at first, ``show(event)`` for all but progress."""
        job = Job(self.session, str(request.session_hash or ""))
        bar, over = self.turn.progress, self.turn.over
        try:
            with user_errors():
                doing = work()
                self._running.add(job)
                yield {**clear, bar: progress_bar(0, "Starting ..."), **self.turn.begun}
                yield from self._events(job, doing, show)
        except gr.Error:
            yield {bar: progress_bar(0, "That did not work."), **over}
            raise
        finally:
            self._running.discard(job)
        text = f"Stopped: {job.done} of {job.pictures} pictures are done." if job.pictures > 1 else "Stopped."
        yield {bar: progress_bar(job.done / job.pictures, text) if job.early else progress_bar(1, "Done."), **over}

    def _events(self, job: Job, work: Work, show: Show) -> Iterator[dict]:
        with closing(job.events(work)) as events:
            for event in events:
                if isinstance(event, Progress):
                    yield {self.turn.progress: progress_bar(event.fraction, event.text), **self.turn.going}
                else:
                    yield show(event)

    def stop(self, request: gr.Request) -> Any:
        for job in [job for job in tuple(self._running) if job.owner == str(request.session_hash or "")]:
            job.stop()
        return gr.update(interactive=False)


class Actions:
    """The tab's handlers. ``ui`` holds its components."""

    def __init__(self, session: Session, form: OrderForm, ui: SimpleNamespace) -> None:
        self.session, self.form, self.ui = session, form, ui
        self.jobs = Jobs(session, ui.turn)

    @speaking
    def compare(self, request: gr.Request, *values: Any) -> Iterator[dict]:
        ui = self.ui

        def show(event: compare.Compared) -> dict[Any, Any]:
            paths = [str(ui.slider.move_resource_to_block_cache(d.path)) for d in (event.base, event.adapted)]
            return {ui.slider: gr.update(value=tuple(paths), visible=True), ui.compared: spoken(event.sentence)}

        clear = {ui.slider: gr.update(value=None, visible=HIDDEN), ui.compared: ""}
        yield from self.jobs.run(request, lambda: _ordered(compare.compare, values), show, clear)

    @speaking
    def grid(self, request: gr.Request, *values: Any) -> Iterator[dict]:
        ui, n = self.ui, len(self.form.inputs)

        def work() -> Work:
            axes = list(zip(values[n::2], values[n + 1 :: 2], strict=True))
            grid = xyz.plan(self.session, order_form.order(values), [(str(a or ""), str(v or "")) for a, v in axes])
            return lambda job: xyz.draw_grid(job, grid)

        def show(event: xyz.Sheet) -> dict[Any, Any]:
            if event.path is None:
                return {ui.sheet: gr.update(value=event.image, visible=True)}
            shown = ui.sheet.move_resource_to_block_cache(event.path)
            note = said(f"{event.cells} pictures, each saved with its recipe, and the sheet with its legends.")
            if event.cells < event.wanted:
                note += " " + said(f"{event.wanted - event.cells} were not drawn.")
            return {ui.sheet: gr.update(value=shown, visible=True), ui.gridded: note}

        clear = {ui.sheet: gr.update(value=None, visible=HIDDEN), ui.gridded: ""}
        yield from self.jobs.run(request, work, show, clear)

    @speaking
    def routers(self, request: gr.Request, *values: Any) -> Iterator[dict]:
        ui = self.ui

        def show(event: router_view.Routed | str) -> dict[Any, Any]:
            if isinstance(event, str):
                return {ui.routed: spoken(event)}
            shown = ui.map.move_resource_to_block_cache(event.path)
            drawn = ui.watched.move_resource_to_block_cache(event.drawn.path)
            return {
                ui.routed: spoken(event.sentence),
                ui.map: gr.update(value=shown, visible=True),
                ui.watched: gr.update(value=drawn, visible=True),
            }

        clear = {ui.routed: "", **{box: gr.update(value=None, visible=HIDDEN) for box in (ui.map, ui.watched)}}
        yield from self.jobs.run(request, lambda: _ordered(router_view.view, values), show, clear)

    @speaking
    def blocks(self, request: gr.Request, *values: Any) -> Iterator[dict]:
        ui = self.ui

        def show(event: block_view.Blocks) -> dict[Any, Any]:
            shown = ui.bars.move_resource_to_block_cache(event.path) if event.path else event.sheet
            return {ui.bars: gr.update(value=shown, visible=True), ui.ranked: spoken(event.sentence)}

        clear = {ui.bars: gr.update(value=None, visible=HIDDEN), ui.ranked: ""}
        yield from self.jobs.run(request, lambda: _ordered(block_view.view, values), show, clear)


def example(axis: str | None) -> Any:
    """The example of an axis' values, in the empty box for them."""
    kind = KINDS.get(axis or "")
    return gr.update(placeholder=f"such as {kind.example}" if kind else "", interactive=kind is not None)


def _ordered(view: Callable[[Job, Any], None], values: tuple[Any, ...]) -> Work:
    order = order_form.order(values)
    return lambda job: view(job, order)
