"""Many clients at once: every picture is the one that its recipe gives alone, whatever the others do.

LILY_LOAD_SECONDS=300 python -m pytest tests/test_ui_load.py
"""

from __future__ import annotations

import io
import multiprocessing
import os
import time

import numpy as np
import psutil
import pytest
from PIL import Image

from lily_diffusion import LilyConfig, attach, detach, save_lily_weights
from ui import app
from ui.messages import Order, Picture
from ui.session import Session

from .conftest import awaken
from .visitors import asked, visit

SECONDS = float(os.environ.get("LILY_LOAD_SECONDS", 8))
CLIENTS = 16
WARM = 3 * CLIENTS  # pictures after which every thread has worked, and has the memory that it keeps: in a long run
MORE_MEMORY = 100 * 2**20  # bytes that the server may have gained after the first third and after WARM
WEIGHTS = ((), (1.0,), (0.5, 0.7), (-0.5, 0.0), (1.0, 0.3, 0.4))  # of the adapters in turn
CHOICES = [(seed, weights) for seed in (1, 2, 3) for weights in WEIGHTS]


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


def ids(session) -> list[str]:
    return [card.id for card in session.cards()]


def pictures_of(session) -> int:
    return sum(1 for _ in session.output_dir.rglob("*.png"))


def decoded(file: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(file)))


def alone(session, choice) -> np.ndarray:
    fits, want = session.base.defaults, asked(ids(session), choice)
    order = Order(want["prompt"], "", want["steps"], fits.guidance_scale, fits.width, fits.height, want["seed"], 1,
                  want["weights"])  # fmt: skip
    (picture,) = [event for event in session.generate(order) if isinstance(event, Picture)]
    return decoded(picture.path.read_bytes())


@pytest.mark.slow
def test_nobody_gets_anothers_picture(session, tmp_path):
    expected = {choice: alone(session, choice) for choice in CHOICES}
    assert len({picture.tobytes() for picture in expected.values()}) == len(expected)  # a mix-up would show
    demo = app.create_demo(session)
    about = app.launch(demo), ids(session), CHOICES, tmp_path
    process, before = psutil.Process(), pictures_of(session)
    here, there = multiprocessing.Pipe(duplex=False)
    crowd = multiprocessing.get_context("spawn").Process(
        target=visit, args=(there, CLIENTS, SECONDS, *about), daemon=True
    )
    crowd.start()
    there.close()
    started = time.monotonic()
    while (now := time.monotonic()) < started + SECONDS / 3 or (
        pictures_of(session) - before < WARM and now < started + SECONDS
    ):
        time.sleep(0.1)
    early = process.memory_info().rss
    results = [here.recv() for _ in range(CLIENTS)]
    late = process.memory_info().rss
    crowd.join(60)
    demo.close()
    assert not any(alive for _, _, alive in results)
    pictures = [one for got, _, _ in results for one in got]
    errors = [error for _, told, _ in results for error in told]
    assert len(pictures) >= SECONDS / 3
    assert all(np.array_equal(decoded(picture), expected[choice]) for choice, picture in pictures)
    assert [error for error in errors if "ueue is full" not in error and "CancelledError" not in error] == []
    assert late - early < MORE_MEMORY
    assert np.array_equal(alone(session, CHOICES[1]), expected[CHOICES[1]])  # nothing of the others is left
