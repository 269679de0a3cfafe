"""Every run that was ever done, a line of JSON each: kept with the results, so that nobody has to repeat it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from benchmarks.measures import results_name

Run = dict[str, Any]


def runs_file(results_dir: str | Path, model: str, name: str = "fidelity_runs") -> Path:
    return Path(results_dir) / f"{results_name(name, model)}.jsonl"


def read(file: Path) -> list[Run]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def append(file: Path, run: Run) -> None:
    """One write to the end, so that processes beside each other can share the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    line = (json.dumps(run) + "\n").encode()
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)
