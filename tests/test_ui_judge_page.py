"""Judging and exporting in a real headless Chromium: each flow ends with what is on the screen and on the disk."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from lily_diffusion import read_lily_header
from lily_diffusion.base_model import load_pipeline
from tests.browser import browser  # noqa: F401
from tests.test_ui_judge import save_static
from tests.test_ui_session import save_adapter
from ui import app
from ui.judge import xyz
from ui.keeping.recipe import read_png
from ui.session import Session

HOSTILE = "<img src=x onerror=alert(1)> *b*"

# ruff: noqa: F811


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Session:
    folder = tmp_path_factory.mktemp("adapters")
    unet = load_pipeline().unet
    save_adapter(unet, folder, "robot.safetensors", seed=1, trigger_words=("sks robot",))
    save_adapter(unet, folder, f"{HOSTILE}.safetensors", seed=2)
    save_static(unet, folder, "still.safetensors")
    return Session(adapters_dir=folder, output_dir=tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def page(browser, session):
    """One page for all flows, as a visitor has."""
    demo = app.create_demo(session)
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(30_000)
    page.alerts = []
    page.on("dialog", lambda dialog: (page.alerts.append(dialog.message), dialog.dismiss()))
    page.goto(app.launch(demo))
    yield page
    page.close()
    demo.close()


@pytest.fixture
def judge(page):
    """The judging tab with a prompt, the adapter 'robot' at 1, two steps and seed 5."""
    tab(page, "Judge")
    page.fill("#judge-prompt textarea", "a red cat")
    choose(page, "judge-adapter-1", "robot")
    number(page, "judge-steps", 2)
    number(page, "judge-seed", 5)
    return page


def tab(page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def choose(page, elem_id: str, option: str) -> None:
    page.wait_for_function("!document.querySelector('[role=option]')")  # the list that was open before is gone
    page.locator(f"#{elem_id} input").click()
    page.get_by_role("option", name=option, exact=True).click()


def number(page, elem_id: str, value: float) -> None:
    prefix = elem_id.split("-")[0]
    box = page.locator(f"#{elem_id} input[type=number]")
    if not box.is_visible():
        page.locator(f"#{prefix}-settings button").first.click()
    box.fill(str(value))
    box.blur()


def saved(session: Session) -> list[Path]:
    return sorted(session.output_dir.rglob("*.png"))


def wait_for_picture(page, elem_id: str, file: Path) -> None:
    wait_for_pictures(page, elem_id, {file.read_bytes()})


def wait_for_pictures(page, elem_id: str, wanted: set[bytes]) -> None:
    """Wait until the component shows these very files, drawn by the browser."""
    images = page.locator(f"#{elem_id} img")
    for _ in range(200):
        found = [image.get_attribute("src") for image in images.all()]
        if {page.request.get(address).body() for address in found if address} == wanted:
            drawn = "all => all.every(image => image.complete && image.naturalWidth > 0)"
            assert images.evaluate_all(drawn)
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"#{elem_id} does not show what was saved last.")


@contextmanager
def slow(page, times: float) -> Iterator[None]:
    """The browser on a slower machine."""
    devtools = page.context.new_cdp_session(page)
    devtools.send("Emulation.setCPUThrottlingRate", {"rate": times})
    yield
    devtools.send("Emulation.setCPUThrottlingRate", {"rate": 1})
    devtools.detach()


@pytest.mark.slow
def test_base_and_adapted_under_one_slider(judge, session):
    """In a slow browser too, which is still busy with the form when the pictures come."""
    before = len(saved(session))
    tab(judge, "Compare")
    with slow(judge, 10):
        judge.click("#judge-compare")
        judge.locator("#judge-compared", has_text="Seed 5").wait_for()
    base, adapted = saved(session)[before:]
    assert read_png(base).adapters == () and [a.name for a in read_png(adapted).adapters] == ["robot"]
    wait_for_pictures(judge, "judge-slider", {base.read_bytes(), adapted.read_bytes()})
    judge.locator("#judge-progress", has_text="Done.").wait_for()


def test_a_grid_is_shown_and_saved(judge, session):
    before = len(saved(session))
    tab(judge, "Grid")
    judge.fill("#judge-x-values textarea, #judge-x-values input", "0-1:3")
    choose(judge, "judge-y", "Prompt words")
    judge.fill("#judge-y-values textarea, #judge-y-values input", "red, blue")
    judge.click("#judge-grid")
    judge.locator("#judge-gridded", has_text="6 pictures").wait_for()
    made = saved(session)[before:]
    assert len(made) == 7
    wait_for_picture(judge, "judge-sheet", made[-1])
    with Image.open(made[-1]) as sheet:
        assert '"robot 0.5"' in sheet.text[xyz.GRID_KEY]


def test_a_grid_is_stopped_and_keeps_its_cells(judge, session):
    before = len(saved(session))
    tab(judge, "Grid")
    number(judge, "judge-steps", 6)
    choose(judge, "judge-x", "Seed")
    choose(judge, "judge-y", "nothing")
    judge.fill("#judge-x-values textarea, #judge-x-values input", "1-30")
    judge.click("#judge-grid")
    judge.locator("#judge-progress", has_text=re.compile(r"Picture [2-9] of 30")).wait_for()
    judge.click("#judge-stop")
    judge.locator("#judge-gridded", has_text="were not drawn").wait_for()
    judge.locator("#judge-progress", has_text="Stopped").wait_for()
    made = saved(session)[before:]
    assert 2 <= len(made) < 31
    wait_for_picture(judge, "judge-sheet", made[-1])
    judge.locator("#judge-stop:disabled").wait_for()


def test_mistakes_in_an_axis_are_told(judge, session):
    before = saved(session)
    tab(judge, "Grid")
    judge.fill("#judge-x-values textarea, #judge-x-values input", "1, <b>two</b>")
    judge.click("#judge-grid")
    toast = judge.locator(".toast-body")
    toast.filter(has_text="'<b>two</b>' is no number").wait_for()
    assert toast.locator("b").filter(has_text="two").count() == 0 and saved(session) == before


def test_the_experts_are_shown_with_a_sentence(judge, session):
    tab(judge, "Experts")
    judge.click("#judge-routers")
    judge.locator("#judge-routed", has_text="decided on average").wait_for()
    picture, sheet = saved(session)[-2:]
    wait_for_picture(judge, "judge-map", sheet)
    wait_for_picture(judge, "judge-watched", picture)
    choose(judge, "judge-adapter-1", "still")
    judge.click("#judge-routers")
    judge.locator("#judge-routed", has_text="'still' is static").wait_for()
    judge.locator("#judge-map").wait_for(state="hidden")


def test_the_blocks_are_shown_one_by_one(judge, session):
    """The last sheet too, in a browser so slow that the next message comes before it was shown."""
    tab(judge, "Blocks")
    with slow(judge, 4):
        judge.click("#judge-blocks")
        judge.locator("#judge-ranked", has_text=re.compile(r"Block \S+ matters most")).wait_for()
        judge.locator("#judge-progress", has_text="Done.").wait_for()
    wait_for_picture(judge, "judge-bars", saved(session)[-1])


def test_a_blend_is_written_shown_and_offered(page, session):
    tab(page, "Export")
    choose(page, "export-adapter-1", "robot")
    choose(page, "export-adapter-2", HOSTILE)
    page.fill("#export-weight-2 textarea, #export-weight-2 input", "0.5")
    number(page, "export-steps", 2)
    page.fill("#export-prompts textarea", "a sks robot\na red cat")
    page.fill("#export-name textarea, #export-name input", "../two of them")
    page.click("#export-go")
    page.locator("#export-note", has_text="relative error of the updates").wait_for()
    path = session.adapters.root / "two_of_them.safetensors"
    assert read_lily_header(path).config.routing == "static"
    wait_for_picture(page, "export-sheet", saved(session)[-1])
    link = page.locator("#export-file a").first.get_attribute("href")
    assert page.request.get(link).body() == path.read_bytes()
    tab(page, "Judge")
    choose(page, "judge-adapter-1", "two_of_them")
    assert page.alerts == []


def test_what_is_missing_is_told(page, session):
    tab(page, "Export")
    page.fill("#export-prompts textarea", "")
    page.click("#export-go")
    page.locator(".toast-body").filter(has_text="at least one prompt").wait_for()


def test_a_saved_picture_fills_the_form(judge, session):
    number(judge, "judge-seed", 6)
    tab(judge, "Compare")
    judge.click("#judge-compare")
    judge.locator("#judge-compared", has_text="Seed 6").wait_for()
    judge.fill("#judge-prompt textarea", "something else")
    choose(judge, "judge-adapter-1", "no adapter")
    number(judge, "judge-seed", 99)
    judge.locator("#judge-dropped input[type=file]").set_input_files(saved(session)[-1])
    judge.wait_for_function("document.querySelector('#judge-prompt textarea').value == 'a red cat'")
    judge.wait_for_function("document.querySelector('#judge-adapter-1 input').value == 'robot'")
    judge.wait_for_function("document.querySelector('#judge-seed input').value == '6'")


def test_narrow_screens_do_not_scroll_sideways(page):
    page.set_viewport_size({"width": 390, "height": 844})
    for name in ("Judge", "Export"):
        tab(page, name)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.set_viewport_size({"width": 1280, "height": 900})
