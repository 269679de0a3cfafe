"""The page itself, in a real headless Chromium and over raw HTTP: the whole way of a user, and what must stay shut."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from lily_diffusion.base_model import load_pipeline
from tests.test_ui_session import save_adapter
from ui import app
from ui.recipe import read_png
from ui.session import Session

HOSTILE = "<img src=x onerror=alert(1)> *b*"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
ROOT = Path(__file__).parents[1]


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


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    executable = next(filter(None, map(shutil.which, BROWSERS)), None)
    if executable is None:
        pytest.fail(f"The page is tested in a real browser, and none of {', '.join(BROWSERS)} is installed.")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield running
        running.close()


@pytest.fixture
def page(browser, address):
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(15_000)
    page.alerts = []
    page.on("dialog", lambda dialog: (page.alerts.append(dialog.message), dialog.dismiss()))
    page.goto(address)
    page.locator(".adapter").first.wait_for()
    yield page
    page.close()


def row(page, name: str):
    return page.locator(".adapter", has_text=name)


def generate(page, **numbers) -> None:
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
    robot = row(page, "robot")
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
    row(page, "robot").wait_for()
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


def test_the_shown_picture_is_the_saved_file(page, session):
    generate(page, steps=1, count=1, seed=5)
    wait_for(page, "Done: 1 picture")
    shown = page.request.get(pictures(page).first.get_attribute("src"))
    assert shown.body() == saved(session)[-1].read_bytes()  # with the recipe in it


def test_texts_from_files_are_inert(page):
    hostile = row(page, "onerror")
    assert hostile.locator(".name").inner_text().strip() == HOSTILE
    assert hostile.locator("img, script, em").count() == 0
    hostile.locator(".name input").check()
    hostile.get_by_role("button").filter(has_text="alert(2)").click()
    page.wait_for_function("document.querySelector('#prompt textarea').value.includes('alert(2)')")
    generate(page, steps=1, count=1)
    wait_for(page, "Done: 1 picture")
    assert page.alerts == []


def test_a_broken_file_is_shown_with_its_reason(page):
    broken = row(page, "broken")
    assert broken.locator(".name input").is_disabled()
    assert "pickle" in broken.locator(".warn").first.inner_text()


def test_adding_an_adapter_through_the_page(page, session, tmp_path):
    source = session.adapters.root / "robot.safetensors"
    shutil.copy(source, tmp_path / "new one.safetensors")
    page.locator("#upload input[type=file]").set_input_files(tmp_path / "new one.safetensors")
    row(page, "new_one").wait_for()
    added = session.adapters.root / "new_one.safetensors"
    assert added.read_bytes() == source.read_bytes()
    added.unlink()
    page.click("#rescan")
    row(page, "new_one").wait_for(state="hidden")


def test_an_empty_folder_says_what_to_do(browser, tmp_path):
    demo = app.create_demo(Session(adapters_dir=tmp_path / "none", output_dir=tmp_path))
    page = browser.new_page()
    page.goto(app.launch(demo))
    page.locator("#empty", has_text="No adapters yet").wait_for()
    page.close()
    demo.close()


def test_errors_are_for_people(page, session, tmp_path):
    generate(page, width=63)
    toast = page.locator(".toast-body")
    toast.filter(has_text="multiple of 8").wait_for()
    wait_for(page, "That did not work")
    assert page.locator("#stop").is_disabled()
    (tmp_path / "no.png").write_bytes(b"nothing")
    page.locator("#restore input[type=file]").set_input_files(tmp_path / "no.png")
    toast.filter(has_text="not a PNG").wait_for()
    assert not re.search(r"/tmp|/home|Traceback", toast.all_inner_texts()[0])


def test_narrow_screens_do_not_scroll_sideways(page):
    page.set_viewport_size({"width": 390, "height": 844})
    row(page, "robot").locator(".name input").check()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    tops = [page.locator(name).bounding_box()["y"] for name in ("#ask", "#show", "#set")]
    assert tops == sorted(tops)


def test_nothing_is_loaded_from_elsewhere(browser, address):
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.locator(".adapter").first.wait_for()
    page.close()
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []


def test_a_foreign_host_name_is_refused(address):
    assert httpx.get(address).status_code == 200
    for host in ("evil.example", "evil.example:7860", "127.0.0.1.evil.example"):
        assert httpx.get(address, headers={"Host": host}).status_code == 400
        assert httpx.get(f"{address}config", headers={"Host": host}).status_code == 400


def test_no_endpoint_is_public_and_extras_are_off(address):
    info = httpx.get(f"{address}gradio_api/info").json()
    assert info["named_endpoints"] == {} and info["unnamed_endpoints"] == {}
    assert httpx.get(f"{address}monitoring/summary").status_code in (403, 404)
    assert httpx.get(f"{address}gradio_api/runs").status_code == 404
    assert httpx.get(f"{address}gradio_api/mcp/sse").status_code in (404, 405)
    for extra in ("docs", "redoc", "openapi.json"):
        assert "swagger" not in httpx.get(f"{address}{extra}").text.lower()


def test_files_outside_the_cache_are_not_served(address, session):
    for path in ("/etc/passwd", ROOT / "pyproject.toml", session.adapters.root / "robot.safetensors"):
        assert httpx.get(f"{address}gradio_api/file={path}").status_code in (403, 404)


def test_the_config_tells_no_paths(address, session):
    config = httpx.get(f"{address}config").text
    assert str(session.adapters.root) not in config and str(session.output_dir) not in config


def join_queue(address: str, fn_index: int, data: list) -> str:
    """Call an event as a program would, past the page, and return all that the server answers."""
    body = {"fn_index": fn_index, "data": data, "session_hash": "raw"}
    assert httpx.post(f"{address}gradio_api/run/predict", json=body).status_code in (200, 404, 500)
    httpx.post(f"{address}gradio_api/queue/join", json=body)
    with httpx.stream("GET", f"{address}gradio_api/queue/data?session_hash=raw", timeout=20) as answers:
        return "\n".join(line for line in answers.iter_lines() if line)


def test_hidden_events_take_no_paths_either(address, session):
    events = httpx.get(f"{address}config").json()["dependencies"]
    components = {c["id"]: c for c in httpx.get(f"{address}config").json()["components"]}
    with_file = [e for e in events if any(components[i]["type"] == "file" for i in e["inputs"])]
    assert len(with_file) == 2
    for event in with_file:
        file = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
        data = [file if components[i]["type"] == "file" else None for i in event["inputs"]]
        assert "root:" not in join_queue(address, event["id"], data)
    assert sorted(p.name for p in session.adapters.root.iterdir() if "passwd" in p.name) == []


def test_generating_past_the_page_is_refused_or_queued(address, session):
    events = httpx.get(f"{address}config").json()["dependencies"]
    generating = max(events, key=lambda event: len(event["inputs"]) if event["queue"] else 0)
    body = {"fn_index": generating["id"], "data": [None] * len(generating["inputs"]), "session_hash": "x"}
    assert httpx.post(f"{address}gradio_api/run/predict", json=body).status_code == 404


def test_a_password_is_asked_for_when_set(session):
    demo = app.create_demo(session)
    address = app.launch(demo, auth=("me", "secret"))
    assert httpx.get(f"{address}config").status_code == 401
    demo.close()


def test_other_machines_need_a_password(session, capsys):
    with pytest.raises(ValueError, match="--auth"):
        app.launch(app.create_demo(session), "0.0.0.0")
    for argv in (["--host", "0.0.0.0"], ["--host", "192.168.0.2"], ["--auth", "nocolon"], ["--auth", ":x"]):
        with pytest.raises(SystemExit):
            app.main(argv)
        assert "--auth" in capsys.readouterr().err
    assert app.is_local("127.0.0.1") and app.is_local("localhost") and app.is_local("::1")


def test_environment_variables_open_nothing():
    risky = ("GRADIO_SHARE", "GRADIO_MCP_SERVER", "GRADIO_ALLOWED_PATHS", "GRADIO_VIBE_MODE", "GRADIO_SERVER_NAME")
    code = "import json, os, ui; print(json.dumps([n for n in os.environ if n.startswith('GRADIO')]))"
    env = {**os.environ, **dict.fromkeys(risky, "True")}
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert set(json.loads(run.stdout)) <= {"GRADIO_ANALYTICS_ENABLED", "GRADIO_TEMP_DIR"}
