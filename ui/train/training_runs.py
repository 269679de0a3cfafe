"""Trainings that the page starts: one at a time, each in a folder that says all about it, so that a page that is
loaded or started anew finds it again.

<output_dir>/training/runs/<id>/   run.json  log.txt  pictures/  result/ (the script's own output folder)
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lily_diffusion.base_model import FOLDERS
from lily_diffusion.save_and_load import WEIGHT_NAME
from ui.keeping.recipe import clean_name
from ui.pipeline.adapter_folder import SUFFIX, AdapterFolderError, without_paths
from ui.pipeline.orders import SessionError, within
from ui.session import Session
from ui.train import training_process
from ui.train.training_pictures import Draft, Drafts, caption_of

OFF = "Training is off while the page listens to other machines. Start it with --allow_training to switch it on."
RUN = "run.json"
RESULT = "result"
MAX_STEPS, MAX_RANK, MAX_RESOLUTION, MAX_SEED = 20_000, 256, 2048, 2**31 - 1
MAX_WORDS = 60  # characters
SAMPLES = 12  # sheets that are shown, the newest first
RUNNING, FINISHED, STOPPED, FAILED = "running", "finished", "stopped", "failed"
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Wish:
    """What a user wants trained. ``learning_rate`` 0: the script's own for the rank; ``seed`` -1 draws one."""

    word: str
    kind: str
    steps: int
    rank: int
    learning_rate: float
    resolution: int
    seed: int
    sample: str  # a prompt to draw while it trains; empty: the words alone


@dataclass(frozen=True)
class Record:
    """``run.json``."""

    title: str
    base_model: str
    steps: int
    started: float  # seconds since 1970
    arguments: tuple[str, ...]
    pid: int = 0
    begun: float = 0.0  # of the process
    adapter: str = ""  # the name under which the result was added


@dataclass(frozen=True)
class Status:
    """Where a run stands; ``curve`` has (step, loss, trend) of every step that is in ``loss.csv``."""

    id: str
    title: str
    state: str
    step: int
    steps: int
    curve: tuple[tuple[int, float, float], ...]
    seconds_left: float | None
    samples: tuple[Path, ...]
    message: str
    adapter: str


