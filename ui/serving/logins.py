"""Who is logged in, what is shown to those who are not, and how often somebody may try a password.

Gradio asks for the login on most of its routes but not on all: some end the runs of others or tell about the queue.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Hashable, MutableMapping
from typing import Any

from starlette.requests import Request

NAME_TRIES, ADDRESS_TRIES, WINDOW = 5, 50, 60.0  # for one name from an address, for an address, within so many seconds
MAX_KEPT = 10_000  # addresses, and names from addresses, that are remembered
MAX_NAME = 100  # characters by which names are told apart
OPEN = {
    "/", "/login", "/logout", "/favicon.ico", "/manifest.json", "/pwa_icon", "/robots.txt", "/theme.css",
    "/gradio_api/theme.css", "/gradio_api/login_check", "/gradio_api/startup-events",
}  # fmt: skip
OPEN_BELOW = ("/assets/", "/pwa_icon/", "/static/", "/svelte/")


def may_enter(scope: MutableMapping[str, Any]) -> bool:
    """Whether a request needs no login or comes with one. The start of the page asks for startup-events itself."""
    path = scope["path"].rstrip("/") or "/"
    return not are_on(scope) or path in OPEN or path.startswith(OPEN_BELOW) or _has_token(scope)


def are_on(scope: MutableMapping[str, Any]) -> bool:
    """Whether the page asks for a name and a password."""
    return scope["app"].auth is not None


def _has_token(scope: MutableMapping[str, Any]) -> bool:
    app, cookies = scope["app"], Request(scope).cookies
    token = cookies.get(f"access-token-{app.cookie_id}") or cookies.get(f"access-token-unsecure-{app.cookie_id}")
    return app.tokens.get(token) is not None


async def name_in(scope: MutableMapping[str, Any], body: bytes) -> str:
    """The user name in a login form as gradio reads it; empty where the form has none or is damaged."""

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    try:
        async with Request(scope, receive).form() as form:
            name = form.get("username")
    except Exception:  # of the parser, of many kinds: gradio's own look at the form refuses it
        return ""
    return name.strip()[:MAX_NAME] if isinstance(name, str) else ""


class Tries:
    """Passwords that were tried. Each counts from its beginning, so that many at once are no way around the limits."""

    def __init__(self) -> None:
        self._when: dict[Hashable, deque[float]] = {}  # the last that was used is the last

    def begin(self, address: str, name: str) -> float | None:
        """Count a try and return what takes it back; None if there were too many."""
        now = time.monotonic()
        keys = _keys(address, name)
        if any(sum(when > now - WINDOW for when in self._when.get(key, ())) >= most for key, most in keys.items()):
            return None
        for key, most in keys.items():
            tries = self._when.pop(key, None) or deque(maxlen=most)
            self._when[key] = tries
            tries.append(now)
        while len(self._when) > MAX_KEPT:
            del self._when[next(iter(self._when))]
        return now

    def take_back(self, address: str, name: str, begun: float) -> None:
        """The password was right."""
        for key in _keys(address, name):
            if begun in self._when.get(key, ()):
                self._when[key].remove(begun)


def _keys(address: str, name: str) -> dict[Hashable, int]:
    return {(address, name): NAME_TRIES, address: ADDRESS_TRIES}
