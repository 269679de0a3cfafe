"""What stands in front of the page's web server: whose requests are answered, how large they may be, what is told.

Gradio itself checks neither the Host header nor how often somebody tries a password, and takes bodies of any length.
`ui/serving/logins.py` says who is logged in.
"""

from __future__ import annotations

import ipaddress
import json
import re
import shutil
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gradio.utils import get_upload_folder

from ui.serving import logins

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_BODY = 2 * 2**20  # bytes of any request but an upload or a login
MAX_LOGIN = 16 * 2**10
MAX_TARGET = 8192  # bytes of path and query
MIN_FREE = 2**30  # bytes that must stay free where uploads are kept
MAX_ERROR = 400  # characters of an error that an event gives
CLOSED = (
    "/dev/",
    "/profiling/",
    "/proxy=",
    "/process_recording",
    "/vibe",
    "/mcp",
    "/deep_link",
    "/monitoring",
    "/openapi.json",
    "/stream/",
    "/custom_component/",
)  # parts of gradio that the page does not use
FILE = re.compile(r"/file[=/]")  # what follows is the path of a file
ADDRESS = re.compile(r"\s*https?:")  # which gradio would fetch, and pass on as if it came from here
PLAIN_ERRORS = {
    400: "This request cannot be read.",
    401: "Log in first.",
    403: "This is not allowed.",
    404: "There is nothing here.",
    405: "This is not possible here.",
    413: "This is too large.",
    414: "This address is too long.",
    421: "This server does not go by that name. Open it by its address, or start it with --allowed_hosts.",
    422: "This request cannot be read.",
    429: "Too many wrong passwords. Wait a minute.",
    500: "That did not work.",
    507: "The disk of the server is full.",
}
# Gradio's page has inline scripts and styles and makes functions from the texts of its js= arguments.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class _Refused(Exception):
    """A request that ends here with this status."""

    def __init__(self, status: int) -> None:
        self.status = status


