"""The page itself, in a real headless Chromium: the whole way of a user."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from lily_diffusion.base_model import load_pipeline
from tests.browser import browser  # noqa: F401
from tests.test_ui_session import save_adapter
from ui import app
from ui.keeping.recipe import read_png
from ui.session import Session

HOSTILE = "<img src=x onerror=alert(1)> *b*"

# ruff: noqa: F811


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Session:
    folder = tmp_path_factory.mktemp("adapters")
    unet = load_pipeline().unet
    save_adapter(unet, folder, "robot.safetensors", seed=1, trigger_words=("sks robot",))
    save_adapter(unet, folder, f"{HOSTILE}.safetensors", seed=2, trigger_words=("<script>alert(2)</script>",))
    (folder / "broken.safetensors").write_bytes(b"\x80\x04 not tensors")
    return Session(adapters_dir=folder, output_dir=tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def address(session):
    demo = app.create_demo(session)
    yield app.launch(demo)
    demo.close()


@pytest.fixture
def page(browser, address):
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(15_000)
    page.alerts = []
    page.on("dialog", lambda dialog: (page.alerts.append(dialog.message), dialog.dismiss()))
    page.goto(address)
    page.locator(".card").first.wait_for()
    yield page
    page.close()


def card(page, name: str):
    return page.locator(".card", has_text=name)


def row(page, name: str):
    return page.locator(".adapter", has_text=name)


def use(page, name: str):
    """Click the adapter's card and return its row."""
    card(page, name).locator(".pick").click()
    row(page, name).locator(".name input:checked").wait_for()
    return row(page, name)


def generate(page, **numbers) -> None:
    """Write the numbers into their boxes (a seed is then a fixed one) and press the button."""
    for name, value in numbers.items():
        page.locator(f"#{name} input[type=number]").fill(str(value))
        page.locator(f"#{name} input[type=number]").blur()
    page.click("#generate")


def wait_for(page, text: str) -> None:
    page.locator("#progress", has_text=text).wait_for()


def pictures(page):
    return page.locator("#gallery .grid-container img, #gallery .thumbnail-lg img")


def saved(session: Session) -> list[Path]:
    return sorted(session.output_dir.rglob("*.png"))


def test_pictures_with_an_adapter_and_back_from_a_saved_one(page, session):
    before = len(saved(session))
    page.fill("#prompt textarea", "on a red background")
    robot = use(page, "robot")
    robot.locator(".name input").uncheck()
    assert not robot.locator(".weight input").is_visible()  # only while it is on
    robot.locator(".name input").check()
    robot.locator(".weight input").fill("-1.75")
    assert robot.locator(".weight-slider input[type=range]").input_value() == "-1"
    robot.get_by_role("button", name="+ sks robot").click()
    page.wait_for_function("document.querySelector('#prompt textarea').value == 'on a red background, sks robot'")
    generate(page, steps=2, count=2, seed=41, width=48)
    wait_for(page, "Done: 2 pictures")
    assert pictures(page).count() == 2
    first, second = (read_png(path) for path in saved(session)[before:])
    assert (first.seed, second.seed, first.width, first.steps) == (41, 42, 48, 2)
    assert [(used.name, used.weight) for used in second.adapters] == [("robot", -1.75)]
    page.wait_for_function("document.querySelector('#info textarea').value.includes('Seed: 42')")

    page.reload()
    card(page, "robot").wait_for()
    page.locator("#restore input[type=file]").set_input_files(saved(session)[before + 1])
    page.locator("#note", has_text="Settings restored").wait_for()
    assert page.locator("#prompt textarea").input_value() == "on a red background, sks robot"
    assert page.locator("#seed input").input_value() == "42"
    assert row(page, "robot").locator(".name input").is_checked()
    assert row(page, "robot").locator(".weight input").input_value() == "-1.75"
    generate(page)
    wait_for(page, "Done: 1 picture")
    again = saved(session)[-1]
    assert read_png(again) == second and again.read_bytes() == saved(session)[before + 1].read_bytes()


