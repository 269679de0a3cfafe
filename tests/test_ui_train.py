"""Training from the page, without the page: pictures are checked, the real script runs, stops, goes on, and is found
again by a page that starts anew."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from lily_diffusion.training.checkpoints import read_progress
from ui.session import Session, SessionError
from ui.train import training_process, training_runs
from ui.train.loss_chart import loss_chart
from ui.train.train_actions import TrainActions
from ui.train.training_pictures import MAX_PICTURES, Drafts, cut
from ui.train.training_runs import FINISHED, RUNNING, STOPPED, Trainings, Wish

SUBJECTS = Path(__file__).parents[1] / "examples" / "subjects"
WISH = Wish("sks", "robot", 4, 4, 0.0, 64, 7, "")


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Session:
    return Session(adapters_dir=tmp_path_factory.mktemp("adapters"), output_dir=tmp_path_factory.mktemp("out"))


@pytest.fixture
def trainings(session) -> Trainings:
    return Trainings(session, pictures=SUBJECTS)


@pytest.fixture
def draft(trainings):
    return trainings.drafts.make(sorted((SUBJECTS / "robot").iterdir()))


def until(trainings: Trainings, run_id: str, done, seconds: float = 120, pause: float = 0.2):
    end = time.monotonic() + seconds
    while not done(status := trainings.status(run_id)):
        assert time.monotonic() < end, status
        time.sleep(pause)
    return status


def noise(seed: int, size=(80, 60)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8))


def test_pictures_are_copied_upright_and_their_captions_are_read(tmp_path, draft):
    assert [p.name for p in draft.pictures] == ["blue.png", "green.png", "purple.png", "red.png", "yellow.png"]
    assert draft.pictures[0].caption == "a sks robot on a blue background" and draft.notes == ()
    picture = noise(1)
    exif = picture.getexif()
    exif[0x0112], exif[0x010E] = 6, "where I live"
    picture.save(tmp_path / "turned.jpg", exif=exif)
    made = Drafts(tmp_path / "drafts").make([tmp_path / "turned.jpg"]).pictures[0]
    with Image.open(made.path) as copied:
        assert copied.size == made.size == (60, 80) and not copied.getexif() and b"where" not in made.path.read_bytes()


def test_what_is_wrong_with_pictures_is_said(tmp_path):
    noise(1).save(tmp_path / "a.png")
    noise(1).save(tmp_path / "b.jpg", quality=90)
    noise(2).save(tmp_path / "c.png")
    (tmp_path / "d.png").write_bytes(b"nothing")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "e.png")
    drafts = Drafts(tmp_path / "drafts")
    notes = drafts.make(sorted(tmp_path.glob("*.*"))).notes
    assert len(notes) == 3 and "d.png is left out: it is no picture" in notes[0] and "e.png" in notes[1]
    assert notes[2] == "Pictures 1 and 2 look alike: one of them may be enough."
    for files in ([], [tmp_path / "a.png"] * (MAX_PICTURES + 1), [tmp_path / "d.png"]):
        with pytest.raises(SessionError, match=r"takes 1 to|None of these"):
            drafts.make(files)


def test_folders_of_the_server_are_named_by_ids_alone(tmp_path):
    (tmp_path / "in" / "dog").mkdir(parents=True)
    (tmp_path / "in" / "empty").mkdir()
    (tmp_path / "secret").mkdir()
    noise(3).save(tmp_path / "in" / "dog" / "a.png")
    noise(3).save(tmp_path / "secret" / "s.png")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "in" / "dog" / "link.png").symlink_to(tmp_path / "secret" / "s.png")
    drafts = Drafts(tmp_path / "drafts", tmp_path / "in")
    [(key, name)] = drafts.folders().items()
    assert name == "dog" and [p.name for p in drafts.of_folder(key).pictures] == ["a.png"]
    for wrong in ("dog", "../secret", str(tmp_path / "secret"), "", None, key + "/.."):
        with pytest.raises(SessionError):
            drafts.of_folder(wrong)
        with pytest.raises(SessionError):
            drafts.get(wrong)


def test_the_crop_that_is_shown_is_the_middle_at_the_resolution(tmp_path):
    wide = Image.new("RGB", (300, 100), "red")
    wide.paste("blue", (100, 0, 200, 100))
    wide.save(tmp_path / "wide.png")
    shown = np.asarray(cut(tmp_path / "wide.png", 64))
    assert shown.shape == (64, 64, 3) and (shown[:, 4:-4] == (0, 0, 255)).all()


@pytest.mark.slow
def test_a_training_stops_goes_on_and_is_listed(session, trainings, draft, monkeypatch):
    run_id = trainings.start(replace(WISH, steps=400), draft, [f"a sks robot {n}" for n in range(5)])
    with pytest.raises(SessionError, match="running already"):
        trainings.start(WISH, draft, ["x"] * 5)
    running = until(trainings, run_id, lambda s: s.step >= 3)
    assert running.state == RUNNING and running.seconds_left > 0 and running.curve[0][0] == 1
    folder = trainings.root / run_id
    assert (folder / "pictures" / "03.txt").read_text() == "a sks robot 2"
    record = json.loads((folder / "run.json").read_text())
    assert os.getpgid(record["pid"]) == record["pid"] != os.getpgid(0)

    training_process._children.clear()  # as a page that was started anew: not the parent of the process
    again = Trainings(session)
    assert again.status().id == run_id and again.status().state == RUNNING
    again.stop(run_id)
    stopped = until(again, run_id, lambda s: s.state != RUNNING)
    assert stopped.state == STOPPED and 3 <= stopped.step < 400 and stopped.adapter == ""
    assert (folder / "result" / f"checkpoint-{stopped.step}").is_dir()
    assert again.keep(run_id) == "sks robot" or again.keep(run_id)

    record = json.loads((folder / "run.json").read_text())
    end = stopped.step + 2
    arguments = [a.replace("=400", f"={end}") if a.startswith("--max_train_steps") else a for a in record["arguments"]]
    (folder / "run.json").write_text(json.dumps({**record, "steps": end, "arguments": arguments}))
    again.resume(run_id)
    finished = until(again, run_id, lambda s: s.state != RUNNING)
    assert (
        finished.state == FINISHED
        and finished.step == end
        and [row[0] for row in finished.curve] == [*range(1, end + 1)]
    )
    assert finished.adapter and finished.samples and again.status(run_id).adapter == finished.adapter
    cards = {card.name: card for card in session.cards(rescan=True)}
    assert cards[finished.adapter].reason is None and cards[finished.adapter].trigger_words == ("sks robot",)
    with pytest.raises(SessionError, match="finished"):
        again.resume(run_id)


def test_a_killed_start_says_so_and_leaves_the_way_free(trainings, draft):
    run_id = trainings.start(WISH, draft, ["a sks robot"] * 5)
    record = json.loads((trainings.root / run_id / "run.json").read_text())
    os.killpg(record["pid"], signal.SIGKILL)
    failed = until(trainings, run_id, lambda s: s.state != RUNNING)
    assert failed.state == training_runs.FAILED and failed.step == 0 and failed.adapter == ""
    with pytest.raises(SessionError, match="saved nothing"):
        trainings.keep(run_id)


@pytest.mark.slow
def test_a_killed_training_is_listed_and_goes_on_from_its_checkpoint(session, trainings, draft, monkeypatch):
    arguments, title = trainings._arguments(replace(WISH, steps=14, rank=2))
    quick = ["--checkpointing_steps=2", "--num_validation_images=1", "--validation_steps=14",
             "--validation_inference_steps=2", "--train_batch_size=1"]  # fmt: skip
    monkeypatch.setattr(trainings, "_arguments", lambda wish: ((*arguments, *quick), title))
    run_id = trainings.start(replace(WISH, steps=14), draft, ["a sks robot"] * 5)
    result = trainings.root / run_id / "result"
    until(trainings, run_id, lambda s: (result / "checkpoint-2").is_dir(), pause=0.01)
    pid = json.loads((trainings.root / run_id / "run.json").read_text())["pid"]
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

    training_process._children.clear()  # as in a page that was started anew
    again = Trainings(session)
    killed = again.status(run_id)
    assert again.runs()[run_id] == "sks robot, stopped" and killed.state == STOPPED
    assert 2 <= killed.step < 14 and killed.adapter == ""
    again.resume(run_id)
    finished = until(again, run_id, lambda s: s.state != RUNNING)
    assert finished.state == FINISHED and [row[0] for row in finished.curve] == [*range(1, 15)]
    assert finished.adapter in {card.name for card in session.cards(rescan=True) if card.reason is None}
    assert read_progress(result / "checkpoint-14").samples_seen == 14 and not [*result.glob(".checkpoint-*")]


BAD = [
    {"steps": 0}, {"steps": 10**9}, {"steps": float("nan")}, {"steps": 1.5}, {"steps": "4"}, {"steps": None},
    {"rank": 0}, {"rank": 10**6}, {"learning_rate": -1}, {"learning_rate": float("inf")}, {"learning_rate": "--x"},
    {"resolution": 63}, {"resolution": 0}, {"resolution": 10**7}, {"seed": -2}, {"seed": 2**40}, {"seed": True},
    {"word": ""}, {"word": None}, {"kind": "x" * 61}, {"kind": "\u202e\0"}, {"sample": "x" * 301}, {"sample": 3},
]  # fmt: skip


@pytest.mark.parametrize("change", BAD, ids=str)
def test_wishes_out_of_bounds_start_nothing(trainings, draft, change, monkeypatch):
    monkeypatch.setattr(training_process, "start", lambda *_: pytest.fail("a process was started"))
    with pytest.raises(SessionError):
        trainings.start(replace(WISH, **change), draft, ["a sks robot"] * 5)


@pytest.mark.parametrize("captions", [[], ["a"] * 4, ["a"] * 4 + [""], ["a"] * 4 + [None], ["a"] * 4 + ["x" * 301]])
def test_every_picture_needs_a_caption(trainings, draft, captions):
    with pytest.raises(SessionError, match="caption"):
        trainings.start(WISH, draft, captions)


def test_texts_cannot_become_flags(trainings, draft, monkeypatch):
    given = []
    monkeypatch.setattr(training_process, "start", lambda arguments, folder: (given.extend(arguments), (0, 0.0))[1])
    hostile = replace(WISH, word="--push_to_hub", kind="--config=/etc/passwd", sample="--output_dir=/ ; $(id)")
    trainings.start(hostile, draft, ["--x"] * 5)
    assert "--instance_prompt=--push_to_hub --config=/etc/passwd" in given
    assert "--validation_prompt=--output_dir=/ ; $(id)" in given and "--output_dir=result" in given
    from lily_diffusion.training import parse_args

    parsed = parse_args(given)
    assert not parsed.push_to_hub and parsed.config is None and parsed.output_dir == "result"


@pytest.mark.parametrize("run_id", ["", "..", "../../x", "a" * 16, "0" * 15 + "/", 3, ["x"], "/etc"])
def test_runs_are_named_by_ids_alone(trainings, run_id):
    for do in (trainings.stop, trainings.resume, trainings.keep, trainings.status):
        with pytest.raises(SessionError, match="no such training"):
            do(run_id)


def test_a_page_that_may_not_train_does_nothing(session, draft):
    off = Trainings(session, allowed=False)
    assert "--allow_training" in off.reason and off.status() is None and off.runs() == {}
    for do in (lambda: off.start(WISH, draft, ["a"] * 5), lambda: off.stop("a" * 16), lambda: off.keep("a" * 16)):
        with pytest.raises(SessionError, match="allow_training"):
            do()


def test_the_chart_holds_numbers_alone():
    assert loss_chart([], 5) == "" and loss_chart([(1, 0.5, 0.5)], 5) == ""
    chart = loss_chart([(n, 1 / n, 1 / n) for n in range(1, 2001)], 2000)
    assert chart.count("<polyline") == 2 and len(chart) < 20_000 and 'points="0.3,' in chart


def test_captions_that_nobody_wrote_follow_the_words_to_the_last(trainings, draft, monkeypatch):
    """The button may be pressed before the page has the captions of the words that were typed last."""
    given: list[list[object]] = []
    monkeypatch.setattr(trainings, "start", lambda wish, draft, captions: given.append(captions) or "x")
    shown = ["a sks", "a sks robot that somebody described", "a sks"]
    actions = TrainActions(trainings, SimpleNamespace())
    monkeypatch.setattr(actions, "_status", lambda *_: [])
    actions.start(draft.id, "a sks", "sks", "robot", 4, 4, 0.0, 64, 7, "", *shown)
    assert given == [["a sks robot", shown[1], "a sks robot"]]