class Guard:
    """ASGI middleware. It answers only requests that name this server (so that no foreign page reaches it by pointing
    its own name here), that come from no foreign page, and that are small enough; errors are short and name no path.
    """

    def __init__(self, app: Any, hosts: Iterable[str], max_upload: int) -> None:
        """``hosts``: names without ports under which the server is known. ``max_upload``: bytes of one upload."""
        self.app, self.max_upload = app, max_upload
        self.hosts = frozenset(name.lower().strip("[]") for name in hosts)
        self._tries = logins.Tries()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        answer = _Answer(send, scope)
        try:
            if scope["type"] == "websocket":  # the page needs none
                raise _Refused(403)
            self._check(scope)
            receive = _limited(receive, self._room(scope))
            if is_login(scope) and logins.are_on(scope):
                await self._log_in(scope, receive, answer)
            else:
                await self.app(scope, receive, answer.send)
        except _Refused as refused:
            await answer.refuse(refused.status)
        except Exception:  # already logged by the layers below; nothing of it is for the other side
            if answer.begun:
                raise
            await answer.refuse(500)

    async def _log_in(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        """Pass a login on unless there were too many wrong ones. All of it is read first: it has the name."""
        body = await _whole(receive)
        who = address_of(scope), await logins.name_in(scope, body)
        begun = self._tries.begin(*who)
        if begun is None:
            raise _Refused(429)
        await self.app(scope, _again(body, receive), answer.send)
        if answer.status == 200:
            self._tries.take_back(*who, begun)

    def _check(self, scope: Scope) -> None:
        route, *file = FILE.split(scope["path"].lower(), maxsplit=1)
        if any(part in f"{route}/" for part in CLOSED) or any(map(ADDRESS.match, file)):
            raise _Refused(404)
        headers = _single(scope["headers"])
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MAX_TARGET:
            raise _Refused(414)
        host = headers.get(b"host", "")
        if _name(f"//{host}") not in {*self.hosts, *_own_address(scope)}:
            raise _Refused(421)
        if not _from_here(headers, host, opened=scope["method"] in ("GET", "HEAD") and scope["path"] == "/"):
            raise _Refused(403)
        if not logins.may_enter(scope):
            raise _Refused(401)
        length = headers.get(b"content-length", "0")
        if not length.isascii() or not length.isdigit():
            raise _Refused(400)
        if int(length[:20]) > self._room(scope):
            raise _Refused(413)
        if is_upload(scope) and _free_space() - int(length) < MIN_FREE:
            raise _Refused(507)

    def _room(self, scope: Scope) -> int:
        return self.max_upload if is_upload(scope) else MAX_LOGIN if is_login(scope) else MAX_BODY


class _Answer:
    """Passes an answer on with our headers; the texts of errors are replaced by short ones."""

    def __init__(self, send: Send, scope: Scope) -> None:
        self._send, self._scope = send, scope
        self.begun = False
        self.status = 0  # as the app has it
        self._replaced: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            wrong_password = is_login(self._scope) and self.status == 400  # the page knows gradio's words for that
            if self.status in PLAIN_ERRORS and not wrong_password:
                self._replaced = self.status
                return
            self.begun = True
            ours = {name for name, _ in HEADERS}
            kept = [(name, value) for name, value in message.get("headers", ()) if name.lower() not in ours]
            await self._send({**message, "headers": [*kept, *HEADERS]})
        elif self._replaced is None:
            await self._send({**message, "body": _shortened(message.get("body", b""))})
        elif not message.get("more_body"):
            await self.refuse(self._replaced)

    async def refuse(self, status: int) -> None:
        """Answer with a status and one sentence; a websocket is closed."""
        if self.begun:
            return
        self.begun = True
        if self._scope["type"] == "websocket":
            await self._send({"type": "websocket.close", "code": 1008})
            return
        body = json.dumps({"detail": PLAIN_ERRORS[status]}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *HEADERS]
        if status == 429:
            headers.append((b"retry-after", str(round(logins.WINDOW)).encode()))
        if status in (413, 400):  # what is left of the body is not read
            headers.append((b"connection", b"close"))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": b"" if self._scope["method"] == "HEAD" else body})


def is_upload(scope: Scope) -> bool:
    return scope["method"] == "POST" and scope["path"].rstrip("/").endswith("/upload")


def is_login(scope: Scope) -> bool:
    return scope["method"] == "POST" and scope["path"].rstrip("/") == "/login"


def address_of(scope: Scope) -> str:
    return str((scope.get("client") or ("unknown", 0))[0])


def _limited(receive: Receive, room: int) -> Receive:
    """``receive`` that ends the request once its body is longer than ``room`` bytes, whatever it had announced."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > room:
            raise _Refused(413)
        return message

    return counted


async def _whole(receive: Receive) -> bytes:
    parts = []
    more = True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """``receive`` once more from the beginning of a body that was read."""
    left = [body]

    async def replayed() -> Message:
        return {"type": "http.request", "body": left.pop(), "more_body": False} if left else await receive()

    return replayed


def _shortened(body: bytes) -> bytes:
    """An event's failure in few words: gradio repeats whole values that it refuses. All else as it is."""
    if not body.startswith(b'data: {"msg":"process_completed"') or b'"success":false' not in body[-500:]:
        return body
    try:
        message = json.loads(body[6:])
        error = message["output"]["error"] or ""
        ours = "This value is not possible here." if error.startswith("Value: ") else error[:MAX_ERROR]
        message["output"]["error"] = ours or None
    except (ValueError, KeyError, TypeError):
        return body
    return b"data: " + json.dumps(message).encode() + b"\n\n"


def _single(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, str]:
    """The headers that we look at. One that is given twice could be read differently by others: refused."""
    wanted = (b"host", b"origin", b"content-length", b"sec-fetch-site", b"sec-fetch-mode")
    found: dict[bytes, str] = {}
    for name, value in headers:
        if name in wanted:
            if name in found:
                raise _Refused(400)
            found[name] = value.decode("latin-1").strip()
    return found


def _own_address(scope: Scope) -> list[str]:
    """The number of this machine that the request came to. Nobody can point a name of theirs at what is no name."""
    try:
        return [str(ipaddress.ip_address((scope.get("server") or [""])[0]))]
    except ValueError:
        return []


def _free_space() -> int:
    """Bytes where gradio keeps uploads; it makes that folder when it is needed."""
    folder = Path(get_upload_folder()).absolute()
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def _name(address: str) -> str:
    """The host name in ``//name:port``; empty where there is none."""
    try:
        parts = urlsplit(address)
        return (parts.hostname or "") if parts.port != 0 and "@" not in parts.netloc else ""
    except ValueError:
        return ""


def _from_here(headers: dict[bytes, str], host: str, *, opened: bool) -> bool:
    """Whether a browser sent this from our own page, or it is no browser, or a link elsewhere may open this."""
    origin = headers.get(b"origin")
    if origin is not None:
        return origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")
    if headers.get(b"sec-fetch-site", "none") in ("none", "same-origin"):
        return True
    return opened and headers.get(b"sec-fetch-mode") == "navigate"
