"""The training tab in a real browser: from pictures to the list of adapters, over a reload, a stop and a resumption."""

from __future__ import annotations

import pytest

from tests.test_ui_serve_page import ROBOT, address, browser, open_page, session, tab
from ui import app
from ui.train.training_runs import Trainings

__all__ = ["address", "browser", "open_page", "session"]  # fixtures


@pytest.mark.slow
def test_a_training_is_seen_after_a_reload_and_stops_and_goes_on(open_page, session):
    page = open_page()
    tab(page, "Train")
    page.locator("#train-files input[type=file]").set_input_files([str(path) for path in ROBOT])
    page.locator(".train-row:visible").nth(4).wait_for()
    captions = page.locator(".train-row:visible textarea, .train-row:visible input[type=text]")
    assert captions.first.input_value() == "a sks robot on a blue background" and captions.count() == 5
    captions.nth(2).fill("a sks robot in the dark")
    page.fill("#train-class textarea, #train-class input", "robot")
    page.locator("#train-settings > button").click()
    page.fill("#train-steps input", "400")
    page.locator("#train-steps input").blur()
    page.click("#train-start")
    page.locator("#train-progress", has_text="Training · step").wait_for(timeout=60_000)
    assert any(text.read_text() == "a sks robot in the dark" for text in session.output_dir.rglob("03.txt"))

    page = open_page()
    tab(page, "Train")
    page.locator("#train-progress", has_text="Training · step").wait_for()
    page.locator("#train-chart polyline").first.wait_for(state="attached")
    page.click("#train-stop")
    page.locator("#train-progress", has_text="Stopped").wait_for(timeout=30_000)
    page.click("#train-keep")
    page.locator("#train-message", has_text="In the list of adapters as sks_robot").wait_for()
    assert [card.name for card in session.cards()] == ["sks_robot"]
    page.click("#train-resume")
    page.locator("#train-progress", has_text="Training · step").wait_for(timeout=60_000)
    page.click("#train-stop")
    page.locator("#train-progress", has_text="Stopped").wait_for(timeout=30_000)


def test_mistakes_are_told(open_page, tmp_path):
    page = open_page()
    tab(page, "Train")
    page.click("#train-start")
    page.locator(".toast-body", has_text="Choose the pictures again").wait_for()
    (tmp_path / "no.png").write_bytes(b"nothing")
    page.locator("#train-files input[type=file]").set_input_files(tmp_path / "no.png")
    page.locator(".toast-body", has_text="None of these files").wait_for()


def test_without_leave_the_tab_only_says_why(browser, session):
    demo = app.create_demo(session, Trainings(session, allowed=False))
    page = browser.new_page()
    page.goto(app.launch(demo))
    tab(page, "Train")
    page.locator("#train-off", has_text="--allow_training").wait_for()
    assert page.locator("#train-start").count() == 0
    page.close()
    demo.close()
