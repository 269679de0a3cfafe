"""The live view: what it says, how it measures, and how it looks in a terminal and in a log file."""

from __future__ import annotations

import logging
import os
import pty
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from lily_diffusion.training import progress_bar
from lily_diffusion.training.progress_bar import Bar, Clock, duration, memory_in_use, progress_text, speed_scalars


def report(step: int, total: int = 100) -> SimpleNamespace:
    return SimpleNamespace(
        step=step, max_train_steps=total, loss=0.25, smoothed_loss=0.125, learning_rate=1e-4, grad_norm=1.0
    )


@pytest.fixture
def now(monkeypatch) -> SimpleNamespace:
    """A clock that goes only when it is told."""
    clock = SimpleNamespace(time=100.0)
    monkeypatch.setattr(progress_bar.time, "monotonic", lambda: clock.time)
    return clock


def test_speed_is_that_of_the_last_steps_without_pauses_and_without_the_slow_first_one(now):
    clock = Clock()
    assert clock.seconds_per_step == 0
    now.time += 30
    clock.tick()
    assert clock.seconds_per_step == 30
    for _ in range(10):
        now.time += 2
        clock.tick()
        with clock.paused():
            now.time += 500
    assert clock.seconds_per_step == pytest.approx(2)
    for _ in range(progress_bar.WINDOW):
        now.time += 4
        clock.tick()
    assert clock.seconds_per_step == pytest.approx(4)


def test_a_pause_that_ends_in_an_error_is_a_pause(now):
    clock = Clock()
    with pytest.raises(ValueError), clock.paused():
        now.time += 9
        raise ValueError
    now.time += 1
    clock.tick()
    assert clock.seconds_per_step == pytest.approx(1)


def test_the_text_says_time_speed_losses_rate_and_memory():
    memory = f"{memory_in_use():.1f} GB"
    text = progress_text(report(40), 0.5)
    assert text.rpartition(", ")[0] == "00:30 left, 2.00 it/s, loss 0.2500, trend 0.1250, lr 0.0001"
    assert text.endswith(" GB") and memory.endswith(" GB")
    assert "10:00 left, 10.0 s/it" in progress_text(report(40), 10.0)


@pytest.mark.parametrize(("seconds", "text"), [(0, "00:00"), (59.6, "01:00"), (754, "12:34"), (3723, "1:02:03")])
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_memory_is_what_the_process_takes_or_the_peak_of_its_gpu(monkeypatch):
    before = memory_in_use()
    much = torch.ones(2**26)  # a quarter of a GB
    assert 0.2 < memory_in_use() - before < 0.4
    del much
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**30)
    assert speed_scalars(0.25) == {"it_per_second": 4.0, "memory_gb": 3.0}


def test_a_log_file_gets_a_line_now_and_then_and_the_last(now, caplog, capsys):
    caplog.set_level(logging.INFO)
    with Bar(100) as bar:
        for step in range(1, 101):
            now.time += 7
            bar.update(report(step))
    lines = [record.message for record in caplog.records]
    assert lines[0].startswith("step 1 of 100, ") and lines[1].startswith("step 6 of 100, 10:58 left, 7.0 s/it, loss")
    assert len(lines) == 21 and lines[-1].startswith("step 100 of 100, 00:00 left")
    assert capsys.readouterr().err == "" and bar.it_per_second == pytest.approx(1 / 7)


def test_another_process_shows_nothing_but_measures(now, caplog, capsys):
    caplog.set_level(logging.INFO)
    with Bar(4, visible=False) as bar:
        assert bar.it_per_second is None
        now.time += 2
        bar.update(report(1, 4))
        with bar.paused():
            now.time += 50
    assert not caplog.records and capsys.readouterr().err == "" and bar.it_per_second == 0.5


SHOW = """
import fcntl, struct, sys, termios
sys.path.insert(0, {root!r})
from tests.test_training_progress_bar import Bar, report
for width in (80, 140):
    fcntl.ioctl(2, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    with Bar(10, done=4) as bar:
        for step in range(5, 8):
            bar.update(report(step, 10))
"""


def test_a_terminal_gets_a_bar_that_fits_into_its_line():
    leader, follower = pty.openpty()
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    subprocess.run([sys.executable, "-c", SHOW.format(root=root)], stderr=follower, check=True, timeout=60)
    os.close(follower)
    text = b""
    while chunk := _read(leader):
        text += chunk
    lines = text.decode().replace("\n", "\r").split("\r")
    ends = [line.rstrip() for line in lines if line.startswith("Steps  70%|")]
    for last, width in ((ends[0], 80), (ends[-1], 140)):
        assert "7/10, " in last and " left, " in last and "it/s" in last
        assert len(last) <= width
        assert ("trend 0.1250, lr 0.0001" in last) == (width == 140)


def _read(leader: int) -> bytes:
    try:
        return os.read(leader, 65536)
    except OSError:  # the other end is closed
        return b""
