"""Visitors of the page in a process of their own, so that what they keep is not counted as the server's."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from gradio_client import Client

Choice = tuple[int, tuple[float, ...]]  # seed, and weights of the adapters in turn


def asked(ids: Sequence[str], choice: Choice) -> dict[str, Any]:
    """What the API is asked for. Adapters without a weight are left out."""
    seed, weights = choice
    return {"prompt": "a cat on a red background", "steps": 2, "seed": seed,
            "weights": dict(zip(ids, weights, strict=False))}  # fmt: skip


class Visitor(threading.Thread):
    """Asks for picture after picture, at times interrupts its own, and at times goes away in the middle."""

    def __init__(self, number: int, address: str, ids: Sequence[str], choices: Sequence[Choice], until: float, folder):
        super().__init__(daemon=True)
        self.number, self.address, self.ids, self.choices = number, address, ids, choices
        self.until, self.folder = until, folder
        self.got: list[tuple[Choice, bytes]] = []  # the file of each picture
        self.errors: list[str] = []

    def run(self) -> None:
        rng = random.Random(self.number)
        client = self.arrive()
        while time.monotonic() < self.until:
            choice, mood = rng.choice(self.choices), rng.random()
            try:
                job = client.submit(**asked(self.ids, choice), job=str(self.number), api_name="/v1_generate")
                if mood < 0.15:
                    time.sleep(rng.random())
                    client.predict(job=str(self.number), api_name="/v1_interrupt")
                elif mood < 0.25:
                    time.sleep(rng.random())
                    job.cancel()
                    client = self.arrive()  # the old one is gone without a word
                    continue
                files, told = job.result(timeout=120)
                assert told["status"] in ("done", "interrupted")
                self.got += [(choice, Path(file).read_bytes()) for file in files]
            except Exception as error:  # every kind counts
                self.errors.append(f"{type(error).__name__}: {error}")

    def arrive(self) -> Client:
        return Client(self.address, verbose=False, download_files=str(self.folder), analytics_enabled=False)


def visit(pipe: Connection, clients: int, seconds: float, *about: Any) -> None:
    """Let so many visitors at the page for so long; then send what each got, and its errors."""
    address, ids, choices, folder = about
    until = time.monotonic() + seconds
    visitors = [Visitor(number, address, ids, choices, until, folder) for number in range(clients)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join(seconds + 180)
        pipe.send((visitor.got, visitor.errors, visitor.is_alive()))
