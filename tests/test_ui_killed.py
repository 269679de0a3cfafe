"""Kill -9 while pictures are made, adapters are added and a blend is exported: what is listed afterwards is whole."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import replace

import pytest
from PIL import Image

from lily_diffusion import load_lily_weights, unload_lily_weights
from lily_diffusion.base_model import load_pipeline
from tests.forked import CONTEXT, start
from tests.test_ui_session import save_adapter
from ui.export.exporting import Wish, export
from ui.keeping.recipe import read_png
from ui.messages import Order, Picture
from ui.pipeline.jobs import Job
from ui.session import Session

KILLS = 3


def work(root, ready):
    session = Session(adapters_dir=root / "adapters", output_dir=root / "out")
    first = next(card.id for card in session.cards() if card.name == "first")
    order = Order("a cat", "", 1, 3.0, 64, 64, -1, 3, {first: 0.5})
    wish = Wish("baked", "lily", ("a cat",), ())

    def draw():
        list(session.generate(order))

    def add():
        session.add_adapter(root / "adapters" / "first.safetensors", "added.safetensors")
        made = [event for event in session.generate(replace(order, count=1)) if isinstance(event, Picture)]
        session.presets.save("kept", made[0].recipe)

    def bake():
        list(Job(session).events(lambda job: export(job, replace(order, steps=1), wish)))

    def forever(work):
        while True:
            work()

    for task in (draw, add, bake):
        threading.Thread(target=forever, args=(task,), daemon=True).start()
    ready.set()
    threading.Event().wait()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    made = tmp_path_factory.mktemp("killed")
    (made / "adapters").mkdir()
    save_adapter(load_pipeline().unet, made / "adapters", "first.safetensors", seed=1)
    return made


@pytest.mark.slow
def test_what_is_listed_after_a_kill_is_whole(root):
    rng = random.Random(0)
    for _ in range(KILLS):
        ready = CONTEXT.Event()
        child = start(work, root, ready)
        assert ready.wait(60)
        time.sleep(rng.uniform(0.5, 2.5))
        child.kill()
        child.join()
    session = Session(adapters_dir=root / "adapters", output_dir=root / "out")
    cards, pictures = session.cards(), session.history.find()
    assert len(cards) > 2 and len(pictures) >= KILLS
    assert [card.reason for card in cards if card.reason] == []
    for entry in pictures:
        path = session.history.path(entry.id)
        Image.open(path).load()
        assert read_png(path).seed == entry.seed
    for name in session.presets.names():
        assert session.presets.load(name).prompt == "a cat"
    for card in cards:
        load_lily_weights(session.base.pipe, str(session.adapters.get(card.id).path), card.id)
    unload_lily_weights(session.base.pipe)
