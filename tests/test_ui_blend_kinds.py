"""Kinds of blends, without the page: merges of frozen adapters and their sum, repeated, refused, stopped, in grids."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from lily_diffusion import LilyConfig, attach, detach, get_active_adapters, load_lily_weights, save_lily_weights
from lily_diffusion.baking import bake_lily
from lily_diffusion.base_model import load_pipeline
from lily_diffusion.components import adapters_of
from lily_diffusion.frozen import factors
from lily_diffusion.interchange.merging import PRUNED, merge_adapters
from tests.test_ui_judge import id_of, order, told
from ui.generate.asking import NUM_SETTINGS, order_of
from ui.judge import axes, router_view, xyz
from ui.keeping.recipe import BLENDS, infotext, read_png
from ui.messages import Finished, Order, Picture, Preparing
from ui.pipeline import merging
from ui.pipeline.jobs import Job, Progress, distance
from ui.pipeline.orders import SessionError
from ui.session import Session

BOTH = {"robot": 1.0, "ink": 0.5}


def save(model, folder: Path, name: str, seed: int, config: LilyConfig) -> None:
    """Save an adapter with random weights."""
    adapter = attach(model, config, name)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    save_lily_weights(model, folder, name, f"{name}.safetensors", base_model="embedded")
    detach(model)


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Session:
    folder = tmp_path_factory.mktemp("adapters")
    pipe = load_pipeline()
    for seed, name in enumerate(["robot", "ink", "still", "calm", "words"]):
        routing = "static" if name in ("still", "calm") else "sample"
        model, layers = (
            (pipe.text_encoder, "v_proj") if name == "words" else (pipe.unet, "attn2.to_v")
        )  # few: merging takes time
        save(model, folder, name, seed, LilyConfig(r=4, num_B=2, routing=routing, target_modules=layers))
    return Session(adapters_dir=folder, output_dir=tmp_path_factory.mktemp("pictures"))


def drawn(session: Session, **wanted) -> Image.Image:
    (event,) = [event for event in session.generate(order(session, **wanted)) if isinstance(event, Picture)]
    return Image.open(event.path)


def latents(session: Session, **wanted) -> torch.Tensor:
    with session.using(order(session, **wanted)) as (pipe, recipe):
        noise = torch.Generator("cpu").manual_seed(recipe.seed)
        call = {"num_inference_steps": recipe.steps, "generator": noise, "output_type": "latent"}
        return pipe(recipe.prompt, **call).images


def test_exact_merges_of_static_adapters_are_their_sum(session):
    weights = {"still": "0.7,up=0.4,mid=0", "calm": -0.5}
    own, base = latents(session, weights=weights), latents(session, weights={})
    for kind in ("cat", "svd"):
        merged = latents(session, weights=weights, blend=kind)
        assert 0 < (merged - own).abs().max() < 1e-3 < 0.1 * (base - own).abs().max()


def test_kinds_differ_and_stay_near_the_sum_where_they_are_meant_to(session):
    made = {kind: drawn(session, weights=BOTH, blend=kind) for kind in BLENDS}
    assert len({image.tobytes() for image in made.values()} - {made["cat"].tobytes()}) >= 5
    base, own = drawn(session, weights={}), made["sum"]
    assert distance(made["cat"], own) < 0.5 * distance(base, own)
    assert distance(made["ties"], own) > 0.01 and distance(made["ties"], base) > 0.01
    with_text = {**BOTH, "words": 0.5}
    assert distance(drawn(session, weights=with_text, blend="cat"), made["cat"]) > 0.01
    assert drawn(session, weights={}, blend="ties").tobytes() == base.tobytes()  # nothing to merge
    assert drawn(session, weights={"robot": 0.0}, blend="cat").tobytes() == base.tobytes()


def test_plain_weights_mean_what_they_mean_on_the_command_line(session):
    pipe = load_pipeline()
    weights = {"still": 0.7, "calm": -0.5}
    files = {name: session.adapters.root / f"{name}.safetensors" for name in weights}
    for name, file in files.items():
        load_lily_weights(pipe, str(file), name)
    frozen = {name: bake_lily(pipe, ["a cat"], name, num_inference_steps=1).parts for name in weights}
    parts = {name: one["unet"] for name, one in frozen.items()}
    expected = merge_adapters(parts, weights, "ties", density=merging.DENSITY).adapter
    got = merging.merge(frozen, weights, "ties")[0]["unet"]
    assert all(torch.equal(a, b) for a, b in zip(got.parameters(), expected.parameters(), strict=True))
    alone = merging.merge(frozen, {"still": 0.7, "calm": "0,attn2=0"}, "ties")[0]["unet"]  # zeros have no vote
    still = {"still": parts["still"]}
    one = merge_adapters(still, [0.7], "ties", density=merging.DENSITY, rank=alone.config.r).adapter
    layer = one.layers[0]
    products = [up @ down for down, up in (factors(adapter, layer) for adapter in (alone, one))]
    torch.testing.assert_close(*products, rtol=1e-3, atol=1e-4)


def test_pictures_of_one_recipe_are_the_same_whoever_asks_and_whenever(session, tmp_path):
    wanted = {"weights": BOTH, "blend": "dare_ties", "negative_prompt": "fog", "scheduler": "Euler a"}
    first = drawn(session, **wanted).tobytes()
    assert drawn(session, prompt="a blue dog", **wanted).tobytes() != first
    drawn(session, seed=99, **wanted)
    assert drawn(session, **wanted).tobytes() == first
    job = Job(session)
    assert job.draw(order(session, **wanted), save=False).image.tobytes() == first
    other = Session(adapters_dir=session.adapters.root, output_dir=tmp_path)
    drawn(other, seed=99, **wanted)  # the routers are watched beside another picture
    assert drawn(other, **wanted).tobytes() == first


def test_the_pipeline_is_left_as_it_was(session):
    pipe, before = session.base.pipe, drawn(session, weights=BOTH).tobytes()
    known, active = list(adapters_of(pipe)), get_active_adapters(pipe)
    drawn(session, weights=BOTH, blend="ties")
    with pytest.raises(RuntimeError), session.using(order(session, weights=BOTH, blend="ties")):
        assert get_active_adapters(pipe) == [merging.FROZEN]
        raise RuntimeError
    assert list(adapters_of(pipe)) == known and get_active_adapters(pipe) == active
    assert all(part.recorder is None for parts in adapters_of(pipe).values() for part in parts.values())
    assert drawn(session, weights=BOTH).tobytes() == before


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"blend": "magic"}, "no blend 'magic'; there is sum, cat"),
        ({"blend": ["ties"]}, "no blend"),
        ({"blend": "ties", "weights": {"robot": "1@0,0@1"}}, "'robot' changes over the steps, which 'ties' cannot"),
    ],
)
def test_blends_that_are_refused(session, wanted, reason):
    with pytest.raises(SessionError, match=reason):
        session.generate(order(session, **wanted))


def test_what_needs_peft_says_so_before_anything_is_drawn(session, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft.utils", None)
    with pytest.raises(SessionError, match=r"'ties' needs PEFT, .* pip install"):
        xyz.plan(session, order(session), [("Blend kind", "sum, ties"), ("", ""), ("", "")])
    assert drawn(session, weights={"still": 1.0}, blend="cat")


def test_a_merge_is_told_layer_by_layer_and_can_be_stopped_between_them(session):
    kinds = [kind for kind in PRUNED if kind != "ties"]
    wanted = order(session, prompt="a blue bird", steps=1, weights=BOTH, blend=kinds[0])
    events = session.generate(wanted)
    merging_now = [event for event in events if isinstance(event, Preparing) and event.text == "Merging the layers"]
    layers = merging_now[0].steps
    assert [event.step for event in merging_now] == list(range(layers)) and layers > 1
    run = session.generate(order(session, prompt="a blue bird", steps=1, weights=BOTH, blend=kinds[1]))
    for event in run:
        if isinstance(event, Preparing) and event.text == "Merging the layers":
            session.interrupt()
    assert event == Finished(0, interrupted=True)


@pytest.mark.parametrize("stop", ["run", "job"])
def test_watching_the_routers_is_told_and_can_be_stopped(session, stop):
    wanted, known = order(session, steps=30, weights=BOTH, blend="cat"), list(adapters_of(session.base.pipe))
    if stop == "run":
        run = session.generate(wanted)
        first = next(run)
        assert isinstance(first, Preparing) and (first.step, first.steps) == (1, 30)
        session.interrupt()
        assert list(run)[-1] == Finished(0, interrupted=True)
    else:
        job = Job(session)
        for event in job.events(lambda job: job.draw(wanted)):
            assert isinstance(event, Progress) and event.text.startswith("Watching the routers of")
            job.stop()
        assert job.early
    assert set(adapters_of(session.base.pipe)) >= set(known) and merging.FROZEN not in adapters_of(session.base.pipe)
    assert all(part.recorder is None for parts in adapters_of(session.base.pipe).values() for part in parts.values())


def test_an_axis_of_kinds_watches_each_adapter_once_and_its_cells_can_be_repeated(session, monkeypatch):
    watched: list[str] = []
    bake = merging.bake_lily
    monkeypatch.setattr(
        merging,
        "bake_lily",
        lambda pipe, prompts, name, **call: (watched.append(name), bake(pipe, prompts, name, **call))[1],
    )
    start = order(session, prompt="a green bird", weights=BOTH)
    grid = xyz.plan(session, start, [("Seed", "1, 2"), ("Blend kind", "sum, cat, ties"), ("", "")])
    assert [place[1] for place in grid.orders] == [0, 0, 1, 1, 2, 2]
    before = set(session.output_dir.rglob("*.png"))
    told(session, lambda job: xyz.draw_grid(job, grid))
    assert sorted(watched) == sorted(id_of(session, name) for name in BOTH)
    *cells, _ = sorted(set(session.output_dir.rglob("*.png")) - before)
    assert [read_png(cell).blend for cell in cells] == ["sum", "sum", "cat", "cat", "ties", "ties"]
    recipe, weights, problems = session.restored(read_png(cells[-1]))
    assert problems == [] and "Lily blend: ties" in infotext(recipe) and "blend" not in infotext(read_png(cells[0]))
    again = Order(recipe.prompt, steps=2, seed=recipe.seed, weights=weights, blend=recipe.blend)
    (event,) = [event for event in session.generate(again) if isinstance(event, Picture)]
    assert event.path.read_bytes() == cells[-1].read_bytes()
    assert len(axes.read_axis(session, start, "Blend kind", "all").values) == len(BLENDS)
    with pytest.raises(SessionError, match="no blend 'soup'"):
        axes.read_axis(session, start, "Blend kind", "sum, soup")


def test_a_little_is_kept_and_the_oldest_goes_first():
    recent, made = merging._Recent(2), []

    def make(name: str) -> dict:
        return recent.get_or_make(name, lambda: made.append(name) or {})

    for name in "abacbab":
        make(name)
    assert made == ["a", "b", "c", "b", "a"]


def test_the_generate_tab_asks_for_a_blend():
    settings = ["a cat", "", 2, 3.0, 64, 64, 1, "Its own", 5, "Fixed", "ties", False, 4]
    assert len(settings) == NUM_SETTINGS
    assert order_of([*settings, [], [], *[None] * 99], {}).blend == "ties"


def test_experts_are_watched_in_the_sum(session):
    seen = [told(session, lambda job, k=k: router_view.view(job, order(session, blend=k)))[0] for k in ("sum", "ties")]
    assert seen[0].sentence == seen[1].sentence and seen[1].drawn.recipe.blend == "sum"
