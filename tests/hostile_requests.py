"""What an attacker sends: paths, values, files and requests, made here for the tests of the page."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

ROUTES = ("gradio_api/file=", "gradio_api/file/", "file=", "gradio_api/static/", "static/", "assets/", "svelte/",
          "custom_component/", "gradio_api/custom_component/", "gradio_api/proxy=", "gradio_api/stream/",
          "gradio_api/deep_link?file=", "monitoring/", "pwa_icon/")  # fmt: skip


def paths(secret: str) -> list[str]:
    """Ways to write the path of a file that is not to be read."""
    quoted = secret.replace("/", "%2f")
    return [
        secret, "/etc/passwd", "../../../../../../etc/passwd", "..%2f..%2f..%2f..%2f..%2fetc%2fpasswd", f"/{secret}",
        "....//....//....//etc/passwd", f"file://{secret}", quoted, quoted.replace("%", "%25"), f"{secret}%00.png",
        f"/proc/self/root{secret}", "/proc/self/environ", "\\\\server\\share", "C:\\Windows\\win.ini", f"{secret}/",
        "http://127.0.0.1:1/", "http://169.254.169.254/latest/meta-data", "pyproject.toml", ".git/config",
        "%c0%ae%c0%ae/%c0%ae%c0%ae/etc/passwd", "~/.ssh/id_rsa", f"/tmp/gradio/..{secret}", "%2e%2e/%2e%2e/ui/app.py",
    ]  # fmt: skip


def file_data(path: str) -> dict[str, Any]:
    """A path as gradio passes files."""
    return {"path": path, "orig_name": "x.png", "size": 1, "meta": {"_type": "gradio.FileData"}}


def deep(levels: int, opening: str = "[", closing: str = "]") -> str:
    return opening * levels + closing * levels


def values(secret: str) -> list[Any]:
    """One value for every argument of an event."""
    return [
        None, file_data(secret), [file_data(secret)], [[file_data("/etc/passwd"), "x"]], "../../etc/passwd", -1e308,
        10**30, "<img src=x onerror=alert(1)>", {"__proto__": {"x": 1}, "__type__": "update", "path": secret},
        json.loads(deep(200)), "a" * 50_000, True,
    ]  # fmt: skip


BODIES: list[tuple[str, bytes]] = [
    ("deep lists", deep(100_000).encode()),
    ("deep mappings", deep(100_000, '{"a":', "}").replace("}", "1}", 1).encode()),
    ("not a number", b'{"fn_index": NaN, "data": [NaN, Infinity, -Infinity], "session_hash": "x"}'),
    ("many digits", b'{"fn_index": ' + b"9" * 100_000 + b', "data": [], "session_hash": "x"}'),
    ("negative event", b'{"fn_index": -1, "data": [], "session_hash": "x"}'),
    ("no such event", b'{"fn_index": 99999, "data": [], "session_hash": "x"}'),
    ("event by text", b'{"fn_index": "0; import os", "data": [], "session_hash": "x"}'),
    ("data by text", b'{"fn_index": 0, "data": "../../etc/passwd", "session_hash": "x"}'),
    ("session by path", b'{"fn_index": 0, "data": [], "session_hash": "../../etc/passwd"}'),
    ("session by list", b'{"fn_index": 0, "data": [], "session_hash": ["x"]}'),
    ("trigger by path", b'{"fn_index": 0, "data": [], "session_hash": "x", "trigger_id": "../.."}'),
    ("many values", b'{"fn_index": 0, "data": [' + b"1," * 200_000 + b'1], "session_hash": "x"}'),
    ("bad bytes", b"\xff\xfe\x00\xd8" * 100),
    ("cut off", b'{"fn_index": 0, "data": ['),
    ("nothing", b""),
    ("compressed", zlib.compress(b"0" * 10**6)),
    ("a form", b"fn_index=0&data=x"),
    ("twice", b'{"fn_index": 0, "fn_index": 1, "data": [], "data": ["/etc/passwd"], "session_hash": "x"}'),
    ("surrogates", b'{"fn_index": 0, "data": ["\\ud800\\u0000"], "session_hash": "\\u0000"}'),
    ("other class", b'{"fn_index": 0, "data": [], "session_hash": "x", "__class__": "os", "simple_format": 1}'),
]

NAMES = (
    "../../../evil.safetensors", "..\\..\\evil.safetensors", "/etc/cron.d/evil.safetensors", "evil.safetensors\0.png",
    "<script>alert(1)</script>.safetensors", "CON.safetensors", "a" * 3000 + ".safetensors", ".safetensors",
    "evil.py", "evil.ckpt", "evil.safetensors.", "\u202egnp.safetensors", "~/.bashrc", "%2e%2e%2fevil.safetensors",
    "robot.safetensors", "", " ", "file:///evil", "\n.safetensors",
)  # fmt: skip


def _safetensors(header: bytes, rest: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + rest


def _lily(**change: Any) -> bytes:
    group = {"projection": "to_q", "in_features": 8, "out_features": 8, "layers": ["a.to_q"], "A_of_layer": [0]}
    ours = {"config": {"r": 4}, "groups": [group], "component": "unet", "model_class": "X", "fingerprint": "f",
            "base_model": None, "trigger_words": [], "content_hash": "0"}  # fmt: skip
    metadata = {"lily_format_version": "1", "lily_adapter_metadata": json.dumps({**ours, **change})}
    tensor = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    return _safetensors(json.dumps({"__metadata__": metadata, "a": tensor}).encode(), bytes(4))


def adapter_files() -> dict[str, bytes]:
    """Files that call themselves safetensors, by what is wrong with them."""
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.pkl", b"0" * 10**6)
    many = {f"k{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(20_000)}
    return {
        "empty": b"", "short": b"\0" * 7, "endless header": struct.pack("<Q", 2**63) + b"{}",
        "negative length": struct.pack("<q", -1) + b"{}", "longer than the file": _safetensors(b"{}", length=10_000),
        "deep header": _safetensors(deep(50_000).encode()), "not json": _safetensors(b"\xff" * 100),
        "a list": _safetensors(b"[]"), "numbers": _safetensors(b'{"a": 1}'),
        "metadata of numbers": _safetensors(b'{"__metadata__": {"a": 1}}'),
        "many keys": _safetensors(json.dumps(many).encode()),
        "huge shape": _safetensors(b'{"a":{"dtype":"F32","shape":[4294967296,9],"data_offsets":[0,4]}}', bytes(4)),
        "negative offsets": _safetensors(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}}', bytes(4)),
        "overlap": _safetensors(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
                                b'"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
        "odd dtype": _safetensors(b'{"a":{"dtype":"OBJECT","shape":[1],"data_offsets":[0,4]}}', bytes(4)),
        "pickle": pickle.dumps({"a": print}), "zip": zipped.getvalue(),
        "huge rank": _lily(config={"r": 10**9}), "rank is a text": _lily(config={"r": "4"}),
        "no parts": _lily(groups=[]),
        "groups are deep": _lily(groups=json.loads(deep(200))), "many groups": _lily(groups=[{}] * 50_000),
        "path as component": _lily(component="../../etc"), "nan": _lily(config={"r": float("nan")}),
        "words are html": _lily(trigger_words=["<img onerror=alert(1)>"] * 1000),
        "hash is a path": _lily(content_hash="../x"),
    }  # fmt: skip


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(*chunks: bytes, width: int = 8, height: int = 8) -> bytes:
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = _chunk(b"IDAT", zlib.compress(bytes((8 * 3 + 1) * 8)))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + pixels + _chunk(b"IEND", b"")


def _with_text(**texts: str) -> bytes:
    made, info = io.BytesIO(), PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    Image.new("RGB", (8, 8)).save(made, "PNG", pnginfo=info)
    return made.getvalue()


def pictures() -> dict[str, bytes]:
    """PNG files that hide something, by what it is."""
    recipe = {"version": 1, "prompt": "x", "negative_prompt": "", "steps": 1, "guidance_scale": 1, "width": 64,
              "height": 64, "seed": 1, "base_model": "", "adapters": []}  # fmt: skip
    bomb = zlib.compress(b"a" * 10**8, 9)
    changed = ({"steps": 10**9}, {"width": 10**9}, {"steps": float("nan")}, {"seed": "x"}, {"prompt": ["x"]},
               {"adapters": [{"name": "../../etc/passwd", "content_hash": "../..", "weight": 1}]},
               {"adapters": [{"name": "x", "content_hash": "0" * 64, "weight": "1@" * 400}] * 99},
               {"base_model": "../../etc"}, {"scheduler": "os.system"}, {"version": 10**5000 % 97})  # fmt: skip
    return {
        "text bomb": _png(_chunk(b"zTXt", b"parameters\0\0" + bomb)),
        "international text bomb": _png(_chunk(b"iTXt", b"lily_recipe\0\1\0\0\0" + bomb)),
        "profile bomb": _png(_chunk(b"iCCP", b"x\0\0" + bomb)),
        "many texts": _png(*[_chunk(b"tEXt", b"k%d\0v" % i) for i in range(20_000)]),
        "huge size": _png(width=2**31 - 1, height=2**31 - 1), "wide": _png(width=2**30, height=1), "cut": _png()[:40],
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "empty": b"",
        "tiff": b"II*\0" + b"\xff" * 64,
        "deep recipe": _with_text(lily_recipe=deep(60_000)), "long infotext": _with_text(parameters="a" * 10**6),
        "infotext for a slow pattern": _with_text(parameters="a\n" + "a: \"\\" * 10_000 + "Steps: 1, Seed: 1"),
        "infotext of blanks": _with_text(parameters="a\nSteps: 1," + " " * 250_000 + "!"),
        **{f"recipe {n}": _with_text(lily_recipe=json.dumps({**recipe, **change})) for n, change in enumerate(changed)},
    }  # fmt: skip


def requests() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(method, path, further arguments of httpx) of what is neither a path nor an event."""
    for method in ("TRACE", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"):
        for path in ("", "config", "gradio_api/upload"):
            yield method, path, {"headers": {"Access-Control-Request-Method": "POST"}}
    for host in ("evil.example", "127.0.0.1.evil.example", "evil.example:7860", "0", "[::ffff:127.0.0.1]", "a\tb", "*"):
        yield "GET", "config", {"headers": {"Host": host}}
        yield "POST", "gradio_api/queue/join", {"headers": {"Host": host}, "json": {}}
    for origin in (
        "http://evil.example",
        "null",
        "file://",
        "http://127.0.0.1",
        "https://127.0.0.1:1",
        "chrome-extension://x",
    ):
        for path in ("gradio_api/queue/join", "gradio_api/upload", "login", "gradio_api/call/v1_generate"):
            yield "POST", path, {"headers": {"Origin": origin}, "json": {}}
    for path in ("gradio_api/reset", "gradio_api/cancel", "gradio_api/component_server", "gradio_api/process_recording",
                 "gradio_api/call/../../x", "gradio_api/call/find", "gradio_api/run/predict", "gradio_api/api/generate",
                 "gradio_api/stream/x/y/1/playlist.m3u8", "gradio_api/vibe-editor", "gradio_api/dev/reload",
                 "gradio_api/profiling/clear", "run/predict", "api/predict", "upload", "queue/join",
                 "mcp/sse"):  # fmt: skip
        yield "POST", path, {"json": {"session_hash": "../..", "event_id": "../..", "fn_index": 1, "component_id": 1,
                                      "fn_name": "__init__", "data": "/etc/passwd"}}  # fmt: skip
    for path in ("monitoring", "gradio_api/runs", "gradio_api/mcp/sse", "docs", "redoc", "openapi.json", ".env",
                 "logout?x", "gradio_api/upload_progress?upload_id=../..", "gradio_api/call/v1_info/../../etc",
                 "?__theme=../../etc",
                 "?view=../../../etc/passwd", "gradio_api/queue/status", "gradio_api/startup-events", "%00",
                 "//etc/passwd",
                 "gradio_api/profiling/traces", "gradio_api/dev/reload", "?deep_link=../../etc/passwd"):  # fmt: skip
        yield "GET", path, {}
