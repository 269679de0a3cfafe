"""The training script as a process of its own: started with a fixed list of arguments, stopped so that it saves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "train_scripts" / "train_dreambooth_lily.py"
_children: dict[int, subprocess.Popen[bytes]] = {}  # those of this page, to be waited for when they end


def missing() -> str | None:
    """What stands in the way of training on this machine, in a sentence; None if nothing does."""
    if not SCRIPT.is_file():
        return "The training script is not here: start the page from a checkout of the repository."
    absent = [name for name in ("accelerate", "psutil", "yaml") if find_spec(name) is None]
    return f"Training needs {absent[0]}: pip install -e '.[train]'." if absent else None


def start(arguments: Sequence[str], folder: Path) -> tuple[int, float]:
    """Start the script in a process group of its own, which outlives the page; what it says goes to ``log.txt``.

    Returns:
        (process id, when it began): together they name a process for good, ids alone are used again.
    """
    import psutil

    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with (folder / "log.txt").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, str(SCRIPT), *arguments],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path},
        )
    _children[child.pid] = child
    try:
        return child.pid, psutil.Process(child.pid).create_time()
    except psutil.Error:  # over already
        return child.pid, 0.0


def is_running(pid: int, begun: float) -> bool:
    """Whether the process that ``start`` named still runs, whoever started it."""
    import psutil

    child = _children.get(pid)
    if child is not None and child.poll() is not None:
        del _children[pid]
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - begun) < 0.01 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def stop(pid: int, begun: float) -> None:
    """Ask the process group to save and end; nothing happens when it is over."""
    if is_running(pid, begun):
        try:
            os.killpg(pid, signal.SIGTERM)
        except ProcessLookupError:
            return


def last_words(folder: Path) -> str:
    """What the script gave as the reason for its end, or an empty text."""
    try:
        with (folder / "log.txt").open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - 8192))
            lines = log.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    return next((line.removeprefix("error: ") for line in reversed(lines) if line.startswith("error: ")), "")