class Trainings:
    """The runs below the session's output folder. Safe to call from threads."""

    def __init__(self, session: Session, *, allowed: bool = True, pictures: Path | None = None) -> None:
        """``pictures``: a folder of the server whose sub-folders may be trained on."""
        self.session = session
        self.reason = training_process.missing() if allowed else OFF  # why training is off, or None
        self.root = session.output_dir / "training" / "runs"
        self.drafts = Drafts(session.output_dir / "training" / "drafts", pictures)
        self._lock = threading.Lock()

    def start(self, wish: Wish, draft: Draft, captions: Sequence[object]) -> str:
        """Start a run on the base model that is loaded, and return its id.

        Raises:
            SessionError: training is off, one is running, or the wish cannot be met.
        """
        arguments, title = self._arguments(wish)
        lines = [caption_of(text) for text in captions[: len(draft.pictures)]]
        if len(lines) != len(draft.pictures):
            raise SessionError("Every picture needs a caption.")
        with self._lock:
            self._check_free()
            run_id = secrets.token_hex(8)
            folder = self.root / run_id
            (folder / "pictures").mkdir(parents=True)
            for picture, line in zip(draft.pictures, lines, strict=True):
                shutil.copyfile(picture.path, folder / "pictures" / picture.path.name)
                (folder / "pictures" / picture.path.name).with_suffix(".txt").write_text(line, encoding="utf-8")
            record = Record(title, self.session.base.label, wish.steps, time.time(), arguments)
            self._launch(folder, record, arguments)
        return run_id

    def stop(self, run_id: object) -> None:
        """Ask a run to save and end."""
        record = self._record(self._folder(run_id))
        training_process.stop(record.pid, record.begun)

    def resume(self, run_id: object) -> None:
        """Go on with a run that was stopped or killed, from its newest checkpoint. Raises SessionError."""
        folder = self._folder(run_id)
        with self._lock:
            self._check_free()
            record = self._record(folder)
            if self._status(folder, record).state == FINISHED:
                raise SessionError("This training is finished.")
            record = replace(record, adapter="")  # what was added to the list before is not what this will end in
            self._launch(folder, record, (*record.arguments, "--resume_from_checkpoint=latest"))

    def keep(self, run_id: object) -> str:
        """Add what a run has learnt so far to the adapters, and return its name there. Raises SessionError."""
        folder = self._folder(run_id)
        with self._lock:
            return self._keep(folder, self._record(folder))

    def status(self, run_id: object = None) -> Status | None:
        """Return where a run stands, or the newest one, or None. What a finished run made is added to the adapters."""
        with self._lock:
            folders = self._folders() if run_id is None else [self._folder(run_id)]
            if not folders:
                return None
            record = self._record(folders[0])
            found = self._status(folders[0], record)
            if found.state == FINISHED and not record.adapter:
                try:
                    found = replace(found, adapter=self._keep(folders[0], record))
                except (SessionError, AdapterFolderError) as problem:
                    found = replace(found, message=str(problem))
            return found

    def runs(self) -> dict[str, str]:
        """Id -> title and state of every run, the newest first."""
        return {f.name: f"{s.title}, {s.state}" for f in self._folders() for s in [self._status(f, self._record(f))]}

    def _arguments(self, wish: Wish) -> tuple[tuple[str, ...], str]:
        base = self.session.base
        step = base.defaults.size_step
        within("steps", wish.steps, 1, MAX_STEPS)
        within("rank", wish.rank, 1, MAX_RANK)
        within("learning rate", wish.learning_rate, 0, 1)
        within("resolution", wish.resolution, step, MAX_RESOLUTION)
        within("seed", wish.seed, -1, MAX_SEED)
        whole = (wish.steps, wish.rank, wish.resolution, wish.seed)
        if any(number != int(number) for number in whole) or wish.resolution % step:
            raise SessionError(f"Steps, rank and seed are whole numbers, the resolution a multiple of {step}.")
        words = [clean_name(text) if isinstance(text, str) else "" for text in (wish.word, wish.kind)]
        if not all(words) or max(map(len, words)) > MAX_WORDS:
            raise SessionError(f"Give the subject a rare word and a class, each of at most {MAX_WORDS} characters.")
        phrase = " ".join(words)
        arguments = {
            "pretrained_model_name_or_path": self._source(),
            "instance_data_dir": "pictures",
            "output_dir": RESULT,
            "instance_prompt": phrase,
            "validation_prompt": caption_of(wish.sample or f"a {phrase}"),
            "num_validation_images": 2,
            "max_train_steps": int(wish.steps),
            "rank": int(wish.rank),
            "resolution": int(wish.resolution),
            "checkpointing_steps": max(10, int(wish.steps) // 10),
            "checkpoints_total_limit": 2,
            "report_to": "none",
            "seed": secrets.randbelow(MAX_SEED) if wish.seed < 0 else int(wish.seed),
            **({"learning_rate": float(wish.learning_rate)} if wish.learning_rate else {}),
        }
        return (*(f"--{name}={value}" for name, value in arguments.items()), "--cache_latents"), phrase

    def _source(self) -> str:
        """The loaded base model as the script is to be told: a name, or a folder from its root."""
        source = self.session.source
        return source if source in FOLDERS or not Path(source).exists() else str(Path(source).resolve())

    def _check_free(self) -> None:
        if self.reason is not None:
            raise SessionError(self.reason)
        if any(self._runs_now(self._record(folder)) for folder in self._folders()):
            raise SessionError("A training is running already. Stop it first, or wait until it is done.")

    def _launch(self, folder: Path, record: Record, arguments: tuple[str, ...]) -> None:
        pid, begun = training_process.start(arguments, folder)
        _write(folder, replace(record, pid=pid, begun=begun))

    def _keep(self, folder: Path, record: Record) -> str:
        weights = folder / RESULT / WEIGHT_NAME
        if not weights.is_file():
            raise SessionError("This training has saved nothing yet.")
        added = self.session.adapters.add(weights, record.title + SUFFIX)
        _write(folder, replace(record, adapter=added.name))
        return added.name

    def _status(self, folder: Path, record: Record) -> Status:
        rows = _read_losses(folder / RESULT / "loss.csv")
        step = rows[-1][0] if rows else 0
        if self._runs_now(record):
            state = RUNNING
        elif step >= record.steps and (folder / RESULT / WEIGHT_NAME).is_file():
            state = FINISHED
        else:
            state = STOPPED if step else FAILED
        reason = training_process.last_words(folder) if state in (FAILED, STOPPED) else ""
        recent = [seconds for *_, seconds in rows[-50:]]
        left = (record.steps - step) * sum(recent) / len(recent) if recent and state == RUNNING else None
        sheets = sorted((folder / RESULT / "samples").glob("step-*.png"), key=_number, reverse=True)
        curve = tuple((number, loss, trend) for number, loss, trend, _ in rows)
        shown = without_paths(reason, folder, self.session.output_dir)[:300]
        return Status(folder.name, record.title, state, step, record.steps, curve, left, tuple(sheets[:SAMPLES]),
                      shown, record.adapter)  # fmt: skip

    @staticmethod
    def _runs_now(record: Record) -> bool:
        return training_process.is_running(record.pid, record.begun)

    def _folder(self, run_id: object) -> Path:
        if self.reason is not None:
            raise SessionError(self.reason)
        if not isinstance(run_id, str) or not _ID.fullmatch(run_id) or not (self.root / run_id / RUN).is_file():
            raise SessionError("There is no such training.")
        return self.root / run_id

    def _folders(self) -> list[Path]:
        if self.reason is not None:
            return []
        known: dict[Path, float] = {}
        for path in self.root.glob("*"):
            with suppress(SessionError):  # a folder without notes is none of ours
                if _ID.fullmatch(path.name):
                    known[path] = self._record(path).started
        return sorted(known, key=known.__getitem__, reverse=True)

    @staticmethod
    def _record(folder: Path) -> Record:
        try:
            data: dict[str, Any] = json.loads((folder / RUN).read_text(encoding="utf-8"))
            return Record(**{**data, "arguments": tuple(data["arguments"])})
        except (OSError, ValueError, TypeError, KeyError):
            raise SessionError("The notes of this training are damaged.") from None


def _write(folder: Path, record: Record) -> None:
    hidden = folder / f".{RUN}.writing"
    hidden.write_text(json.dumps(asdict(record)), encoding="utf-8")
    os.replace(hidden, folder / RUN)


def _read_losses(path: Path) -> list[tuple[int, float, float, float]]:
    """(step, loss, trend, seconds) of each whole line; the script may be writing the last one just now."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return []
    rows = []
    for line in csv.DictReader(text[: text.rfind("\n") + 1].splitlines()):
        try:
            numbers = [float(line[name]) for name in ("loss", "smoothed_loss", "seconds")]
            if all(map(math.isfinite, numbers)):
                rows.append((int(line["step"]), numbers[0], numbers[1], numbers[2]))
        except (KeyError, TypeError, ValueError):
            continue
    return rows


def _number(path: Path) -> int:
    digits = path.stem.removeprefix("step-")
    return int(digits) if digits.isdigit() else -1
