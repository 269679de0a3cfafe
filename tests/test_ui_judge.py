"""Judging adapters, without the page: comparing, grids and their axes, the router view, the block view."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

from lily_diffusion import LilyConfig, attach, detach, save_lily_weights
from lily_diffusion.base_model import load_pipeline
from tests.test_ui_session import save_adapter
from ui.judge import axes, block_view, compare, router_view, xyz
from ui.keeping.recipe import read_png
from ui.messages import Order
from ui.pipeline import blocks
from ui.pipeline.jobs import Job, Progress, distance
from ui.pipeline.orders import SessionError
from ui.session import Session


def save_static(model, folder, name):
    adapter = attach(model, LilyConfig(r=2, num_B=2, routing="static"), "made")
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)) * 0.2)
    save_lily_weights(model, folder, "made", name, base_model="embedded")
    detach(model)


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Session:
    folder = tmp_path_factory.mktemp("adapters")
    unet = load_pipeline().unet
    save_adapter(unet, folder, "robot.safetensors", seed=1, trigger_words=("sks robot",))
    save_adapter(unet, folder, "ink.safetensors", seed=2)
    save_static(unet, folder, "still.safetensors")
    return Session(adapters_dir=folder, output_dir=tmp_path_factory.mktemp("pictures"))


def id_of(session: Session, name: str) -> str:
    return next(card.id for card in session.cards() if card.name == name)


def order(session: Session, **wanted) -> Order:
    weights = {id_of(session, name): weight for name, weight in wanted.pop("weights", {"robot": 1.0}).items()}
    return Order(**{"prompt": "a red cat", "steps": 2, "seed": 7, "weights": weights, **wanted})


def told(session: Session, work, stop_after: int | None = None) -> list:
    """All that a job tells but its progress; asked to stop after so many events."""
    job, events = Job(session), []
    for event in job.events(work):
        if not isinstance(event, Progress):
            events.append(event)
            if len(events) == stop_after:
                job.stop()
    return events


def test_comparing_draws_the_same_seed_twice(session):
    (seen,) = told(session, lambda job: compare.compare(job, order(session, seed=-1)))
    base, adapted = read_png(seen.base.path), read_png(seen.adapted.path)
    assert base.seed == adapted.seed >= 0
    assert base.adapters == () and [used.name for used in adapted.adapters] == ["robot"]
    assert seen.distance == distance(Image.open(seen.base.path), Image.open(seen.adapted.path)) > 0.01
    assert f"{seen.distance:.1%}" in seen.sentence
    with pytest.raises(SessionError, match="Choose an adapter"):
        told(session, lambda job: compare.compare(job, order(session, weights={})))


@pytest.mark.parametrize(
    ("text", "whole", "expected"),
    [
        ("0-1:5", False, [0, 0.25, 0.5, 0.75, 1]),
        ("-1-1:3, 2", False, [-1, 0, 1, 2]),
        (".5 , 1.", False, [0.5, 1]),
        ("-2--1:2", False, [-2, -1]),
        ("1-4", True, [1, 2, 3, 4]),
        ("3-1", True, [3, 2, 1]),
        ("10-30:3", True, [10, 20, 30]),
        ("", True, []),
    ],
)
def test_numbers_and_ranges(text, whole, expected):
    assert axes.numbers(text, whole=whole) == expected


@pytest.mark.parametrize(
    ("text", "whole", "reason"),
    [
        ("1, x", False, "'x' is no number"),
        ("0-1", False, "Say how many"),
        ("0-1:1", False, "from 2 to 64"),
        ("0-1:999", False, "from 2 to 64"),
        ("1-9999999999", True, "more than 64"),
        ("0.5", True, "Whole numbers"),
        ("9" * 400, False, "too large"),
        ("nan", False, "no number"),
        ("1e9", False, "no number"),
    ],
)
def test_numbers_that_are_refused(text, whole, reason):
    with pytest.raises(SessionError, match=reason):
        axes.numbers(text, whole=whole)


def test_each_kind_of_axis_changes_the_order(session):
    robot, start = id_of(session, "robot"), order(session)

    def orders(name: str, text: str) -> list[Order]:
        return [value.apply(start) for value in axes.read_axis(session, start, name, text).values]

    assert [o.weights[robot] for o in orders("Weight of adapter 1", "0, 0.5")] == [0, 0.5]
    assert [o.seed for o in orders("Seed", "3-5")] == [3, 4, 5]
    assert [o.steps for o in orders("Steps", "2, 4")] == [2, 4]
    assert [o.guidance_scale for o in orders("Guidance", "1-2:2")] == [1, 2]
    assert [o.prompt for o in orders("Prompt words", 'red, blue, "dark, green"')] == [
        "a red cat", "a blue cat", "a dark, green cat"]  # fmt: skip
    assert [o.scheduler for o in orders("Scheduler", "DDIM, Euler")] == ["DDIM", "Euler"]
    assert [o.weights[robot] for o in orders("Weight over the steps of adapter 1", "0.5; 1@0,0@0.5,held")] == [
        0.5, "1@0,0@0.5,held"]  # fmt: skip
    assert [o.weights[robot] for o in orders("Without one block of adapter 1", "mid, up.1")] == ["1,mid=0", "1,up.1=0"]
    known = blocks.blocks(session, robot)
    (only,) = orders("Only one block of adapter 1", "mid")
    assert only.weights[robot] == "1," + ",".join(f"{b}=0" for b in known if b != "mid")
    assert len(orders("Only one block of adapter 1", "all")) == len(known)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("Weight of adapter 2", "1", "adapter 2, and 1 is chosen"),
        ("Weight of adapter 1", "11", "-10 to 10"),
        ("Seed", "-4", "0 or more"),
        ("Steps", "0, 5", "from 1 to"),
        ("Guidance", "", "needs values"),
        ("Prompt words", "dog, cat", "does not have 'dog'"),
        ("Scheduler", "Magic", "no scheduler 'Magic'"),
        ("Only one block of adapter 1", "nowhere", "no block 'nowhere'"),
        ("Weight over the steps of adapter 1", "1@0", "one keyframe alone"),
        ("Seed", "1-64, 100", "65 values"),
        ("Nonsense", "1", "no axis"),
        ("Seed", "1," * 2000, "characters"),
    ],
)
def test_axes_that_are_refused(session, name, text, reason):
    with pytest.raises(SessionError, match=reason):
        xyz.plan(session, order(session), [(name, text)] * 1 + [("", ""), ("", "")])


def test_grids_that_are_refused(session):
    with pytest.raises(SessionError, match="what varies"):
        xyz.plan(session, order(session), [("", "1")] * 3)
    with pytest.raises(SessionError, match="two axes"):
        xyz.plan(session, order(session), [("Seed", "1"), ("Seed", "2"), ("", "")])
    with pytest.raises(SessionError, match="sets the same weight"):
        weights = [("Weight of adapter 1", "0, 1"), ("Weight over the steps of adapter 1", "1; 1@0,0@1")]
        xyz.plan(session, order(session), [*weights, ("", "")])
    with pytest.raises(SessionError, match="81 pictures"):
        xyz.plan(session, order(session), [("Seed", "1-9"), ("Weight of adapter 1", "0-1:9"), ("", "")])


def test_axes_of_one_adapter_act_together(session):
    robot = id_of(session, "robot")
    axes = [("Weight of adapter 1", "0.5, 1"), ("Without one block of adapter 1", "mid, up.1")]
    for chosen in ([*axes, ("", "")], [*axes[::-1], ("", "")]):
        grid = xyz.plan(session, order(session), chosen)
        assert sorted(o.weights[robot] for o in grid.orders.values()) == [
            "0.5,mid=0", "0.5,up.1=0", "1,mid=0", "1,up.1=0"]  # fmt: skip


def test_the_cheapest_axis_is_innermost(session):
    grid = xyz.plan(
        session, order(session), [("Weight of adapter 1", "0, 1"), ("Seed", "1-3"), ("Scheduler", "DDIM, Euler")]
    )
    places = list(grid.orders)
    assert len(places) == 12
    assert [place[1] for place in places[:4]] == [0, 1, 2, 0]  # the seeds change at each picture
    assert [place[2] for place in places] == [0] * 6 + [1] * 6  # the scheduler once


def test_a_grid_is_drawn_with_legends_and_recipes(session):
    start = order(session, seed=-1)
    grid = xyz.plan(session, start, [("Weight of adapter 1", "0, 1"), ("Prompt words", "red, blue"), ("Steps", "1, 2")])
    sheets = told(session, lambda job: xyz.draw_grid(job, grid))
    assert [sheet.cells for sheet in sheets] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [sheet.path is None for sheet in sheets] == [True] * 7 + [False]
    recipe = read_png(sheets[-1].path)
    assert recipe.prompt == "a red cat" and recipe.steps == 1
    with Image.open(sheets[-1].path) as image:
        said = json.loads(image.text[xyz.GRID_KEY])
        assert image.size == sheets[-1].image.size
    assert said["x"] == {"axis": "Weight of adapter 1", "values": ["robot 0", "robot 1"]}
    assert said["y"]["values"] == ["red", "blue"] and said["z"]["values"] == ["steps 1", "steps 2"]


def test_a_stopped_grid_keeps_what_is_drawn(session):
    before = set(session.output_dir.rglob("*.png"))
    grid = xyz.plan(session, order(session), [("Seed", "1-4"), ("", ""), ("", "")])
    sheets = told(session, lambda job: xyz.draw_grid(job, grid), stop_after=2)
    last = sheets[-1]
    assert last.path is not None and 2 <= last.cells < 4 and last.wanted == 4
    made = set(session.output_dir.rglob("*.png")) - before
    assert len(made) == last.cells + 1  # the cells and the sheet
    whole = last.image.load()
    assert whole[last.image.width - 40, last.image.height // 2] == xyz.BLANK


def test_a_cell_is_the_picture_that_its_recipe_gives_alone(session):
    grid = xyz.plan(session, order(session), [("Only one block of adapter 1", "mid, up.1"), ("", ""), ("", "")])
    before = set(session.output_dir.rglob("*.png"))
    told(session, lambda job: xyz.draw_grid(job, grid))
    cell = sorted(set(session.output_dir.rglob("*.png")) - before)[0]
    recipe, weights, problems = session.restore(cell)
    assert problems == [] and weights[id_of(session, "robot")].startswith("1,")
    again = Order(
        recipe.prompt, steps=recipe.steps, guidance_scale=recipe.guidance_scale, seed=recipe.seed, weights=weights
    )
    (event,) = [e for e in session.generate(again) if hasattr(e, "path")]
    assert event.path.read_bytes() == cell.read_bytes()


def test_blocks_are_in_forward_order_and_many_are_taken_together(session):
    known = blocks.blocks(session, id_of(session, "robot"))
    assert (
        known[0].startswith("down") and "mid" in known and known[-1].startswith("up") and len(set(known)) == len(known)
    )
    layers = [f"transformer_blocks.{i}.attn.to_q" for i in range(19)] + [
        f"single_transformer_blocks.{i}.attn.to_q" for i in range(38)
    ]
    runs = blocks.blocks_of(layers)
    assert (
        runs[:2] == ["transformer_blocks.0-3", "transformer_blocks.4-7"]
        and runs[-1] == "single_transformer_blocks.36-37"
    )
    assert len(runs) <= blocks.MAX_BLOCKS and blocks.blocks_of(["mid_block.a.to_q"]) == ["mid"]
    assert blocks.without("0.5,mid=0.3", ["mid"]) == "0.5,mid=0" and blocks.without("mid=2", ["mid"]) == "1,mid=0"


def test_the_block_view_measures_each_block(session):
    seen = told(session, lambda job: block_view.view(job, order(session, steps=1)))
    known = blocks.blocks(session, id_of(session, "robot"))
    assert [row.block for row in seen[-1].rows] == known and len(seen) == len(known)
    assert seen[-1].path is not None and all(step.path is None for step in seen[:-1])
    most = max(seen[-1].rows, key=lambda row: row.distance)
    assert most.distance > 0 and f"Block {most.block} matters most" in seen[-1].sentence
    assert read_png(seen[-1].path).adapters[0].weight == 1
    with pytest.raises(SessionError, match="weight 0"):
        told(session, lambda job: block_view.view(job, order(session, weights={"robot": 0})))


def test_the_router_view_tells_what_each_layer_chose(session):
    (seen,) = told(
        session, lambda job: router_view.view(job, order(session, steps=3, weights={"robot": 1, "ink": 0.5}))
    )
    assert read_png(seen.path) == read_png(seen.drawn.path) and seen.map.size[1] > 300
    assert "decided" in seen.sentence and "2 experts" in seen.sentence
    with Image.open(seen.path) as image:
        assert len(set(image.get_flattened_data() if hasattr(image, "get_flattened_data") else image.getdata())) > 50
    again = order(session, steps=3, weights={"robot": 1, "ink": 0.5})
    (event,) = [e for e in session.generate(again) if hasattr(e, "path")]
    assert event.path.read_bytes() == seen.drawn.path.read_bytes()  # watching changes nothing


def test_static_routing_gets_a_sentence_instead(session):
    (said,) = told(session, lambda job: router_view.view(job, order(session, weights={"still": 1.0})))
    assert "'still' is static" in said
    with pytest.raises(SessionError, match="weight 0"):
        told(session, lambda job: router_view.view(job, order(session, weights={"robot": 0.0})))
    with pytest.raises(SessionError, match="layers took part"):
        told(session, lambda job: router_view.view(job, order(session, weights={"robot": "1,attn1=0,attn2=0"})))


def test_errors_reach_whoever_waits_without_paths(session):
    def fail(job: Job) -> None:
        raise ValueError(f"{session.output_dir}/x.png is broken")

    with pytest.raises(SessionError) as caught:
        told(session, fail)
    assert str(session.output_dir) not in str(caught.value)
