"""Hostile requests over raw HTTP against a running page: none reads, writes, hangs or tells where things are."""

from __future__ import annotations

import json
import re
import resource
import time
from pathlib import Path

import httpx
import pytest

from lily_diffusion.base_model import load_pipeline
from tests import hostile_requests as hostile
from tests.test_ui_session import save_adapter
from ui import app
from ui.session import Session
from ui.train.training_runs import Trainings

CANARY = "canary-7d1f"  # what must never be in an answer
ROOT = str(Path(__file__).parents[1])
SECONDS = 5.0
KEPT = re.compile(r"out/(styles\.json|presets/[\w-]+\.json)")  # what an event may write that was given fit texts
JSON = {"Content-Type": "application/json"}
FORM = "multipart/form-data; boundary=x"


class Target:
    """A running page, the folders behind it, and how many requests it has had."""

    def __init__(self, root: Path) -> None:
        self.root, self.secret = root, root / "secret" / "key.txt"
        self.secret.parent.mkdir()
        self.secret.write_text(CANARY)
        save_adapter(load_pipeline().unet, root / "adapters", "robot.safetensors", seed=1)
        self.session = Session(adapters_dir=root / "adapters", output_dir=root / "out")
        self.demo = app.create_demo(self.session, Trainings(self.session, pictures=root / "secret"))
        self.address = app.launch(self.demo)
        self.http = httpx.Client(base_url=self.address, timeout=SECONDS)
        self.config = self.http.get("config").json()
        self.sent = 0

    def send(self, method: str, path: str, **more) -> httpx.Response:
        """Send one request; a page that hangs is a failed test, and so is an answer that tells too much."""
        self.sent += 1
        try:
            answer = self.http.request(method, path, **more)
        except httpx.TimeoutException:
            pytest.fail(f"{method} {path} hangs")
        self.check(answer.text, answer.status_code >= 400)
        return answer

    def check(self, text: str, is_error: bool) -> None:
        assert CANARY not in text and "root:x:" not in text and "Traceback" not in text
        assert not re.search(rf"{re.escape(str(self.root))}|{re.escape(ROOT)}|site-packages", text), text[:500]
        assert len(text) < 1000 or not is_error, text[:500]

    def call(self, fn_index: int, data: list) -> str:
        """Call any event, private or not, as a program would; returns the last message."""
        self.sent += 1
        name = f"raw{self.sent}"
        body = {"fn_index": fn_index, "data": data, "session_hash": name, "event_data": None, "trigger_id": None}
        joined = self.http.post("gradio_api/queue/join", content=json.dumps(body), headers=JSON)
        self.check(joined.text, joined.status_code >= 400)
        if joined.status_code != 200:
            return joined.text
        last, end = "", time.monotonic() + 2 * SECONDS
        with self.http.stream("GET", "gradio_api/queue/data", params={"session_hash": name}) as answers:
            for line in answers.iter_lines():
                assert time.monotonic() < end, "the event hangs"
                last = line or last
                if '"process_completed"' in line or '"close_stream"' in line:
                    break
        failed = '"success": false' in last or '"success":false' in last
        self.check(last, failed)
        return last

    def upload(self, name: str, data: bytes) -> str | None:
        """Put a file into gradio's cache under any name, and return its path there."""
        head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode(
            "utf-8", "replace"
        )
        answer = self.send(
            "POST", "gradio_api/upload", content=head + data + b"\r\n--x--\r\n", headers={"Content-Type": FORM}
        )
        return answer.json()[0] if answer.status_code == 200 else None

    def events_with(self, component_id: str) -> list[tuple[int, int, int]]:
        """(event, place of the component among its inputs, number of inputs)."""
        wanted = [c["id"] for c in self.config["components"] if c["props"].get("elem_id") == component_id]
        assert wanted, component_id
        return [
            (event["id"], event["inputs"].index(wanted[0]), len(event["inputs"]))
            for event in self.config["dependencies"]
            if wanted[0] in event["inputs"] and event["backend_fn"]
        ]

    def files(self) -> dict[str, bytes]:
        return {str(p.relative_to(self.root)): p.read_bytes() for p in sorted(self.root.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    target = Target(tmp_path_factory.mktemp("target"))
    before = target.files()
    yield target
    changed = {name for name, _ in target.files().items() ^ before.items()}
    assert not [name for name in changed if not KEPT.fullmatch(name)], "something was written, changed or deleted"
    assert target.http.get("config").status_code == 200
    target.demo.close()


def test_there_are_enough_of_them():
    paths = len(hostile.ROUTES) * len(hostile.paths("/x"))
    files = len(hostile.NAMES) + len(hostile.adapter_files()) + len(hostile.pictures())
    assert paths + 3 * len(hostile.BODIES) + len(list(hostile.requests())) + 2 * files >= 600


@pytest.mark.parametrize("route", hostile.ROUTES)
def test_no_path_reads_a_file(target, route):
    for path in hostile.paths(str(target.secret)):
        answer = target.send("GET", route + path)
        assert answer.status_code >= 300 or answer.headers["content-type"].startswith("text/html"), (route, path)


def test_an_honest_call_is_answered(target):
    event = next(e for e in target.config["dependencies"] if e["api_name"] == "v1_adapters")
    assert "robot" in target.call(event["id"], [True])  # so that a refusal below is one of the event's own


def test_every_event_refuses_values_of_the_wrong_kind(target):
    events = {}
    for event in target.config["dependencies"]:
        if event["backend_fn"]:  # rows repeat the same function: once is enough
            events.setdefault((re.sub(r"_\d+$", "", str(event["api_name"])), len(event["inputs"])), event)
    assert len(events) > 20
    for number, event in enumerate(events.values()):
        values = hostile.values(str(target.secret))
        for value in (values[number % len(values)], values[1]):
            target.call(event["id"], [value] * len(event["inputs"]))
        target.call(event["id"], [])


@pytest.mark.parametrize("name,body", hostile.BODIES, ids=[name for name, _ in hostile.BODIES])
def test_bodies_that_are_no_requests(target, name, body):
    for path in ("gradio_api/queue/join", "gradio_api/call/v1_generate", "gradio_api/cancel"):
        assert target.send("POST", path, content=body, headers=JSON).status_code < 600


def test_requests_of_other_kinds(target):
    for method, path, more in hostile.requests():
        answer = target.send(method, path, **more)
        foreign = {"Host", "Origin"} & more.get("headers", {}).keys()
        assert answer.status_code >= 400 if foreign or method not in ("GET", "POST") else True, (method, path, more)


@pytest.mark.parametrize("name", hostile.NAMES, ids=repr)
def test_names_of_uploads_lead_nowhere(target, name):
    if (path := target.upload(name, b"x")) is None:
        return
    for event, place, count in target.events_with("upload"):
        data = [None] * count
        data[place] = {**hostile.file_data(path), "orig_name": name}
        assert '"success": false' in target.call(event, data).replace('":', '": ').replace(":  ", ": ")


@pytest.mark.parametrize("component", ["restore", "upload"])
def test_an_address_in_the_place_of_a_file_is_not_fetched(target, component):
    for event, place, count in target.events_with(component):
        data = [None] * count
        data[place] = hostile.file_data("https://example.com/large.safetensors")
        assert "not fetched from an address" in target.call(event, data)


@pytest.mark.parametrize("name,data", hostile.adapter_files().items(), ids=list(hostile.adapter_files()))
def test_hostile_adapters_are_not_added(target, name, data):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = target.upload("x.safetensors", data)
    for event, place, count in target.events_with("upload"):
        values = [None] * count
        values[place] = hostile.file_data(path)
        assert "error" in target.call(event, values)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB
    assert [card.name for card in target.session.cards(rescan=True)] == ["robot"]


@pytest.mark.parametrize("name,data", hostile.pictures().items(), ids=list(hostile.pictures()))
def test_hostile_pictures_are_harmless(target, name, data):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = target.upload("x.png", data)
    for event, place, count in target.events_with("restore"):
        values = [None] * count
        values[place] = hostile.file_data(path)
        target.call(event, values)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB
