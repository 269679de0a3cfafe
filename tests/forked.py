"""Processes that start at once: a server has imported what they need and forks them.

An interpreter of its own for each would spend more on imports than on what is tested. Nothing has been computed before
the fork, so there are no threads to lose.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.training_base", "lily_diffusion.training.build", "ui.session"])


def start(function: Callable[..., Any], *args: Any, said: str | Path = os.devnull, **environment: str) -> BaseProcess:
    """Call the function in a process of its own, which writes what it says into the file `said`."""
    process = CONTEXT.Process(target=_run, args=(function, args, str(said), environment))
    process.start()
    return process


def _run(function: Callable[..., Any], args: tuple[Any, ...], said: str, environment: dict[str, str]) -> None:
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1), os.dup2(file, 2)
    os.environ.update(environment)
    function(*args)
