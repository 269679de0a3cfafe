"""The page in a real browser, as people use it: keys, labels, another language, a phone, and a training from pictures
to the list of adapters."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser import browser  # noqa: F401
from ui import app
from ui.german import GERMAN
from ui.session import Session
from ui.train.training_runs import Trainings
from ui.translations import fixed_texts

ROBOT = sorted((Path(__file__).parents[1] / "examples" / "subjects" / "robot").iterdir())
TABS = ("Generate", "Judge", "Export", "Train")
NAMELESS = """() => [...document.querySelectorAll("button, input, textarea, select, [role=slider], [role=combobox]")]
  .filter((e) => e.offsetParent !== null && e.type !== "file" && e.getAttribute("aria-hidden") !== "true")
  .filter((e) => !(e.labels?.length || e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.title
                   || e.closest("label")?.innerText.trim() || (e.tagName == "BUTTON" && e.innerText.trim())))
  .map((e) => e.outerHTML.slice(0, 200))"""

# ruff: noqa: F811


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Session:
    return Session(adapters_dir=tmp_path_factory.mktemp("adapters"), output_dir=tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def address(session):
    demo = app.create_demo(session, Trainings(session, pictures=ROBOT[0].parents[1]))
    yield app.launch(demo)
    demo.close()


@pytest.fixture
def open_page(browser, address):
    pages = []

    def open_one(path: str = "", **options):
        page = browser.new_page(**{"viewport": {"width": 1280, "height": 800}, **options})
        page.set_default_timeout(20_000)
        page.problems = []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("console", lambda said: "Content Security" in said.text and page.problems.append(said.text))
        page.goto(address + path)
        page.locator("#generate").wait_for()
        pages.append(page)
        return page

    yield open_one
    for page in pages:
        assert page.problems == []
        page.close()


def tab(page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def test_keys_generate_and_interrupt(open_page, session):
    page = open_page()
    page.fill("#prompt textarea", "a cat")
    page.fill("#steps input[type=number]", "40")
    page.fill("#count input", "9")
    page.locator("#count input").blur()
    page.focus("#prompt textarea")
    page.keyboard.press("Control+Enter")
    page.locator("#stop:not([disabled])").wait_for()
    page.locator("#progress", has_text="step").wait_for()
    page.keyboard.press("Escape")
    page.locator("#progress", has_text="Interrupted").wait_for()
    assert len(list(session.output_dir.rglob("*.png"))) < 9


def test_what_has_the_focus_is_seen(open_page):
    page = open_page()
    page.focus("#prompt textarea")
    for _ in range(12):
        page.keyboard.press("Tab")
        style = page.evaluate(
            "() => { const e = document.activeElement, s = getComputedStyle(e);"
            " return [e.tagName, s.outlineStyle, s.outlineWidth, s.boxShadow] }"
        )
        assert (style[1] != "none" and style[2] != "0px") or style[3] != "none", style


def test_every_control_has_a_name(open_page):
    page = open_page()
    for name in TABS:
        tab(page, name)
        page.wait_for_timeout(500)
        assert page.evaluate(NAMELESS) == [], name


def test_the_page_in_german_and_in_english(open_page):
    page = open_page(locale="de-DE")
    page.get_by_role("button", name="Erzeugen", exact=True).wait_for()
    tab(page, "Trainieren")
    page.get_by_role("button", name="Training starten").wait_for()
    page.get_by_text("Bilder des Motivs").wait_for()
    tab(page, "Erzeugen")
    page.fill("#prompt textarea", "a cat")
    page.locator("#steps input[type=number]").fill("1")
    page.click("#generate")
    page.locator("#progress", has_text="Fertig: 1 Bild.").wait_for()
    page.locator("#note", has_text="Im Ausgabeordner gespeichert").wait_for()
    page.locator("#width input").fill("63")
    page.click("#generate")
    page.locator(".toast-body", has_text="ein Vielfaches von 8 Pixeln").wait_for()
    page = open_page(locale="fr-FR")  # not there: English
    page.get_by_role("button", name="Generate", exact=True).wait_for()
    assert "lily_" not in page.inner_text("body") and "__i18n__" not in page.inner_text("body")


def test_most_fixed_texts_have_a_translation(session, monkeypatch):
    monkeypatch.setattr(app.translations, "translate", lambda demo: None)
    demo = app.create_demo(session, Trainings(session))
    missing = {text for text in fixed_texts(demo) if text not in GERMAN}
    assert len(missing) < 0.1 * len(fixed_texts(demo)), sorted(missing)


def test_no_tab_scrolls_sideways_on_a_phone(open_page):
    page = open_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    for name in TABS:
        tab(page, name)
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), name
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert max(dark) < 60
