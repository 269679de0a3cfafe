"""Exporting a blend, without the page: what is written and where, what is measured, what is refused; and a DiT."""

from __future__ import annotations

import os
import time

import pytest
import torch
from PIL import Image
from safetensors import safe_open

from lily_diffusion import read_lily_header
from lily_diffusion.base_model import load_pipeline
from tests.test_ui_judge import id_of, order, save_static, told
from tests.test_ui_session import save_adapter
from ui.export import baked_file, exporting
from ui.export.exporting import Exported, Wish
from ui.judge import block_view, compare, router_view
from ui.keeping.recipe import read_png
from ui.messages import Picture
from ui.pipeline import blocks
from ui.pipeline.jobs import Job, Progress, distance
from ui.pipeline.orders import SessionError
from ui.session import Session

ON, OFF = ("a red cat", "a blue dog"), ("a green bird",)


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Session:
    folder = tmp_path_factory.mktemp("adapters")
    unet = load_pipeline().unet
    save_adapter(unet, folder, "robot.safetensors", seed=1, trigger_words=("sks robot",))
    save_adapter(unet, folder, "ink.safetensors", seed=2, trigger_words=("inked",))
    save_static(unet, folder, "still.safetensors")
    return Session(adapters_dir=folder, output_dir=tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def dit(tmp_path_factory) -> Session:
    folder = tmp_path_factory.mktemp("adapters")
    save_adapter(load_pipeline("embedded-dit").transformer, folder, "robot.safetensors", seed=1)
    return Session(["embedded-dit"], adapters_dir=folder, output_dir=tmp_path_factory.mktemp("pictures"))


def export(session: Session, wish: Wish, **wanted) -> Exported:
    (made,) = told(session, lambda job: exporting.export(job, order(session, **wanted), wish))
    return made


def drawn(session: Session, **wanted) -> Image.Image:
    (event,) = [event for event in session.generate(order(session, **wanted)) if isinstance(event, Picture)]
    return Image.open(event.path)


def test_a_blend_becomes_a_lily_file_with_its_error(session):
    blend = {"robot": 1.0, "ink": 0.5}
    made = export(session, Wish("My blend!", "lily", ON, OFF), weights=blend)
    assert made.path == session.adapters.root / "My_blend.safetensors" and made.name == "My_blend"
    assert "not baked on" in made.sentences[0] and "relative error of the updates" in made.sentences[1]
    header = read_lily_header(made.path)
    assert header.config.routing == "static" and header.trigger_words == ("sks robot", "inked")
    assert header.base_model == "embedded" and "measured" in header.metadata["lily_baked"]
    assert read_png(made.sheet).prompt == OFF[0]
    card = next(card for card in session.cards(rescan=True) if card.name == "My_blend")
    assert card.reason is None
    base, own = drawn(session, weights={}), drawn(session, weights=blend)
    assert distance(drawn(session, weights={"My_blend": 1.0}), own) < 0.5 * distance(base, own)
    assert export(session, Wish("My blend!", "lily", ON, ()), weights=blend).name == "My_blend_2"
    assert sorted(p.name for p in session.adapters.root.iterdir() if p.name.startswith(".")) == []


def test_a_static_adapter_loses_nothing_at_any_weight(session):
    weight = "0.7,up=0.4,mid=0"
    made = export(session, Wish("exact", "lily", (), ON), weights={"still": weight})
    assert "nothing is lost" in made.sentences[-1] and " 0.0% of the brightness" in made.sentences[0]
    session.cards(rescan=True)
    assert distance(drawn(session, weights={"exact": 1.0}), drawn(session, weights={"still": weight})) < 1e-3
    assert distance(drawn(session, weights={"exact": 1.0}), drawn(session, weights={"still": 1.0})) > 1e-3
    unseen = export(session, Wish("unseen", "lily", (), ()), weights={"still": 1.0})
    assert unseen.sheet is None and unseen.sentences == (
        "The routing was static already, so nothing is lost by baking.",
    )


def test_a_lora_draws_in_diffusers_what_the_lily_file_draws_here(session):
    weights = {"robot": 0.8}
    lora = export(session, Wish("plain", "lora", ON, ()), weights=weights)
    assert "the same prompts with other seeds" in lora.sentences[0]
    lily = export(session, Wish("frozen", "lily", ON, ()), weights=weights)
    kohya = export(session, Wish("other", "kohya", ON, ()), weights=weights)
    with safe_open(kohya.path, "pt") as file:
        assert all(key.startswith("lora_unet_") for key in file.keys())  # noqa: SIM118
    session.cards(rescan=True)
    assert next(c for c in session.cards() if c.name == "plain").reason is not None  # listed, but not for this page
    pipe = load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    pipe.load_lora_weights(str(lora.path))
    here, wanted = drawn(session, weights={lily.name: 1.0}), order(session)
    noise = torch.Generator("cpu").manual_seed(wanted.seed)
    call = {"num_inference_steps": wanted.steps, "guidance_scale": wanted.guidance_scale, "generator": noise}
    there = pipe(wanted.prompt, **call).images[0]
    assert distance(here, there) < 2e-3 < distance(here, drawn(session, weights={}))


def test_parts_for_text_encoders_are_baked_too(session):
    pipe = load_pipeline()
    words = save_adapter(pipe.text_encoder, session.adapters.root, "words.safetensors", seed=3)
    session.cards(rescan=True)
    blend = {"words": 0.5, "robot": "0.8,mid=0"}
    made = export(session, Wish("both", "lily", ON, ()), weights=blend)
    header = read_lily_header(made.path)
    assert header.component == "unet" and [part.component for part in header.further] == ["text_encoder"]
    session.cards(rescan=True)
    base, own = drawn(session, weights={}), drawn(session, weights=blend)
    assert distance(drawn(session, weights={"both": 1.0}), own) < 0.5 * distance(base, own)
    with pytest.raises(SessionError, match="text encoders alone"):
        export(session, Wish("x", "lora", ON, ()), weights={"words": 1.0})
    for view in (router_view.view, block_view.view):
        with pytest.raises(SessionError, match="only the text encoder"):
            told(session, lambda job, view=view: view(job, order(session, weights={"words": 1.0})))
    words.unlink()


def test_a_smaller_rank_is_kept_to_and_its_cost_told(session):
    made = export(session, Wish("small", "lily", ON[:1], (), rank=2), weights={"robot": 1.0, "ink": 1.0})
    assert read_lily_header(made.path).config.r == 2
    assert made.sentences[-1].startswith("The smaller rank costs")


@pytest.mark.parametrize(
    ("wish", "weights", "reason"),
    [
        (Wish("x", "lily", (), ()), {"robot": 1.0}, "at least one prompt"),
        (Wish("x", "lily", ON, ()), {}, "Choose the adapter"),
        (Wish("x", "lily", ON, ()), {"robot": 0.0}, "Choose the adapter"),
        (Wish("x", "lily", ON, ()), {"robot": "1@0,0@1"}, "changes over the steps"),
        (Wish("x", "zip", ON, ()), {"robot": 1.0}, "formats in the list"),
        (Wish("x", "lily", ON, (), rank=-1), {"robot": 1.0}, "rank must be"),
        (Wish("x", "lily", ON, (), rank=10**9), {"robot": 1.0}, "rank must be"),
        (Wish("x", "lily", tuple(map(str, range(17))), ()), {"robot": 1.0}, "at most 16 prompts"),
        (Wish("x", "lily", ON, ("x" * 3000,)), {"robot": 1.0}, "at most 2000 characters"),
    ],
)
def test_wishes_that_are_refused_write_nothing(session, wish, weights, reason):
    before = sorted(session.adapters.root.iterdir())
    with pytest.raises(SessionError, match=reason):
        export(session, wish, weights=weights)
    assert sorted(session.adapters.root.iterdir()) == before


def test_a_stopped_export_writes_nothing_and_leaves_the_pipeline_as_it_was(session):
    before, own = sorted(session.adapters.root.iterdir()), drawn(session, weights={"robot": 1.0}).tobytes()
    job = Job(session)
    for event in job.events(lambda job: exporting.export(job, order(session, steps=4), Wish("x", "lily", ON, OFF))):
        assert isinstance(event, Progress)
        job.stop()
    assert job.early and sorted(session.adapters.root.iterdir()) == before
    assert drawn(session, weights={"robot": 1.0}).tobytes() == own


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/abs", "..", ".hidden", "a/b\\c", "con\x00", "<img src=x>", "", "é" * 99]
)
def test_names_stay_in_the_folder(session, name):
    stem = baked_file.safe_stem(name)
    assert stem and stem.isascii() and stem.replace("_", "").replace("-", "").isalnum() and len(stem) <= 60
    assert baked_file.safe_stem("..") == "blend"