def test_interrupt_keeps_the_pictures_that_are_done(page, session):
    before = len(saved(session))
    page.fill("#prompt textarea", "a cat")
    generate(page, steps=12, count=12, seed=1)
    pictures(page).first.wait_for()
    page.click("#stop")
    wait_for(page, "Interrupted")
    kept = pictures(page).count()
    assert 1 <= kept < 12 and len(saved(session)) - before == kept
    page.locator("#stop:disabled").wait_for()


def test_who_waits_can_leave_the_queue_and_ask_again(page, browser, address, session):
    before = len(saved(session))
    page.fill("#prompt textarea", "a cat")
    generate(page, steps=20, count=12, seed=1)
    pictures(page).first.wait_for()
    other = browser.new_page()
    other.goto(address)
    other.locator(".card").first.wait_for()
    other.fill("#prompt textarea", "a dog")
    other.click("#generate")
    other.click("#leave")
    wait_for(other, "Not waiting any more")
    other.wait_for_timeout(1000)
    assert "Not waiting any more" in other.locator("#progress").inner_text()  # no failure is told after it
    assert not other.locator("#leave").is_visible() and other.locator("#stop").is_disabled()
    page.click("#generate")  # pressed again while it draws, which changes nothing
    page.locator("#stop:enabled").click()
    wait_for(page, "Interrupted")
    page.wait_for_timeout(500)
    kept = pictures(page).count()
    generate(other, steps=1, count=1, seed=2)
    wait_for(other, "Done: 1 picture")
    other.close()
    prompts = [read_png(path).prompt for path in saved(session)[before:]]
    assert prompts == ["a cat"] * kept + ["a dog"]


@pytest.mark.slow
def test_many_adapters_are_turned_through_page_by_page(page, session):
    names = [f"many {letter}" for letter in "abcdefghij"]
    many = session.adapters.root / "many"
    many.mkdir()
    unet = load_pipeline().unet
    for number, name in enumerate(names):
        save_adapter(unet, many, f"{name}.safetensors", seed=10 + number)
    card(page, names[-1]).wait_for()
    for name in names:
        use(page, name)
    pager = page.locator("#pager")
    pager.get_by_text("9 to 10 of 10 in use").wait_for()
    row(page, "many j").locator(".weight input").fill("0.25")
    row(page, "many i").locator(".name input").uncheck()
    page.click("#rows-back")
    pager.get_by_text("1 to 8 of 10 in use").wait_for()
    row(page, "many b").locator(".weight input").fill("0.5")
    row(page, "many a").locator(".remove").click()
    pager.get_by_text("1 to 8 of 9 in use").wait_for()
    page.fill("#prompt textarea", "a cat")
    with session._lock:  # as long as others draw
        generate(page, steps=1, count=1, seed=3)
        page.wait_for_timeout(300)
        page.click("#rows-on")  # what was asked for stays what it was
        pager.get_by_text("9 to 9 of 9 in use").wait_for()
    wait_for(page, "Done: 1 picture")
    weights = {used.name: used.weight for used in read_png(saved(session)[-1]).adapters}
    used = {name for name in names if name not in ("many a", "many i")}
    assert weights == {f"many/{name}": {"many b": 0.5, "many j": 0.25}.get(name, 1.0) for name in used}
    row(page, "many j").locator(".remove").click()
    pager.wait_for(state="hidden")
    shutil.rmtree(many)


def test_the_shown_picture_is_the_saved_file(page, session):
    generate(page, steps=1, count=1, seed=5)
    wait_for(page, "Done: 1 picture")
    shown = page.request.get(pictures(page).first.get_attribute("src"))
    assert shown.body() == saved(session)[-1].read_bytes()  # with the recipe in it


