"""The page in a real Chromium: what is kept and comes back, each flow ending with what is on the screen or on disk."""

from __future__ import annotations

import re
import shutil

import pytest
from PIL import Image

from lily_diffusion.base_model import load_pipeline
from tests.browser import browser  # noqa: F401
from tests.test_ui_keep_foreign import A1111, png
from tests.test_ui_page import address, card, generate, page, pictures, row, saved, use, wait_for  # noqa: F401
from tests.test_ui_session import save_adapter
from ui.keeping.recipe import read_png
from ui.session import Session

# ruff: noqa: F811


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Session:
    folder = tmp_path_factory.mktemp("adapters")
    unet = load_pipeline().unet
    save_adapter(unet, folder, "robot.safetensors", seed=1, trigger_words=("sks robot", "metal"))
    for number in range(8):
        save_adapter(unet, folder / "styles", f"ink {number}.safetensors", seed=2 + number)
    return Session(adapters_dir=folder, output_dir=tmp_path_factory.mktemp("pictures"))


def choose(page, place, option: str) -> None:
    """Choose from a dropdown."""
    place.locator("input").first.click()
    page.locator("[role=option]", has_text=re.compile(f"^\\W*{re.escape(option)}")).first.click()


def value(page, selector: str) -> str:
    return page.locator(f"{selector} :is(input, textarea)").first.input_value()


def test_a_preset_brings_back_adapters_shapes_and_scheduler(page, session):
    robot = use(page, "robot")
    robot.get_by_text("By block and step").click()
    choose(page, robot.locator(".preset"), "Fade in")
    robot.locator(".curve polyline.line0").wait_for()
    page.wait_for_function("document.querySelector('.adapter .weight-text :is(input, textarea)').value == '0@0,1@1'")
    assert robot.locator(".weight input").is_disabled()  # the text counts
    choose(page, page.locator("#scheduler"), "Euler a")
    generate(page, steps=3, seed=5)
    wait_for(page, "Done: 1 picture")
    first = saved(session)[-1]
    page.get_by_text("Presets", exact=True).click()
    page.fill("#preset-name :is(input, textarea)", "../faded <b>")
    page.click("#save-preset")
    page.wait_for_function("document.querySelector('#preset input').value == '../faded <b>'")
    assert [path.parent.name for path in session.output_dir.rglob("*.json")] == ["presets"]

    page.reload()
    card(page, "robot").wait_for()
    page.get_by_text("Presets", exact=True).click()
    choose(page, page.locator("#preset"), "../faded")
    page.click("#load-preset")
    row(page, "robot").locator(".name input:checked").wait_for()
    assert (value(page, "#scheduler"), value(page, "#seed"), value(page, "#seed-mode")) == ("Euler a", "5", "Fixed")
    generate(page)
    wait_for(page, "Done: 1 picture")
    assert read_png(saved(session)[-1]).adapters[0].weight == "0@0,1@1"
    assert saved(session)[-1] != first and saved(session)[-1].read_bytes() == first.read_bytes()


def test_pictures_are_compared_deleted_and_sent_back(page, session):
    before = saved(session)
    page.fill("#prompt textarea", "a fox")
    choose(page, page.locator("#blend"), "svd")
    generate(page, steps=2, count=2, seed=70)
    wait_for(page, "Done: 2 pictures")
    page.fill("#prompt textarea", "something else")
    choose(page, page.locator("#blend"), "sum")
    page.get_by_text("History", exact=True).click()
    past = page.locator("#past button.thumbnail-item, #past .grid-container button")
    past.nth(1 + len(before)).wait_for()
    past.nth(1).click()
    page.wait_for_function("document.querySelector('#info textarea').value.includes('Seed: 70')")
    page.click("#compare")
    past.nth(0).click()
    page.locator("#both img").nth(1).wait_for()
    page.click("#compare")
    page.locator("#both").wait_for(state="hidden")
    page.click("#send-back")
    page.wait_for_function("document.querySelector('#prompt textarea').value == 'a fox'")
    assert (value(page, "#seed"), value(page, "#steps"), value(page, "#blend")) == ("71", "2", "svd")
    page.click("#compare")
    page.locator("#compare", has_text="Stop comparing").wait_for()
    page.click("#delete")
    page.locator("#tools").wait_for(state="hidden")
    assert [read_png(path).seed for path in saved(session)[len(before) :]] == [70]
    page.wait_for_function(f"document.querySelectorAll('#past .grid-container button').length == {1 + len(before)}")
    assert pictures(page).count() == 1
    past.nth(0).click()
    page.locator("#tools").wait_for()
    assert page.locator("#compare").inner_text() == "Compare"  # not with the one that is gone


def test_a_picture_is_put_on_the_card_of_its_adapter(page, session):
    use(page, "robot")
    generate(page, steps=2, seed=3)
    wait_for(page, "Done: 1 picture")
    page.click("#on-card")
    card(page, "robot").locator("img").wait_for()
    picture = session.adapters.root / "robot.preview.webp"
    assert picture.is_file()
    picture.unlink()