def test_what_was_left_over_is_swept_and_what_is_being_written_stays(session):
    old, new = (session.adapters.root / f"{baked_file.PREFIX}{name}" for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir()
        (folder / "half.safetensors").write_bytes(b"half")
    os.utime(old, (time.time() - 10**5,) * 2)
    assert not any("half" in card.name for card in session.cards(rescan=True))
    export(session, Wish("swept", "lily", (), ()), weights={"still": 1.0})
    assert not old.exists() and new.exists()


def test_a_dit_makes_the_same_picture_again_where_its_scheduler_draws_noise_too(dit):
    for kind in ("sum", "ties"):
        wanted = {"scheduler": "Euler a", "blend": kind, "negative_prompt": "fog", "steps": 3}
        first = drawn(dit, **wanted).tobytes()
        dit._merges.forget()
        assert drawn(dit, **wanted).tobytes() == first != drawn(dit, **wanted, seed=8).tobytes()


def test_a_dit_is_judged_and_baked_too(dit):
    (seen,) = told(dit, lambda job: compare.compare(job, order(dit)))
    assert seen.distance > 0.01
    (routed,) = told(dit, lambda job: router_view.view(job, order(dit, steps=2)))
    assert "decided" in routed.sentence
    assert all(name.startswith("transformer_blocks.") for name in blocks.blocks(dit, id_of(dit, "robot")))
    with pytest.raises(SessionError, match="no common names for a transformer"):
        export(dit, Wish("x", "kohya", ON, ()))
    made = export(dit, Wish("baked", "lora", ON[:1], ()))
    with safe_open(made.path, "pt") as file:
        assert all(key.startswith("transformer.") for key in file.keys())  # noqa: SIM118