def test_texts_from_files_are_inert(page):
    hostile = card(page, "onerror")
    assert hostile.locator(".card-name").inner_text().strip() == HOSTILE
    assert hostile.locator("img, script, em").count() == 0
    hostile.locator(".word").click()
    page.wait_for_function("document.querySelector('#prompt textarea').value.includes('alert(2)')")
    page.fill("#prompt textarea", "")
    hostile = use(page, "onerror")
    assert hostile.locator(".name").inner_text().strip() == HOSTILE
    assert hostile.locator("img, script, em").count() == 0
    hostile.get_by_role("button").filter(has_text="alert(2)").click()
    page.wait_for_function("document.querySelector('#prompt textarea').value.includes('alert(2)')")
    generate(page, steps=1, count=1)
    wait_for(page, "Done: 1 picture")
    assert page.alerts == []


def test_a_broken_file_is_shown_with_its_reason(page):
    broken = card(page, "broken")
    assert broken.locator(".pick").is_disabled() and "pickle" in broken.locator(".why").inner_text()


def test_adding_an_adapter_through_the_page(page, session, tmp_path):
    source = session.adapters.root / "robot.safetensors"
    shutil.copy(source, tmp_path / "new one.safetensors")
    page.locator("#upload input[type=file]").set_input_files(tmp_path / "new one.safetensors")
    card(page, "new_one").wait_for()
    added = session.adapters.root / "new_one.safetensors"
    assert added.read_bytes() == source.read_bytes()
    added.unlink()
    card(page, "new_one").wait_for(state="hidden")  # found out by itself


def test_an_empty_folder_says_what_to_do(browser, tmp_path):
    demo = app.create_demo(Session(adapters_dir=tmp_path / "none", output_dir=tmp_path))
    page = browser.new_page()
    page.goto(app.launch(demo))
    page.locator("#empty", has_text="No adapters yet").wait_for()
    for name in ("leave", "tools", "both", "info", "used", "shown-base", "judge-slider", "export-sheet"):
        assert not page.locator(f"#{name}").is_visible(), name  # before there is anything to show
    page.close()
    demo.close()


def test_the_page_follows_when_somebody_loads_another_base_model(browser, tmp_path, monkeypatch):
    monkeypatch.setattr(app, "BASE_SECONDS", 0.5)
    load_pipeline().save_pretrained(tmp_path / "other base")
    session = Session([str(tmp_path / "other base")], adapters_dir=tmp_path / "none", output_dir=tmp_path)
    demo = app.create_demo(session)
    page = browser.new_page()
    page.goto(app.launch(demo))
    page.get_by_text("Base model: other base").wait_for()
    page.locator("#steps input[type=number]").fill("3")
    session.load_base("embedded")
    page.get_by_text("Base model: embedded").wait_for()
    page.wait_for_function("document.querySelector('#steps input[type=number]').value != '3'")
    page.close()
    demo.close()


def test_errors_are_for_people(page, session, tmp_path):
    generate(page, width=63)
    toast = page.locator(".toast-body")
    toast.filter(has_text="multiple of 8").wait_for()
    wait_for(page, "That did not work")
    assert page.locator("#stop").is_disabled()
    generate(page, width=64, count=9999)  # gradio refuses it before anything of ours is asked
    page.locator("#leave").wait_for(state="hidden")
    wait_for(page, "That did not work")
    assert page.locator("#stop").is_visible() and page.locator("#stop").is_disabled()
    (tmp_path / "no.png").write_bytes(b"nothing")
    page.locator("#restore input[type=file]").set_input_files(tmp_path / "no.png")
    toast.filter(has_text="not a PNG").wait_for()
    assert not re.search(r"/tmp|/home|Traceback", toast.all_inner_texts()[0])


def test_narrow_screens_do_not_scroll_sideways(page):
    page.set_viewport_size({"width": 390, "height": 844})
    use(page, "robot").get_by_text("By block and step").click()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    tops = [page.locator(name).bounding_box()["y"] for name in ("#ask", "#show", "#set")]
    assert tops == sorted(tops)


def test_nothing_is_loaded_from_elsewhere(browser, address):
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.locator(".card").first.wait_for()
    page.close()
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
