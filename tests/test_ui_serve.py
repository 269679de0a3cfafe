"""Serving the page: its named endpoints as a program sees them, who is let in, and what every answer carries."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import httpx
import pytest
from gradio_client import Client

from lily_diffusion.base_model import load_pipeline
from tests.test_ui_session import save_adapter
from ui import api, app
from ui.keeping.recipe import read_png
from ui.serving import guard
from ui.session import Session

ARGUMENTS = {
    "/v1_info": [],
    "/v1_adapters": ["rescan"],
    "/v1_generate": ["prompt", "negative_prompt", "steps", "guidance_scale", "width", "height", "seed", "count",
                     "weights", "scheduler", "job", "blend"],
    "/v1_interrupt": ["job"],
}  # fmt: skip


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Session:
    folder = tmp_path_factory.mktemp("adapters")
    save_adapter(load_pipeline().unet, folder, "robot.safetensors", seed=1, trigger_words=("sks robot",))
    return Session(adapters_dir=folder, output_dir=tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def address(session):
    demo = app.create_demo(session)
    yield app.launch(demo)
    demo.close()


@pytest.fixture(scope="module")
def client(address, tmp_path_factory):
    return Client(address, verbose=False, download_files=str(tmp_path_factory.mktemp("got")), analytics_enabled=False)


def test_the_public_endpoints_are_these_and_no_others(address, client):
    named = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert {name: [p["parameter_name"] for p in about["parameters"]] for name, about in named.items()} == ARGUMENTS
    assert tuple(name[1:] for name in ARGUMENTS) == api.ENDPOINTS
    info = httpx.get(f"{address}gradio_api/info").json()
    assert set(info["named_endpoints"]) == set(ARGUMENTS) and info["unnamed_endpoints"] == {}


def test_a_picture_through_the_api(client, session):
    about = client.predict(api_name="/v1_info")
    assert about["api"] == 1 and about["base_model"] == "embedded" and about["defaults"]["width"] == 64
    [card] = client.predict(api_name="/v1_adapters")
    assert card["name"] == "robot" and card["trigger_words"] == ["sks robot"] and card["reason"] is None
    files, told = client.predict("a cat", steps=2, seed=5, count=2, weights={card["id"]: 0.5}, api_name="/v1_generate")
    assert told["status"] == "done" and [r["seed"] for r in told["recipes"]] == [5, 6] and len(files) == 2
    made = read_png(files[0])
    assert (made.prompt, made.steps, made.seed, made.adapters[0].weight) == ("a cat", 2, 5, 0.5)
    assert Path(files[0]).read_bytes() == next(session.output_dir.rglob("*-5.png")).read_bytes()
    assert str(session.output_dir) not in repr(told) and str(session.adapters.root) not in repr(card)


def test_a_run_is_interrupted_by_its_job_alone(client):
    job = client.submit("a cat", steps=40, count=16, job="mine", api_name="/v1_generate")
    while not job.outputs():
        time.sleep(0.05)
    assert client.predict("yours", api_name="/v1_interrupt") == {"interrupted": False}
    assert job.outputs()[-1][1]["status"] == "running"
    assert client.predict("mine", api_name="/v1_interrupt") == {"interrupted": True}
    assert job.result(timeout=60)[1]["status"] == "interrupted"


BAD = [
    {"prompt": 3}, {"prompt": None}, {"prompt": "x" * 10_000}, {"steps": 0}, {"steps": 10**9}, {"steps": "4"},
    {"width": 63}, {"width": 10**6}, {"guidance_scale": "x"}, {"seed": -5}, {"count": 0}, {"count": 100},
    {"count": True}, {"weights": [1]}, {"weights": {"../../etc/passwd": 1}}, {"scheduler": "os.system"},
    {"scheduler": []}, {"job": {}}, {"job": "x" * 65}, {"negative_prompt": []},
    {"blend": "magic"}, {"blend": []},
]  # fmt: skip


@pytest.mark.parametrize("change", BAD, ids=lambda c: repr(c)[:40])
def test_callers_are_told_what_is_wrong(client, session, change):
    with pytest.raises(Exception) as told:
        client.predict(**{"prompt": "a cat", "steps": 1, **change}, api_name="/v1_generate")
    text = str(told.value)
    assert 10 < len(text) < 400 and "/tmp" not in text and "That did not work" not in text, text


def test_every_answer_carries_the_headers(address):
    for path in ("", "config", "nothing", "gradio_api/file=/etc/passwd", "theme.css"):
        headers = httpx.get(address + path).headers
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers


def test_foreign_pages_are_refused(address):
    host = address.removeprefix("http://").strip("/")
    for headers in (
        {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://localhost:1"}, {"Origin": ""},
        {"Origin": f"http://{host}.evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
    ):  # fmt: skip
        assert httpx.post(f"{address}gradio_api/queue/join", json={}, headers=headers).status_code == 403
    from_here = {"Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    assert httpx.get(f"{address}config", headers=from_here).status_code == 200
    opened = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}  # by a link
    assert httpx.get(address, headers=opened).status_code == 200
    assert httpx.get(f"{address}config", headers=opened).status_code == 403  # nor anything else, such as a picture


def test_nothing_is_fetched_from_elsewhere_and_names_of_files_are_free(address):
    for place in ("gradio_api/file=", "gradio_api/file/", "file="):
        for url in (
            "https://example.com/x.png",
            "HTTP://example.com",
            "%20https://example.com",
            "https%3A//example.com",
        ):
            assert httpx.get(address + place + url).status_code == 404, (place, url)
    for name in ("vibes.png", "mcp.png"):
        sent = httpx.post(f"{address}gradio_api/upload", files={"files": (name, b"a picture")}).json()
        assert httpx.get(f"{address}gradio_api/file={sent[0]}").content == b"a picture"


def test_bodies_are_limited_whatever_they_announce(address):
    large = b"x" * (guard.MAX_BODY + 1)
    assert httpx.post(f"{address}gradio_api/queue/join", content=large).status_code == 413
    chunked = (large[:65536] for _ in range(64))
    assert httpx.post(f"{address}gradio_api/queue/join", content=chunked).status_code in (400, 413)
    assert httpx.get(address + "a" * 9000).status_code == 414


def test_a_full_disk_takes_no_uploads(address, monkeypatch):
    monkeypatch.setattr(guard, "MIN_FREE", 2**62)
    answer = httpx.post(f"{address}gradio_api/upload", files={"files": b"x"})
    assert answer.status_code == 507 and "disk" in answer.json()["detail"]


def test_listening_needs_a_password(capsys):
    for argv in (
        ["--allowed_hosts", "studio.example"],
        ["--listen"],
        ["--host", "0.0.0.0"],
        ["--listen", "--auth", "x"],
        ["--listen", "--auth", ":"],
    ):
        with pytest.raises(SystemExit):
            app.main(argv)
        assert "--auth" in capsys.readouterr().err


def test_names_under_which_the_page_is_known(session):
    demo = app.create_demo(session)
    address = app.launch(demo, allowed_hosts=["studio.example"], auth=("ada", "secret"))
    port = address.rsplit(":", 1)[1].strip("/")
    for host in (f"127.0.0.1:{port}", f"LOCALHOST:{port}", f"[::1]:{port}", "studio.example"):
        assert httpx.get(address, headers={"Host": host}).status_code == 200, host
    for host in (
        "",
        "evil.example",
        "studio.example.evil",
        "127.0.0.1@evil.example",
        "evil.example#127.0.0.1",
        "[",
        "a b",
    ):
        assert httpx.get(address, headers={"Host": host}).status_code == 421, host
    with socket.create_connection(("127.0.0.1", int(port))) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
        assert b" 400 " in raw.recv(200)
    demo.close()