def test_styles_and_earlier_prompts(page, session):
    page.fill("#prompt textarea", "a photo of {prompt}, grainy")
    page.get_by_text("Styles and earlier prompts").click()
    page.fill("#style-name :is(input, textarea)", "film")
    page.click("#save-style")
    page.locator(".toast-body", has_text="film").wait_for()
    page.fill("#prompt textarea", "an owl")
    choose(page, page.locator("#styles"), "film")
    page.keyboard.press("Escape")
    generate(page, steps=1)
    wait_for(page, "Done: 1 picture")
    assert read_png(saved(session)[-1]).prompt == "a photo of an owl, grainy"
    choose(page, page.locator("#earlier"), "a photo of an owl")
    page.wait_for_function("document.querySelector('#prompt textarea').value == 'a photo of an owl, grainy'")


def test_skip_goes_on_and_previews_are_shown_unless_they_are_off(page, session):
    before = len(saved(session))
    page.locator("#every input[type=number]").fill("1")
    page.locator("#every input[type=number]").blur()
    generate(page, steps=20, count=2, seed=90)
    page.locator("#preview img").wait_for()
    assert page.locator("#preview img").get_attribute("src").startswith("data:image/webp")
    page.click("#skip")
    wait_for(page, "Done: 1 picture")
    assert [read_png(path).seed for path in saved(session)[before:]] == [91]
    assert page.locator("#preview img").count() == 0
    page.locator("#preview-on input").uncheck()
    page.evaluate("""() => new MutationObserver(() => { window.seen ||= !!document.querySelector('#preview img') })
                     .observe(document.querySelector('#preview'), {childList: true, subtree: true})""")
    generate(page, steps=12, count=1, seed=92)
    page.wait_for_function("document.querySelector('#info textarea')?.value.includes('Seed: 92')")
    assert not page.evaluate("window.seen") and read_png(saved(session)[-1]).steps == 12


def test_seeds_are_new_fixed_or_count_up(page, session):
    seeds = []
    for mode in ("Random", "Fixed", "Count up", "Count up"):
        choose(page, page.locator("#seed-mode"), mode)
        generate(page, steps=1)
        page.locator("#stop:disabled").wait_for()
        wait_for(page, "Done: 1 picture")
        seeds.append(read_png(saved(session)[-1]).seed)
        page.wait_for_function(f"document.querySelector('#seed input').value == '{seeds[-1] + (mode == 'Count up')}'")
        page.locator("#progress").evaluate("e => e.querySelector('.bar-text').textContent = ''")
    assert seeds[1] == seeds[0] == seeds[2] == seeds[3] - 1


def test_the_library_is_searched_foldered_and_finds_changes_by_itself(page, session):
    cards = page.locator(".card")
    assert cards.count() == 9
    page.fill("#search :is(input, textarea)", "metal")
    page.wait_for_function("document.querySelectorAll('.card').length == 1")
    page.fill("#search :is(input, textarea)", "")
    choose(page, page.locator("#folder"), "styles")
    page.wait_for_function("document.querySelectorAll('.card').length == 8")
    choose(page, page.locator("#folder"), "All folders")
    card(page, "robot").get_by_role("button", name="+ metal").click()
    page.wait_for_function("document.querySelector('#prompt textarea').value == 'metal'")
    use(page, "robot")
    Image.new("RGB", (600, 600), "orange").save(session.adapters.root / "robot.preview.png")
    shutil.copy(session.adapters.root / "robot.safetensors", session.adapters.root / "twin.safetensors")
    card(page, "twin").wait_for()
    shown = page.locator(".card .pick[title=robot] img")
    assert shown.evaluate("i => i.naturalWidth") == 256 and shown.get_attribute("src").startswith("data:image/webp")
    assert row(page, "robot").locator(".name input").is_checked()  # the rows stay as they are
    page.locator(".card .pick[title=robot]").click()
    row(page, "robot").wait_for(state="hidden")
    page.locator(".card .pick[title=robot]").click()
    row(page, "robot").locator(".name input:checked").wait_for()
    card(page, "twin").locator(".pick").click()
    rows = page.locator(".adapter")
    rows.nth(1).locator(".weight input[type=number]").fill("0.3")
    (session.adapters.root / "robot.safetensors").rename(session.adapters.root / "robot.away")
    page.get_by_role("button", name="Rescan").click()
    rows.nth(1).wait_for(state="hidden")  # what is gone cannot be drawn with
    assert "twin" in rows.inner_text() and rows.locator(".weight input[type=number]").input_value() == "0.3"
    (session.adapters.root / "robot.away").rename(session.adapters.root / "robot.safetensors")


def test_a_picture_of_another_program_sets_what_applies_and_says_the_rest(page, tmp_path):
    page.locator("#restore input[type=file]").set_input_files(png(tmp_path / "other.png", A1111))
    note = page.locator("#note", has_text="Settings restored")
    note.wait_for()
    assert "clip skip" in note.inner_text() and "512 by 768" in note.inner_text()
    assert value(page, "#prompt") == "a (red:1.2) fox, in snow" and value(page, "#negative") == "fog"
    assert (value(page, "#steps"), value(page, "#seed"), value(page, "#width")) == ("30", "9", "40")


def test_who_waits_sees_the_place_in_the_queue(page, browser, address):
    other = browser.new_page()
    other.goto(address)
    other.locator(".card").first.wait_for()
    generate(page, steps=120, count=1)
    wait_for(page, "s left")
    other.click("#generate")
    other.locator("#progress .progress-text", has_text="queue: 1/1").wait_for()
    other.close()
    page.click("#stop")
    wait_for(page, "Interrupted: 0 of 1")
