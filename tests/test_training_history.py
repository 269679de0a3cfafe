"""loss.csv is whole after any interruption, and loss.png shows what is in it."""

from __future__ import annotations

import csv
import importlib.util

import pytest
from PIL import Image

from lily_diffusion.training.history import History
from lily_diffusion.training.loss_plot import RAW, TREND, draw_losses, loss_figure, plot_notes


def numbers(step: int) -> dict[str, float]:
    return {
        "loss": 1 / (step + 2),
        "smoothed_loss": 1 / (step + 3),
        "lr": 1e-4,
        "grad_norm": 0.1 * step,
        "seconds": 0.5,
    }


def filled(folder, steps, first: int = 1, **resume) -> History:
    history = History(folder, **resume)
    for step in range(first, first + steps):
        history.add(step, **numbers(step))
    return history


def table(folder) -> list[dict[str, str]]:
    with (folder / "loss.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_step_is_in_the_file_at_once_and_exactly(tmp_path):
    history = History(tmp_path)
    for step in range(1, 6):
        history.add(step, **numbers(step))
        last = table(tmp_path)[-1]
        assert int(last.pop("step")) == len(table(tmp_path)) == step
        assert {name: float(value) for name, value in last.items()} == numbers(step)
    assert history.column("lr") == ([1, 2, 3, 4, 5], [1e-4] * 5)


def test_a_resumed_run_leaves_the_file_of_one_that_never_stopped(tmp_path):
    folders = [tmp_path / name for name in ("whole", "parts")]
    for folder in folders:
        folder.mkdir()
        filled(folder, 3).add_held_out(3, {0.125: 0.4, 0.875: 0.1})
    for history in (filled(folders[0], 2, first=4, step=3), filled(folders[1], 2, first=4, step=3)):
        history.add(6, **numbers(6))
    with (folders[1] / "loss.csv").open("a") as file:
        file.write("7,0.25,0.2")  # the process was killed while it wrote
    resumed = filled(folders[1], 1, first=5, step=4)
    assert sorted(resumed.rows) == [1, 2, 3, 4, 5]
    filled(folders[1], 1, first=6, step=5)
    assert (folders[1] / "loss.csv").read_text() == (folders[0] / "loss.csv").read_text()


def test_a_fresh_run_begins_a_fresh_file(tmp_path):
    filled(tmp_path, 5)
    assert History(tmp_path).rows == {} and table(tmp_path) == []


def test_a_checkpoint_in_another_folder_brings_its_rows_along(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    (first / "checkpoint-2").mkdir(parents=True)
    second.mkdir()
    filled(first, 4)
    filled(second, 9)
    history = History(second, 2, first / "checkpoint-2")
    assert history.rows == {1: numbers(1), 2: numbers(2)}
    assert len(table(first)) == 4


@pytest.mark.parametrize(
    "text",
    ["", "no table", "step\n1", "epoch,loss\n1,2\n", "step,loss\none,0.5\n", "step,loss\n1,low\n", "step\n1,2,3\n"],
)
def test_a_file_of_another_kind_is_no_reason_to_fail(tmp_path, text):
    (tmp_path / "loss.csv").write_text(text)
    history = filled(tmp_path, 1, first=4, step=3)
    assert history.rows == {4: numbers(4)} and len(table(tmp_path)) == 1


def test_held_out_losses_stand_in_the_line_of_their_step(tmp_path):
    history = History(tmp_path)
    history.add_held_out(0, {0.875: 0.1, 0.125: 0.4})
    history.add(1, **numbers(1))
    history.add(2, **numbers(2))
    history.add_held_out(2, {0.875: 0.05, 0.125: 0.3})
    history.add(3, **numbers(3))
    rows = table(tmp_path)
    assert [row["step"] for row in rows] == ["0", "1", "2", "3"]
    assert [row["held_out_0.125"] for row in rows] == ["0.4", "", "0.3", ""]
    assert [row["loss"] for row in rows] == ["", *(str(numbers(step)["loss"]) for step in (1, 2, 3))]
    assert history.held_out_columns() == ["held_out_0.125", "held_out_0.875"]
    assert History(tmp_path, 2).rows == {step: row for step, row in history.rows.items() if step < 3}


def test_the_picture_shows_the_losses_the_trend_and_the_held_out_changes(tmp_path):
    history = filled(tmp_path, 20)
    history.add_held_out(0, {0.125: 0.4, 0.875: 0.1})
    assert len(loss_figure(history).axes) == 1  # one measurement is no curve
    history.add_held_out(20, {0.125: 0.3, 0.875: 0.11})
    training, held_out = loss_figure(history).axes
    lines = {line.get_color(): line for line in training.lines}
    assert list(lines[RAW].get_ydata()) == [numbers(step)["loss"] for step in range(1, 21)]
    assert list(lines[TREND].get_ydata()) == [numbers(step)["smoothed_loss"] for step in range(1, 21)]
    low, high, *_ = held_out.lines
    assert list(low.get_ydata()) == pytest.approx([0, -25]) and list(high.get_ydata()) == pytest.approx([0, 10])
    assert [line.get_label() for line in (low, high)] == ["0.125: 0.3000", "0.875: 0.1100"]


def test_the_picture_is_a_small_white_sheet_with_both_lines(tmp_path):
    path = draw_losses(filled(tmp_path, 50))
    assert path == tmp_path / "loss.png" and [p.name for p in tmp_path.glob(".*")] == []
    with Image.open(path) as picture:
        assert picture.size == (900, 500)
        pixels = picture.convert("RGB")
    assert all(pixels.getpixel(corner) == (255, 255, 255) for corner in ((0, 0), (899, 0), (0, 499), (899, 499)))
    colours = {"#{:02x}{:02x}{:02x}".format(*colour) for _, colour in pixels.getcolors(2**24)}
    assert {RAW, TREND} <= colours


def test_one_huge_loss_does_not_hide_the_others(tmp_path):
    history = filled(tmp_path, 200)
    history.rows[100]["loss"] = 1e6
    top = loss_figure(history).axes[0].get_ylim()[1]
    assert 0.25 < top < 1


def test_losses_that_are_not_finite_are_left_out(tmp_path):
    history = filled(tmp_path, 3)
    history.add(4, **{**numbers(4), "loss": float("nan")})
    assert history.column("loss")[0] == [1, 2, 3] and draw_losses(history) is not None


def test_without_matplotlib_there_is_a_note_and_no_picture(tmp_path, monkeypatch):
    history = filled(tmp_path, 3)
    assert plot_notes() == []
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else real(name))
    assert draw_losses(history) is None and not (tmp_path / "loss.png").exists()
    assert plot_notes() == ["loss.png is not drawn, only loss.csv written: pip install matplotlib"]


def test_nothing_is_drawn_before_the_first_step(tmp_path):
    assert draw_losses(History(tmp_path)) is None
