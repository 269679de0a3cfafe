"""Many clients at once: every picture is the one that its recipe gives alone, whatever the others do.

LILY_LOAD_SECONDS=300 python -m pytest tests/test_ui_load.py
"""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from gradio_client import Client
from PIL import Image

from lily_diffusion import LilyConfig, attach, detach, save_lily_weights
from ui import app
from ui.messages import Order, Picture
from ui.session import Session

from .conftest import awaken

SECONDS = float(os.environ.get("LILY_LOAD_SECONDS", 8))
CLIENTS = 16
STEPS = 2
WARM = 3 * CLIENTS  # pictures after which every thread has worked, and has the memory that it keeps: in a long run
MORE_MEMORY = 150 * 2**20  # bytes that the process may have gained after the first third and after WARM
SEEDS = (1, 2, 3)
WEIGHTS = ((), (1.0,), (0.5, 0.7), (-0.5, 0.0), (1.0, 0.3, 0.4))  # of the adapters in turn


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    root = tmp_path_factory.mktemp("load")
    made = Session(adapters_dir=root / "adapters", output_dir=root / "out")
    for number in range(3):
        awaken(attach(made.base.pipe.unet, LilyConfig(r=4)), seed=number)
        save_lily_weights(made.base.pipe, root / "adapters", weight_name=f"a{number}.safetensors")
        detach(made.base.pipe.unet)
    made.cards(rescan=True)
    return made


def wanted(session, choice) -> dict:
    seed, weights = choice
    ids = [card.id for card in session.cards()]
    return {"prompt": "a cat on a red background", "steps": STEPS, "seed": seed,
            "weights": dict(zip(ids, weights, strict=False))}  # fmt: skip


def alone(session, choice) -> np.ndarray:
    fits = session.base.defaults
    asked = wanted(session, choice)
    order = Order(asked["prompt"], "", STEPS, fits.guidance_scale, fits.width, fits.height, asked["seed"], 1,
                  asked["weights"])  # fmt: skip
    (picture,) = [event for event in session.generate(order) if isinstance(event, Picture)]
    return np.array(Image.open(picture.path))


class Visitor(threading.Thread):
    """Asks for picture after picture, at times interrupts its own, and at times goes away in the middle."""

    def __init__(self, number: int, address: str, session: Session, until: float, folder: Path):
        super().__init__(daemon=True)
        self.number, self.address, self.session, self.until, self.folder = number, address, session, until, folder
        self.got: list[tuple[tuple, np.ndarray]] = []
        self.errors: list[str] = []

    def run(self) -> None:
        rng = random.Random(self.number)
        client = self.arrive()
        while time.monotonic() < self.until:
            choice = rng.choice(SEEDS), rng.choice(WEIGHTS)
            mood = rng.random()
            try:
                job = client.submit(**wanted(self.session, choice), job=str(self.number), api_name="/v1_generate")
                if mood < 0.15:
                    time.sleep(rng.random())
                    client.predict(job=str(self.number), api_name="/v1_interrupt")
                elif mood < 0.25:
                    time.sleep(rng.random())
                    job.cancel()
                    client = self.arrive()  # the old one is gone without a word
                    continue
                files, told = job.result(timeout=120)
            except Exception as error:  # every kind counts
                self.errors.append(f"{type(error).__name__}: {error}")
                continue
            assert told["status"] in ("done", "interrupted")
            self.got += [(choice, np.array(Image.open(file))) for file in files]

    def arrive(self) -> Client:
        return Client(self.address, verbose=False, download_files=str(self.folder), analytics_enabled=False)


def test_nobody_gets_anothers_picture(session, tmp_path):
    expected = {(seed, weights): alone(session, (seed, weights)) for seed in SEEDS for weights in WEIGHTS}
    assert len({picture.tobytes() for picture in expected.values()}) == len(expected)  # a mix-up would show
    demo = app.create_demo(session)
    address = app.launch(demo)
    started, process = time.monotonic(), psutil.Process()
    visitors = [Visitor(i, address, session, started + SECONDS, tmp_path) for i in range(CLIENTS)]
    for visitor in visitors:
        visitor.start()
    while (now := time.monotonic()) < started + SECONDS / 3 or (
        sum(len(visitor.got) for visitor in visitors) < WARM and now < started + SECONDS
    ):
        time.sleep(0.1)
    early = process.memory_info().rss
    for visitor in visitors:
        visitor.join(SECONDS + 180)
    late = process.memory_info().rss
    demo.close()
    assert not any(visitor.is_alive() for visitor in visitors)
    pictures = [one for visitor in visitors for one in visitor.got]
    errors = [error for visitor in visitors for error in visitor.errors]
    assert len(pictures) >= SECONDS / 3
    assert all(np.array_equal(picture, expected[choice]) for choice, picture in pictures)
    assert [error for error in errors if "ueue is full" not in error and "CancelledError" not in error] == []
    assert late - early < MORE_MEMORY
    assert np.array_equal(alone(session, (1, (1.0,))), expected[1, (1.0,)])  # nothing of the others is left
