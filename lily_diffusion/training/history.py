"""The numbers of every step, kept in ``loss.csv`` in the output folder: one line a step, whole after any interruption.

Steps at which held-out pictures were measured have their losses in columns of their own, one for each noise level.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping
from pathlib import Path

FILE_NAME = "loss.csv"
STEP = "step"
HELD_OUT = "held_out_"  # and the noise level: how the columns of held-out losses begin


class History:
    """The rows of ``loss.csv``: step -> column -> number. For one process alone."""

    def __init__(self, folder: Path, step: int = 0, checkpoint: Path | None = None):
        """Begin or go on with the file in `folder`, which is written anew under a temporary name and then renamed.

        Args:
            step: the steps that are done; rows of later ones, from before an interruption, are dropped.
            checkpoint: the folder from which the run goes on, if it may lie in another run's folder.
        """
        self.path = Path(folder) / FILE_NAME
        earlier = checkpoint.resolve().parent if checkpoint is not None else Path(folder)
        kept = _read(earlier / FILE_NAME) if step else {}
        self.rows = {number: row for number, row in kept.items() if number <= step}
        self._columns: list[str] = []
        self._write_all()

    def add(self, step: int, **numbers: float) -> None:
        """One line for a step: its loss, learning rate, seconds or whatever else is given by name."""
        self.rows[step] = dict(numbers)
        if not self._columns or not numbers.keys() <= set(self._columns):
            self._write_all()
            return
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(self._line(step))

    def add_held_out(self, step: int, losses: Mapping[float, float]) -> None:
        """The losses of the held-out pictures, by noise level, into the line of a step; step 0 is before training."""
        row = self.rows.setdefault(step, {})
        row.update({f"{HELD_OUT}{level:g}": loss for level, loss in losses.items()})
        self.rows = dict(sorted(self.rows.items()))
        self._write_all()

    def column(self, name: str) -> tuple[list[int], list[float]]:
        """The steps that have a finite number of this name, and the numbers."""
        found = [(step, row[name]) for step, row in self.rows.items() if math.isfinite(row.get(name, math.nan))]
        return [step for step, _ in found], [number for _, number in found]

    def held_out_columns(self) -> list[str]:
        """The names of the columns of held-out losses, from little noise to much."""
        names = {name for row in self.rows.values() for name in row if name.startswith(HELD_OUT)}
        return sorted(names, key=noise_level)

    def _line(self, step: int) -> str:
        line = io.StringIO()
        row = {STEP: step, **self.rows[step]}
        csv.DictWriter(line, [STEP, *self._columns], lineterminator="\n").writerow(row)
        return line.getvalue()

    def _write_all(self) -> None:
        names = dict.fromkeys(name for row in self.rows.values() for name in row if not name.startswith(HELD_OUT))
        self._columns = [*names, *self.held_out_columns()]
        text = ",".join([STEP, *self._columns]) + "\n" + "".join(self._line(step) for step in self.rows)
        temporary = self.path.with_name(f".{self.path.name}.writing")
        temporary.write_text(text, encoding="utf-8", newline="")
        os.replace(temporary, self.path)


def noise_level(column: str) -> float:
    """The noise level of a column of held-out losses."""
    return float(column.removeprefix(HELD_OUT))


def _read(path: Path) -> dict[int, dict[str, float]]:
    """The rows of a file; none if there is no file or it is another program's, without a line that was cut short."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    whole = text[: text.rfind("\n") + 1]
    rows: dict[int, dict[str, float]] = {}
    for line in csv.DictReader(io.StringIO(whole)):
        try:
            step = int(line.pop(STEP, None) or "none")
            rows[step] = {name: float(number) for name, number in line.items() if number}
            [noise_level(name) for name in rows[step] if name.startswith(HELD_OUT)]
        except (ValueError, TypeError):
            return {}
    return rows
