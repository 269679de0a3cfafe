"""The page as a program, ``python -m ui.app``: builds the Gradio app and serves it with all that is risky off."""

from __future__ import annotations

import argparse
import ipaddress
import socket
from collections.abc import Sequence
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from ui import generate_tab
from ui.session import USER_ERRORS, Session
from ui.style import CSS, THEME

LOCAL_HOSTS = ("127.0.0.1", "localhost")
MAX_UPLOAD = "2gb"
QUEUE_LENGTH = 20
DELETE_CACHE = (3600, 86400)  # seconds: look every hour, delete what is older than a day


def create_demo(session: Session) -> gr.Blocks:
    """Return the app for a session. Start it with ``launch`` of this module, which applies the security settings."""
    with gr.Blocks(title="Lily", analytics_enabled=False, delete_cache=DELETE_CACHE, fill_width=False) as demo:
        gr.Markdown("# Lily\nPictures with adapters that share what they learn across layers.", elem_id="title")
        generate_tab.build(session, demo)
    demo.queue(max_size=QUEUE_LENGTH, default_concurrency_limit=1, api_open=False)
    return demo


def launch(
    demo: gr.Blocks,
    host: str = "127.0.0.1",
    port: int | None = None,
    *,
    auth: tuple[str, str] | None = None,
    allowed_hosts: Sequence[str] = (),
    inbrowser: bool = False,
) -> str:
    """Serve the app in the background and return its address; ``demo.close()`` ends it.

    Requests are answered only when their Host header is a name of this server, so a foreign web page cannot reach it
    by pointing its own name at it (DNS rebinding).

    Raises:
        ValueError: ``host`` is open to other machines and there is no ``auth``.
    """
    if not is_local(host) and auth is None:
        raise ValueError(f"--host {host} lets other machines in: give --auth user:password too.")
    names = {*LOCAL_HOSTS, host, *allowed_hosts, *(() if is_local(host) else (socket.gethostname(),))}
    guard = Middleware(TrustedHostMiddleware, allowed_hosts=sorted(names), www_redirect=False)
    _, address, _ = demo.launch(
        server_name=host,
        server_port=port,
        auth=auth,
        inbrowser=inbrowser,
        prevent_thread_lock=True,
        app_kwargs={"middleware": [guard], "docs_url": None, "redoc_url": None, "openapi_url": None},
        **_safe_settings(),
    )
    return address


def is_local(host: str) -> bool:
    """Whether only this machine can reach a server that listens on ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, load the base model, and serve the page until it is stopped."""
    parser = _parser()
    args = parser.parse_args(argv)
    local = is_local(args.host)
    auth = tuple(args.auth.split(":", 1)) if args.auth else None
    if not local and auth is None:
        parser.error(f"--host {args.host} lets other machines in: give --auth user:password too.")
    if auth is not None and (len(auth) != 2 or not all(auth)):
        parser.error("--auth needs the form user:password.")
    try:
        session = Session(args.model, args.adapters_dir, args.output_dir, allow_uploads=local, allow_hub=local)
    except USER_ERRORS as problem:
        parser.error(str(problem))
    demo = create_demo(session)
    address = launch(
        demo,
        args.host,
        args.port,
        auth=auth,  # type: ignore[arg-type]
        allowed_hosts=args.allowed_hosts,
        inbrowser=args.inbrowser,
    )
    print(f"The page is at {address} (Ctrl+C stops it).", flush=True)
    demo.block_thread()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ui.app", description="A page to make pictures with Lily adapters.")
    parser.add_argument("--model", nargs="+", default=["embedded"],
                        help="embedded, embedded-dit, a folder or Hub id; the first is loaded")  # fmt: skip
    parser.add_argument("--adapters_dir", default="adapters", help="folder of .safetensors files, looked through whole")
    parser.add_argument("--output_dir", default="outputs", help="pictures are saved here, in a folder a day")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; others than local need --auth")
    parser.add_argument("--port", type=int, default=None, help="default: the first free one from 7860")
    parser.add_argument("--auth", default=None, metavar="USER:PASSWORD", help="ask for this name and password")
    parser.add_argument("--allowed_hosts", nargs="*", default=[], metavar="NAME",
                        help="further names and addresses under which people open the page")  # fmt: skip
    parser.add_argument("--inbrowser", action=argparse.BooleanOptionalAction, default=False, help="open the browser")
    parser.add_argument("--no-browser", dest="inbrowser", action="store_false", help="do not open it (the default)")
    return parser


def _safe_settings() -> dict[str, Any]:
    return {
        "share": False,
        "mcp_server": False,
        "ssr_mode": False,
        "enable_monitoring": False,
        "run_history": False,
        "show_error": False,
        "allowed_paths": [],
        "strict_cors": True,
        "max_file_size": MAX_UPLOAD,
        "footer_links": [],
        "quiet": True,
        "root_path": "",
        "theme": THEME,
        "css": CSS,
    }


if __name__ == "__main__":
    main()
