"""The page's login: nothing is shown or done without it, and who guesses at passwords is locked out alone."""

from __future__ import annotations

import re

import httpx
import pytest
from gradio_client import Client

from ui import app
from ui.serving import guard, logins
from ui.session import Session


@pytest.fixture(scope="module")
def session(tmp_path_factory) -> Session:
    return Session(adapters_dir=tmp_path_factory.mktemp("adapters"), output_dir=tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def guarded(session):
    """The app of a page with a login, and its address."""
    demo = app.create_demo(session)
    address = app.launch(demo, auth=("me", "secret"))
    yield demo.app, address
    demo.close()


RIGHT = {"username": "me", "password": "secret"}


def test_wrong_passwords_are_counted(guarded):
    address = f"{guarded[1]}login"
    wrong = {"username": "me", "password": "guess"}
    for _ in range(2 * logins.NAME_TRIES):  # right ones are not
        assert httpx.post(address, data=RIGHT).status_code == 200
    answers = [httpx.post(address, data=wrong) for _ in range(logins.NAME_TRIES + 3)]
    assert [a.status_code for a in answers] == [400] * logins.NAME_TRIES + [429] * 3
    assert answers[-1].headers["retry-after"] and "Wait" in answers[-1].json()["detail"]
    assert httpx.post(address, data=RIGHT).status_code == 429  # nor is a right guess told apart
    form = {name: (None, value) for name, value in {**RIGHT, "username": " me "}.items()}
    assert httpx.post(address, files=form).status_code == 429  # nor is the same name in another form


def test_two_users_behind_one_address_do_not_lock_each_other_out(guarded):
    address = f"{guarded[1]}login"
    wrong = [httpx.post(address, data={"username": "you", "password": "guess"}) for _ in range(logins.NAME_TRIES + 1)]
    assert wrong[-1].status_code == 429
    form = {name: (None, value) for name, value in RIGHT.items()}  # as browsers send it
    assert httpx.post(address, files=form).json() == {"success": True}
    assert httpx.post(address, data=RIGHT).status_code == 200


def test_an_address_that_tries_many_names_is_locked_out(guarded):
    address, known = f"{guarded[1]}login", logins.ADDRESS_TRIES
    with httpx.Client() as user:
        codes = [user.post(address, data={"username": f"u{n}", "password": "x"}).status_code for n in range(known + 1)]
        assert codes == [400] * known + [429] and user.post(address, data=RIGHT).status_code == 429


def test_odd_login_forms_count_as_tries(guarded):
    address = f"{guarded[1]}login"
    odd = [{"json": {}}, {"content": b"\xff" * 99, "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
           {"files": {"username": b"me", "password": b"secret"}}, {"data": {"username": ["me", "x"]}}, {}]  # fmt: skip
    for more in odd:
        assert httpx.post(address, **more).status_code in (400, 422)
    assert httpx.post(address, json={}).status_code == 422
    assert httpx.post(address, json={}).status_code == 429
    assert httpx.post(address, data={"username": "x" * guard.MAX_LOGIN}).status_code == 413


def test_what_is_remembered_of_tries_is_bounded(monkeypatch):
    monkeypatch.setattr(logins, "MAX_KEPT", 10)
    tries = logins.Tries()
    allowed = [tries.begin("here", f"name {n}") is not None for n in range(logins.ADDRESS_TRIES + 5)]
    assert allowed == [True] * logins.ADDRESS_TRIES + [False] * 5  # what was used last is kept
    for number in range(100):
        tries.begin(f"address {number}", "x")
    assert len(tries._when) == 10


def test_tries_are_forgotten_after_a_while_and_count_from_their_beginning(monkeypatch):
    tries = logins.Tries()
    begun = [tries.begin("here", "me") for _ in range(logins.NAME_TRIES + 1)]  # at once: none is answered yet
    assert begun[-1] is None
    tries.take_back("here", "me", begun[0])
    assert tries.begin("here", "me") is not None and tries.begin("here", "me") is None
    monkeypatch.setattr(logins, "WINDOW", 0.0)
    assert tries.begin("here", "me") is not None


def test_nothing_but_the_login_is_shown_without_one(guarded):
    page, address = guarded
    asked = 0
    for path, methods in routes(page.routes):
        path = re.sub(r"{.*?}", "1", path)
        for method in methods & {"GET", "POST", "HEAD"}:
            closed = any(part in f"{path}/" for part in guard.CLOSED)
            is_open = path.rstrip("/") in logins.OPEN | {""} or path.startswith(logins.OPEN_BELOW)
            if not is_open:
                asked += 1
                answer = httpx.request(method, f"{address}{path[1:]}", json={} if method == "POST" else None)
                assert answer.status_code == (404 if closed else 401), (method, path)
    assert asked > 40
    for path in ("gradio_api/cancel", "gradio_api/reset"):
        assert httpx.post(address + path, json={}, headers={"Cookie": "access-token-x=y"}).status_code == 401
    login = httpx.get(address)
    assert login.status_code == 200 and '"auth_required":true' in login.text and "elem_id" not in login.text
    assets = re.findall(r"(?:src|href)=\"\.?/?((?:assets|static)/[^\"]+|theme.css[^\"]*)", login.text)
    assert assets and all(httpx.get(address + path).status_code == 200 for path in assets)


def routes(found):
    """(path, methods) of every route, those of gradio's inner router too."""
    for route in found:
        if hasattr(route, "original_router"):
            yield from routes(route.original_router.routes)
        elif hasattr(route, "methods"):
            yield route.path, route.methods


def test_a_login_opens_all_that_the_page_uses(guarded, tmp_path):
    _, address = guarded
    with httpx.Client(base_url=address) as user:
        assert user.post("login", data=RIGHT).status_code == 200
        for path in ("config", "gradio_api/info", "gradio_api/queue/status", "gradio_api/app_id"):
            assert user.get(path).status_code == 200
        ended = {"session_hash": "s", "event_id": "e", "fn_index": 0}
        for path in ("gradio_api/cancel", "gradio_api/reset"):
            assert user.post(path, json=ended).json() == {"success": True}
        with user.stream("GET", "gradio_api/heartbeat/s") as beats:
            assert next(beats.iter_lines()) == "data: ALIVE"
        assert user.get("logout").status_code == 302 and user.get("config").status_code == 401
    client = Client(address, auth=tuple(RIGHT.values()), verbose=False, download_files=str(tmp_path))
    assert client.predict("a cat", steps=1, api_name="/v1_generate")[1]["status"] == "done"
