"""The form of Judge and Export, without a browser: what it reads, refuses, and is filled with."""

from __future__ import annotations

from types import SimpleNamespace

import gradio as gr
import pytest

from lily_diffusion.base_model import load_pipeline
from tests.test_ui_judge import id_of
from tests.test_ui_session import save_adapter
from ui.judge import order_form
from ui.judge.judge_actions import Jobs
from ui.messages import Order, Picture
from ui.pipeline.jobs import Job
from ui.pipeline.orders import SessionError
from ui.session import Session
from ui.turn import Turn


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Session:
    folder = tmp_path_factory.mktemp("adapters")
    unet = load_pipeline().unet
    for number in range(5):
        save_adapter(unet, folder, f"robot{number}.safetensors", seed=number)
    return Session(adapters_dir=folder, output_dir=tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def form(session) -> order_form.OrderForm:
    with gr.Blocks() as demo:
        form = order_form.build(session, demo, gr.Textbox(), "test", gr.Textbox())
        order_form.take_over(session, form, [form.prompt], lambda values: Order(values[0]))
    return form


def values(prompt="a cat", steps=2, size=64, seed=3, adapters=("", "", "", ""), weights=("1", "1", "1", "1")) -> tuple:
    return (prompt, "", steps, 5.0, size, size, seed, "", "sum", *adapters, *weights, "")


def test_what_is_chosen_becomes_an_order():
    order = order_form.order(values(adapters=("a", "", "b", None), weights=(" 0.5", "1", "1@0,0@1", None)))
    assert order == Order("a cat", "", 2, 5.0, 64, 64, 3, 1, {"a": 0.5, "b": "1@0,0@1"}, "")
    assert len(values()) == order_form.SETTINGS + 2 * order_form.ROWS + 1


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"seed": None}, "seed needs a number"),
        ({"size": None}, "width needs a number"),
        ({"adapters": ("a", "a", "", "")}, "chosen twice"),
        ({"adapters": (["a"], "", "", "")}, "chosen twice"),
        ({"adapters": ("a", "", "", ""), "weights": ("", "1", "1", "1")}, "needs a weight"),
    ],
)
def test_what_cannot_be_read_is_told(given, reason):
    with pytest.raises(SessionError, match=reason):
        order_form.order(values(**given))


@pytest.mark.parametrize(
    "given",
    [
        {"adapters": ("../../etc/passwd", "", "", "")},
        {"steps": 10**9},
        {"steps": float("nan")},
        {"steps": "4; rm"},
        {"size": 63},
        {"size": 10**12},
        {"seed": -2},
        {"prompt": "x" * 5000},
    ],
)
def test_what_is_out_of_bounds_is_refused_by_the_session(session, given):
    with pytest.raises(ValueError) as caught:
        list(session.generate(order_form.order(values(**given))))
    assert str(session.adapters.root) not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("weight", ["nan", "inf", "1e400", "11", "0.5,nowhere=1", "up=", "@", "1,2"])
def test_weights_that_are_no_weights_are_refused(session, weight):
    robot = id_of(session, "robot0")
    with pytest.raises(ValueError, match=r"weight|finite|names no|from -10"):
        list(session.generate(order_form.order(values(adapters=(robot, "", "", ""), weights=(weight, "1", "1", "1")))))


def test_a_saved_picture_fills_the_form(session, form):
    robot = id_of(session, "robot1")
    wanted = Order("a dog", "blue", 1, 3.0, 64, 64, 11, 1, {robot: "0.5,mid=0"}, "Euler", blend="ties")
    (picture,) = [event for event in session.generate(wanted) if isinstance(event, Picture)]
    filled = order_form.Lists(session).restore(str(picture.path))
    assert len(filled) == 1 + len(form.inputs) and filled[0] is None
    shown = [value["value"] if isinstance(value, dict) and "value" in value else value for value in filled[1:]]
    assert order_form.order((*shown[:-1], "")) == wanted
    assert [box["visible"] for box in filled[1 + order_form.SETTINGS : -1]] == [True, True, False, False] * 2


def test_more_adapters_than_rows_are_told_of(session, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(gr, "Warning", said.append)
    weights = {card.id: 1.0 for card in session.cards()}
    filled = order_form.Lists(session).filled(Order("x", weights=weights))
    assert said == ["5 adapters are on; the first 4 are taken."]
    assert [box["value"] for box in filled[order_form.SETTINGS :][: order_form.ROWS]] == list(weights)[:4]


def test_lists_are_replaced_only_when_the_folder_has_changed(session):
    lists = order_form.Lists(session)
    before = lists.seen()
    assert lists.changed(before) == lists.changed([list(choice) for choice in before]) == [gr.skip()] * 5
    new = save_adapter(load_pipeline().unet, session.adapters.root, "new.safetensors")
    after, *boxes = lists.changed(before)
    assert {name for name, _ in after} - {name for name, _ in before} == {"new"}
    assert all(box["choices"] == list(after) for box in boxes)
    new.unlink()
    session.cards(rescan=True)


def test_the_button_for_another_tab_is_there_once_it_is_connected(form, session):
    assert form.take.visible
    with gr.Blocks() as demo:
        assert not order_form.build(session, demo, gr.Textbox(), "alone", gr.Textbox()).take.visible


def test_each_visitor_stops_only_their_own_job(session):
    with gr.Blocks():
        jobs = Jobs(session, Turn(gr.HTML(), gr.Button(), gr.Button()))
    halted: list[bool] = []

    def work(job: Job) -> None:
        while not job.halt.wait(0.01):
            job.tell("going")
        halted.append(True)
        job.check()

    one, other = SimpleNamespace(session_hash="one"), SimpleNamespace(session_hash="other")
    running = jobs.run(one, lambda: work, lambda event: {"shown": event}, {})
    next(running)  # it starts
    assert next(running) == {"shown": "going"}
    jobs.stop(other)
    assert next(running) == {"shown": "going"} and halted == []
    jobs.stop(one)
    *_, last = running
    assert halted == [True] and "Stopped." in str(last)


def test_a_visitor_who_leaves_ends_the_job(session):
    with gr.Blocks():
        jobs = Jobs(session, Turn(gr.HTML(), gr.Button(), gr.Button()))
    job_of: list[Job] = []

    def work(job: Job) -> None:
        job_of.append(job)
        while not job.halt.wait(0.01):
            job.tell("going")

    running = jobs.run(SimpleNamespace(session_hash="one"), lambda: work, lambda event: {"shown": event}, {})
    next(running), next(running)
    running.close()  # as gradio does
    assert job_of[0].halt.is_set() and not jobs._running
