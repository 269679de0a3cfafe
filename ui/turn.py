"""Taking one's turn at the pipeline: who waits for others can leave the queue, who draws can stop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import gradio as gr

from ui.events import HIDDEN, PIPELINE, PRIVATE, QUICK
from ui.style import progress_bar


class Turn:
    """A progress bar, and two buttons in one place: one leaves the queue and is there while something waits in it."""

    def __init__(self, progress: gr.HTML, stop: gr.Button, leave: gr.Button) -> None:
        self.progress, self.stop, self.leave = progress, stop, leave
        self._gone: set[str] = set()  # sessions that left the queue, for which the page finds that ``do`` failed
        leave.click(self._left, outputs=self.parts, **QUICK)

    @property
    def parts(self) -> list[Any]:
        return [self.progress, self.stop, self.leave]

    @property
    def begun(self) -> dict[Any, Any]:
        """What the page shows when something has begun that can be stopped."""
        return {self.stop: gr.update(interactive=True, visible=True), self.leave: gr.update(visible=HIDDEN)}

    @property
    def going(self) -> dict[Any, Any]:
        """Nothing waits any more, should the answer that says so have come late."""
        return {self.stop: gr.update(visible=True), self.leave: gr.update(visible=HIDDEN)}

    @property
    def over(self) -> dict[Any, Any]:
        """What the page shows when nothing is left to stop."""
        return {self.stop: gr.update(interactive=False, visible=True), self.leave: gr.update(visible=HIDDEN)}

    def take(
        self, triggers: Iterable[Any], do: Any, inputs: Any, outputs: Any, busy: Callable[[str], bool], **settings: Any
    ) -> Any:
        """Have ``do`` called in turn when one of the triggers happens, and return what ends it.

        ``do`` yields updates of the page, ``begun`` with the first, ``going`` with progress, ``over`` with the last.

        Args:
            busy: whether something of a visitor, named by the hash of the session, has begun and goes on.
        """

        def wait(request: gr.Request) -> dict[Any, Any]:
            self._gone.discard(str(request.session_hash))
            if busy(str(request.session_hash)):
                return {self.progress: gr.skip()}
            waits = {self.stop: gr.update(visible=HIDDEN), self.leave: gr.update(visible=True)}
            return {self.progress: progress_bar(0, "Waiting ..."), **waits}

        triggers = list(triggers)
        gr.on(triggers, wait, outputs=self.parts, trigger_mode="once", **QUICK)
        doing = gr.on(triggers, do, inputs, outputs, trigger_mode="once", **{**settings, **PIPELINE})
        ended = doing.then(lambda: self.going, outputs=[self.stop, self.leave], **QUICK)

        def failed(request: gr.Request) -> dict[Any, Any]:
            """Before ``do`` was called too: the queue is full, or a number is out of its range."""
            if busy(str(request.session_hash)) or str(request.session_hash) in self._gone:
                return {self.progress: gr.skip()}
            return {self.progress: progress_bar(0, "That did not work."), **self.over}

        doing.failure(failed, outputs=self.parts, **QUICK)
        self.leave.click(None, cancels=[doing], queue=False, **PRIVATE)
        return ended

    def _left(self, request: gr.Request) -> dict[Any, Any]:
        if len(self._gone) == 1000:  # programs can fill it
            self._gone.clear()
        self._gone.add(str(request.session_hash))
        return {self.progress: progress_bar(0, "Not waiting any more."), **self.over}


def buttons(prefix: str, stop: str, **settings: Any) -> tuple[gr.Button, gr.Button]:
    """The two buttons; ``stop`` is the text of the one, ``prefix`` begins the ids of both."""
    return (
        gr.Button(stop, interactive=False, elem_id=f"{prefix}stop", **settings),
        gr.Button("Leave queue", visible=HIDDEN, elem_id=f"{prefix}leave", **settings),
    )
