"""What must stay shut, over raw HTTP: foreign hosts, files, hidden events, other machines, environment variables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.test_ui_page import address, session  # noqa: F401
from ui import app
from ui.serving import guard

# ruff: noqa: F811
ROOT = Path(__file__).parents[1]


def test_the_servers_own_address_is_its_name():
    assert guard._own_address({"server": ("192.168.1.5", 7860)}) == ["192.168.1.5"]
    assert guard._own_address({"server": ("evil.example", 80)}) == guard._own_address({"server": None}) == []


def test_a_foreign_host_name_is_refused(address):
    assert httpx.get(address).status_code == 200
    for host in ("evil.example", "evil.example:7860", "127.0.0.1.evil.example"):
        assert httpx.get(address, headers={"Host": host}).status_code == 421
        assert httpx.get(f"{address}config", headers={"Host": host}).status_code == 421


def test_only_the_named_endpoints_are_public_and_extras_are_off(address):
    info = httpx.get(f"{address}gradio_api/info").json()
    assert all(name.startswith("/v1_") for name in info["named_endpoints"]) and info["unnamed_endpoints"] == {}
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
    assert len(with_file) >= 2
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
