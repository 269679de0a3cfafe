"""What the buttons of the training tab do: between the page's components and the runs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr

from ui.generate.asking import told, user_errors
from ui.pipeline.orders import within
from ui.style import progress_bar, spoken
from ui.train import training_pictures
from ui.train.loss_chart import loss_chart
from ui.train.training_pictures import MAX_PICTURES, Draft
from ui.train.training_runs import FAILED, FINISHED, MAX_RESOLUTION, RUNNING, STOPPED, Status, Trainings, Wish

MIN_RESOLUTION = 8


class TrainActions:
    """Every error that a user can cause becomes a message."""

    def __init__(self, trainings: Trainings, ui: SimpleNamespace) -> None:
        self.trainings, self.ui = trainings, ui

    def open_page(self) -> list[Any]:
        """The newest run, as its folder tells it."""
        return self._status("", ())

    def look(self, files: list[str] | None, resolution: float, word: str, kind: str) -> list[Any]:
        with user_errors():
            draft = self.trainings.drafts.make([Path(file) for file in files or []])
            return [None, *self._looked(draft, resolution, word, kind)]

    def look_at_folder(self, folder_id: str, resolution: float, word: str, kind: str) -> list[Any]:
        with user_errors():
            return self._looked(self.trainings.drafts.of_folder(folder_id), resolution, word, kind)

    def cut_again(self, draft_id: str, resolution: float) -> list[Any]:
        with user_errors():
            if not draft_id:
                return [gr.skip()] * MAX_PICTURES
            return _filled(self._crops(self.trainings.drafts.get(draft_id), resolution))

    def reword(self, draft_id: str, auto: str, word: str, kind: str, *captions: str) -> list[Any]:
        """Captions that nobody wrote follow the words."""
        now = _auto(word, kind)
        if not draft_id or now == auto:
            return [gr.skip()] * (1 + MAX_PICTURES)
        return [now, *(now if caption == auto else gr.skip() for caption in captions)]

    def start(self, draft_id: str, auto: str, word: str, kind: str, steps: float, rank: float, rate: float,
              resolution: float, seed: float, sample: str, *shown: str) -> list[Any]:  # fmt: skip
        with user_errors():
            draft = self.trainings.drafts.get(draft_id)
            captions = [_auto(word, kind) if caption == auto else caption for caption in shown]  # not reworded yet
            wish = Wish(word, kind, steps, rank, rate, resolution, seed, sample)  # type: ignore[arg-type]
            return self._status(self.trainings.start(wish, draft, captions), ())

    def stop(self, run_id: str) -> list[Any]:
        with user_errors():
            self.trainings.stop(run_id)
            told("It stops after this step and saves.")
            return self._status(run_id, ())

    def resume(self, run_id: str) -> list[Any]:
        with user_errors():
            self.trainings.resume(run_id)
            return self._status(run_id, ())

    def keep(self, run_id: str) -> list[Any]:
        with user_errors():
            self.trainings.keep(run_id)
            return self._status(run_id, ())

    def choose(self, run_id: str) -> list[Any]:
        with user_errors():
            return self._status(run_id, ())

    def look_again(self, run_id: str, shown: tuple[str, ...]) -> list[Any]:
        return self._status(run_id, tuple(shown))

    def _looked(self, draft: Draft, resolution: float, word: str, kind: str) -> list[Any]:
        auto, crops = _auto(word, kind), _filled(self._crops(draft, resolution))
        count = len(draft.pictures)
        sizes = [f"{picture.size[0]} x {picture.size[1]}" for picture in draft.pictures]
        small = [str(n) for n, p in enumerate(draft.pictures, 1) if min(p.size) < resolution]
        notes = [*draft.notes, *([f"Smaller than {resolution:g} pixels: {', '.join(small)}."] if small else [])]
        rows = [gr.update(visible=number < count) for number in range(MAX_PICTURES)]
        captions = [
            gr.update(value=picture.caption or auto, label=f"Caption {number} ({size})")
            for number, (picture, size) in enumerate(zip(draft.pictures, sizes, strict=True), 1)
        ]
        text = "\n\n".join(spoken(note) for note in notes)
        return [draft.id, auto, text, *rows, *crops, *captions, *[""] * (MAX_PICTURES - count)]

    def _crops(self, draft: Draft, resolution: float) -> list[Any]:
        within("resolution", resolution, MIN_RESOLUTION, MAX_RESOLUTION)
        return [training_pictures.cut(picture.path, int(resolution)) for picture in draft.pictures]

    def _status(self, run_id: str, shown: tuple[str, ...]) -> list[Any]:
        """What to put into the components for a run, or for the newest one where none is named."""
        with user_errors():
            status = self.trainings.status(run_id or None)
            if status is None:
                return [gr.skip()] * 11
            names = (status.id, *(path.name for path in status.samples))
            return [
                status.id, names, _bar(status), loss_chart(status.curve, status.steps),
                gr.skip() if names == shown else self._samples(status),
                spoken(_message(status)),
                gr.update(interactive=status.state == RUNNING),
                gr.update(visible=status.state in (STOPPED, FAILED)),
                gr.update(visible=status.state == STOPPED and not status.adapter),
                self._runs(status) if names != shown or status.state != RUNNING else gr.skip(),
                gr.Timer(active=status.state == RUNNING),
            ]  # fmt: skip

    def _samples(self, status: Status) -> Any:
        copied = self.ui.samples.move_resource_to_block_cache
        return [(copied(path), path.stem.replace("step-", "step ")) for path in status.samples]

    def _runs(self, status: Status) -> Any:
        runs = self.trainings.runs()
        choices = [(title, key) for key, title in runs.items()]
        return gr.update(choices=choices, value=status.id, visible=len(choices) > 1)


def _auto(word: object, kind: object) -> str:
    return " ".join(["a", *(text.strip() for text in (word, kind) if isinstance(text, str) and text.strip())])


def _filled(crops: list[Any]) -> list[Any]:
    return [*crops, *[None] * (MAX_PICTURES - len(crops))]


def _bar(status: Status) -> str:
    from lily_diffusion.training.progress_bar import duration  # needs what training needs

    place = f"step {status.step} of {status.steps}"
    words = {
        RUNNING: f"Training · {place}" if status.step else "Getting ready: the base model and the pictures are read.",
        FINISHED: f"Done · {place}",
        STOPPED: f"Stopped · {place}",
        FAILED: "That did not work.",
    }
    left = f" · {duration(status.seconds_left)} left" if status.seconds_left is not None else ""
    loss = f" · loss {status.curve[-1][1]:.4f}" if status.curve and status.state == RUNNING else ""
    return progress_bar(status.step / status.steps, words[status.state] + loss + left)


def _message(status: Status) -> str:
    if status.adapter:
        return f"In the list of adapters as {status.adapter}."
    if status.message:
        return status.message
    if status.state == FAILED:
        return "The training ended before its first step. Its log says more: log.txt in the folder of the run."
    return "It can go on where it stopped." if status.state == STOPPED else ""
