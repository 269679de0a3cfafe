"""What a run says: before it begins, to the trackers, and at its end."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from PIL import Image

from lily_diffusion.training import reports, train
from lily_diffusion.training.build import build
from lily_diffusion.training.checks import complete
from lily_diffusion.training.history import History

pytest_plugins = ("tests.training_base",)  # its fixtures: base, pictures, arguments


@pytest.fixture
def held_out(tmp_path):
    folder = tmp_path / "held out"
    folder.mkdir()
    Image.new("RGB", (16, 16), "gold").save(folder / "gold.png")
    return folder


def test_the_opening_says_what_is_out_of_the_ordinary_and_only_that(arguments, held_out):
    plain = reports.opening(build(complete(arguments())))
    assert "3 at 16 pixels" in plain and "adamw, learning rate 0.01, constant" in plain
    assert "Held out" not in plain and "Saved" not in plain and "note" not in plain
    flags = {"validation_data_dir": held_out, "use_ema": True, "ema_decay": 0.9, "instance_prompt": "sks"}
    told = reports.opening(build(complete(arguments(use_aspect_ratio_buckets=True, **flags))))
    assert "Held out      1, never trained on" in told and "the average of the weights, decay 0.9" in told
    assert "3 at about 16 x 16 pixels, in 1 shape\n" in told


def test_a_run_without_matplotlib_is_told_so(arguments, monkeypatch):
    run = build(complete(arguments()))
    monkeypatch.setattr(reports.loss_plot, "plot_notes", lambda: ["no picture today"])
    assert "note: no picture today" in reports.opening(run)


def test_the_facts_are_those_of_the_run(arguments, tmp_path):
    run = build(complete(arguments(caption_dropout=0.1, use_ema=True)))
    facts = reports.training_facts(run)
    assert facts["optimizer"] == "adamw" and facts["caption dropout"] == 0.1
    assert facts["averaged weights"] == "decay 0.999" and facts["resolution"] == "16 pixels"
    assert "held-out loss" not in facts and "masks" not in facts
    run.history = History(tmp_path)
    run.history.add_held_out(0, {0.125: 8.0, 0.875: 8.0})
    run.history.add_held_out(4, {0.125: 0.25, 0.875: 0.75})
    assert reports.training_facts(run)["held-out loss"] == "0.5000 over 2 noise levels"


@pytest.mark.usefixtures("drawn_losses")
def test_a_run_folder_shows_itself(arguments, held_out):
    flags = {"validation_prompt": ["a sks robot"], "num_validation_images": 1, "validation_inference_steps": 1}
    result = train(arguments(validation_data_dir=held_out, instance_prompt="a sks robot", validation_steps=2, **flags))
    names = {path.name for path in result.output_dir.iterdir()}
    assert {"README.md", "loss.csv", "loss.png", "run.yaml", "samples"} <= names
    card = (result.output_dir / "README.md").read_text()
    assert "![losses](loss.png)" in card and "(samples/step-4.png)" in card and "| held-out loss | " in card
    for name in ("README.md", "samples", "loss.png", "loss.csv", "run.yaml"):
        assert str(result.output_dir / name) in result.message
    rows = History(result.output_dir, 4).rows
    assert [rows[step]["loss"] for step in (1, 2, 3, 4)] == result.losses
    assert [step for step, row in rows.items() if "held_out_0.375" in row] == [0, 2, 4]


def test_a_resumed_run_leaves_the_numbers_of_one_that_never_stopped(arguments, held_out):
    flags = {"validation_data_dir": held_out, "use_ema": True, "instance_prompt": "sks", "max_train_steps": 6}
    whole = train(arguments("whole", validation_steps=2, **flags))
    stopped = train(arguments("parts", validation_steps=2, **flags), on_step=lambda report: report.step == 3)
    with (stopped.output_dir / "loss.csv").open("a") as file:
        file.write("4,0.5,0.5,0.01,1.0,0.1\n5,0.4")  # steps after the checkpoint, the last one cut short
    resumed = train(arguments("parts", validation_steps=2, resume_from_checkpoint="latest", **flags))
    rows, expected = (History(run.output_dir, 6).rows for run in (resumed, whole))
    for row in (*rows.values(), *expected.values()):
        row.pop("seconds", None)
    assert rows == expected and list(rows) == [0, 1, 2, 3, 4, 5, 6]


def test_what_is_not_for_others_is_kept_back_wherever_it_lies(tmp_path, arguments):
    run = types.SimpleNamespace(args=arguments(), output_dir=tmp_path / "out")
    assert reports.folders_kept_back(run) == ["logs"]
    args = arguments(logging_dir="diary", disk_cache_dir=tmp_path / "out" / "cache" / "latents")
    args.instance_data_dir = tmp_path / "out" / "photos"
    args.class_data_dir = tmp_path / "elsewhere"
    run = types.SimpleNamespace(args=args, output_dir=tmp_path / "out")
    assert reports.folders_kept_back(run) == ["diary", "cache/latents", "photos"]


def test_the_trend_is_the_mean_at_first_and_forgets_later():
    trend, losses = None, [5.0, 1.0, 3.0, *[2.0] * 17]
    for step, loss in enumerate(losses, start=1):
        trend = reports.smoothed(trend, loss, step)
        assert trend == pytest.approx(sum(losses[:step]) / step)
    assert reports.smoothed(1.0, 2.0, 500) == pytest.approx(1.05)


class FakeWandb(types.ModuleType):
    class Image:
        def __init__(self, pixels):
            self.pixels = pixels


def test_trackers_get_the_sheet_as_a_picture(tmp_path, monkeypatch):
    Image.new("RGB", (6, 4), "teal").save(tmp_path / "sheet.png")
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb("wandb"))
    got = {}
    board = types.SimpleNamespace(
        add_image=lambda name, picture, step, dataformats: got.update(board=(name, picture, step, dataformats))
    )
    trackers = [
        types.SimpleNamespace(name="tensorboard", writer=board),
        types.SimpleNamespace(name="wandb", log=lambda values, step: got.update(wandb=(values, step))),
    ]
    accelerator = types.SimpleNamespace(trackers=trackers)
    run = types.SimpleNamespace(accelerator=accelerator, progress=types.SimpleNamespace(step=7))
    reports.track_picture(run, tmp_path / "sheet.png")
    teal = np.full((4, 6, 3), (0, 128, 128), dtype=np.uint8)
    name, picture, step, layout = got["board"]
    assert (name, step, layout) == ("validation", 7, "HWC") and np.array_equal(picture, teal)
    values, step = got["wandb"]
    assert step == 7 and np.array_equal(values["validation"].pixels, teal)


def test_trackers_are_told_the_settings_but_no_secret_and_write_beside_the_logs(arguments, tmp_path):
    told = {}

    def init_trackers(name, config, init_kwargs):
        told.update(config=config, init_kwargs=init_kwargs)

    accelerator = types.SimpleNamespace(is_main_process=True, init_trackers=init_trackers)
    args = arguments(report_to="wandb", push_to_hub=True, hub_token="secret")
    run = types.SimpleNamespace(args=args, output_dir=tmp_path / "out", accelerator=accelerator)
    reports.start_trackers(run)
    assert "secret" not in str(told) and told["config"]["max_train_steps"] == 4
    assert all(isinstance(value, int | float | str) for value in told["config"].values())
    assert told["init_kwargs"] == {"wandb": {"name": "out", "dir": str(tmp_path / "out" / "logs")}}
    assert (tmp_path / "out" / "logs").is_dir()
