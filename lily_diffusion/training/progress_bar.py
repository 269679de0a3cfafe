"""The live view of a run: a bar in a terminal, a plain line now and then in a log file."""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from tqdm.auto import tqdm

if TYPE_CHECKING:
    from .loop import StepReport

logger = logging.getLogger(__name__)

WINDOW = 50  # steps over which speed is averaged
LINE_EVERY = 30.0  # seconds at least between lines in a log file
LAYOUT = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"


class Bar:
    """Shows where a run stands after every step; speed and time left are of the last steps, without pauses."""

    def __init__(self, total: int, done: int = 0, visible: bool = True):
        """`done` of `total` steps are done already; invisible it only measures."""
        self.total = total
        self._clock = Clock()
        self._line_due = 0.0  # on time.monotonic
        in_terminal = visible and sys.stderr.isatty()
        self._logs = visible and not in_terminal
        options = {"desc": "Steps", "bar_format": LAYOUT, "dynamic_ncols": True, "disable": not in_terminal}
        self._tqdm = tqdm(total=total, initial=done, **options)

    def __enter__(self) -> Bar:
        self._clock.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._tqdm.close()

    def update(self, report: StepReport) -> None:
        """Show a step that has just ended."""
        self._clock.tick()
        text = progress_text(report, self._clock.seconds_per_step)
        self._tqdm.set_postfix_str(text, refresh=False)
        self._tqdm.update(1)
        if self._logs and (time.monotonic() >= self._line_due or report.step == self.total):
            logger.info("step %d of %d, %s", report.step, self.total, text)
            self._line_due = time.monotonic() + LINE_EVERY

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens inside counts neither for speed nor for the time left."""
        with self._clock.paused():
            yield

    @property
    def it_per_second(self) -> float | None:
        """Steps per second over the last steps; None before there are any."""
        return 1 / self._clock.seconds_per_step if self._clock.seconds_per_step else None


class Clock:
    """Seconds per step over the last `WINDOW` steps. The very first is slow everywhere and counts only while alone."""

    def __init__(self) -> None:
        self._laps: deque[float] = deque(maxlen=WINDOW)
        self._first = True
        self.start()

    def start(self) -> None:
        """The next step begins now."""
        self._begun, self._pauses = time.monotonic(), 0.0

    def tick(self) -> None:
        """A step ends now."""
        now = time.monotonic()
        if self._first and len(self._laps) == 1:
            self._laps.clear()
            self._first = False
        self._laps.append(now - self._begun - self._pauses)
        self.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self._pauses += time.monotonic() - begun

    @property
    def seconds_per_step(self) -> float:
        """0 before the first step has ended."""
        return sum(self._laps) / len(self._laps) if self._laps else 0.0


def progress_text(report: StepReport, seconds_per_step: float) -> str:
    """What stands behind the bar, the most wanted first, since a narrow terminal cuts the end."""
    left = (report.max_train_steps - report.step) * seconds_per_step
    speed = f"{1 / seconds_per_step:.2f} it/s" if 0 < seconds_per_step <= 1 else f"{seconds_per_step:.1f} s/it"
    return (
        f"{duration(left)} left, {speed}, loss {report.loss:.4f}, trend {report.smoothed_loss:.4f}, "
        f"lr {report.learning_rate:.2g}, {memory_in_use():.1f} GB"
    )


def speed_scalars(seconds: float) -> dict[str, float]:
    """For the trackers: steps per second of a step that took so long, and memory in GB (2**30 bytes)."""
    return {"it_per_second": 1 / max(seconds, 1e-9), "memory_gb": memory_in_use()}


def memory_in_use() -> float:
    """GB (2**30 bytes): the most that tensors ever took on this process's GPU; without one, all that it takes now."""
    if torch.cuda.is_available() and (peak := torch.cuda.max_memory_allocated()):
        return peak / 2**30
    import psutil  # comes with accelerate

    return psutil.Process().memory_info().rss / 2**30


def duration(seconds: float) -> str:
    """12:34, or 1:02:03 from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"
