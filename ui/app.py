"""The page as a program, for ``python -m ui``: builds the Gradio app and serves it with all that is risky off."""

from __future__ import annotations

import argparse
import ipaddress
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import processing_utils
from starlette.middleware import Middleware

from ui import api, translations
from ui.events import HIDDEN, QUICK, Page
from ui.export import export_tab
from ui.generate import generate_tab
from ui.generate.asking import order_of
from ui.judge import judge_tab, order_form
from ui.keys import CSS as KEYS_CSS
from ui.keys import KEYS
from ui.messages import Order
from ui.serving.guard import Guard
from ui.session import USER_ERRORS, Session
from ui.style import CSS, THEME
from ui.train import train_tab
from ui.train.training_runs import Trainings

NEEDS_AUTH = "--host, --listen or --allowed_hosts lets other machines in: give --auth user:password too."
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
MAX_UPLOAD = 2 * 2**30  # bytes of one adapter or picture
MAX_UPLOAD_LISTENING = 64 * 2**20  # the same while the page listens to other machines: pictures only
QUEUE_LENGTH = 20
MAX_VISITORS = 1000  # whose state is kept; of more, the one that was away for longest begins anew (gradio: 10,000)
DELETE_CACHE = (3600, 86400)  # seconds: look every hour, delete what is older than a day
BASE_SECONDS = 5  # between two looks at which base model is loaded
TABS = {"Generate": generate_tab, "Judge": judge_tab, "Export": export_tab}


def create_demo(session: Session, trainings: Trainings | None = None) -> Page:
    """Return the app for a session. Start it with ``launch`` of this module, which applies the security settings.

    Without ``trainings`` the tab for training is off.
    """
    trainings = trainings or Trainings(session, allowed=False)
    with Page(title="Lily", analytics_enabled=False, delete_cache=DELETE_CACHE, fill_width=False) as demo:
        gr.Markdown("# Lily\nPictures with adapters that share what they learn across layers.", elem_id="title")
        base = gr.Textbox(session.base.label, visible=HIDDEN, elem_id="shown-base")  # the one that this page shows
        built: dict[str, Any] = {}
        with gr.Tabs(elem_id="tabs"):
            for name, tab in TABS.items():
                with gr.Tab(name, id=name.lower(), elem_id=f"{name.lower()}-tab"):
                    built[name] = tab.build(session, demo, base)
            with gr.Tab("Train", id="train", elem_id="train-tab"):
                train_tab.build(session, demo, base, trainings)
        gr.on([demo.load, gr.Timer(BASE_SECONDS).tick], partial(_base_now, session), base, base, **QUICK)
        for name in ("Judge", "Export"):
            order_form.take_over(session, built[name], built["Generate"].order, partial(_order, session))
        api.build(session, demo)
    translations.translate(demo)
    demo.queue(max_size=QUEUE_LENGTH, default_concurrency_limit=1, api_open=False)
    return demo


def _base_now(session: Session, shown: str) -> Any:
    """The base model belongs to all visitors: what the page shows of it follows, whoever loads another."""
    return gr.skip() if shown == session.base.label else session.base.label


def _order(session: Session, values: tuple[Any, ...]) -> Order:
    return order_of(values, session.styles.all())


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
        ValueError: other machines are let in and there is no ``auth``.
    """
    local = is_local(host, allowed_hosts)
    if not local and auth is None:
        raise ValueError(NEEDS_AUTH)
    names = [*LOCAL_HOSTS, host, *allowed_hosts, *(() if is_local(host) else (socket.gethostname(),))]
    room = MAX_UPLOAD if local else MAX_UPLOAD_LISTENING
    processing_utils.async_ssrf_protected_download = _fetch_nothing
    guard = Middleware(Guard, hosts=names, max_upload=room + 2**20)  # the form around the file
    _, address, _ = demo.launch(
        server_name=host,
        server_port=port,
        auth=auth,
        inbrowser=inbrowser,
        prevent_thread_lock=True,
        max_file_size=room,
        state_session_capacity=MAX_VISITORS,
        app_kwargs={"middleware": [guard], "docs_url": None, "redoc_url": None, "openapi_url": None},
        **_safe_settings(),
    )
    return address


async def _fetch_nothing(url: str, cache_dir: str) -> str:
    """In the place of gradio's download of an address that an event was given as a file, of any size."""
    raise gr.Error("Files are uploaded here, not fetched from an address.", print_exception=False)


def is_local(host: str, allowed_hosts: Sequence[str] = ()) -> bool:
    """Whether only this machine can reach a server on ``host``: further names mean a proxy that lets others in."""
    if not set(allowed_hosts) <= set(LOCAL_HOSTS):
        return False
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
    host = args.host or ("0.0.0.0" if args.listen else "127.0.0.1")
    local = is_local(host, args.allowed_hosts)
    auth = tuple(args.auth.split(":", 1)) if args.auth else None
    if not local and auth is None:
        parser.error(NEEDS_AUTH)
    if auth is not None and (len(auth) != 2 or not all(auth)):
        parser.error("--auth needs the form user:password.")
    try:
        session = Session(args.model, args.adapters_dir, args.output_dir, allow_uploads=local, allow_hub=local)
        trainings = Trainings(session, allowed=local or args.allow_training, pictures=args.train_dir)
    except USER_ERRORS as problem:
        parser.error(str(problem))
    demo = create_demo(session, trainings)
    address = launch(
        demo,
        host,
        args.port,
        auth=auth,  # type: ignore[arg-type]
        allowed_hosts=args.allowed_hosts,
        inbrowser=args.inbrowser,
    )
    print(f"The page is at {address} (Ctrl+C stops it).", flush=True)
    demo.block_thread()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ui", description="A page to make pictures with Lily adapters.")
    add = parser.add_argument
    add("--model", nargs="+", default=["embedded"],
        help="embedded, embedded-dit, a folder or Hub id; the first is loaded")  # fmt: skip
    add("--adapters_dir", default="adapters", help="folder of .safetensors files, looked through whole")
    add("--output_dir", default="outputs", help="pictures are saved here, in a folder a day; trainings in another")
    add("--host", default=None, help="address to listen on (default: 127.0.0.1); others than local need --auth")
    add("--listen", action="store_true", help="let other machines in, as --host 0.0.0.0 does; needs --auth")
    add("--port", type=int, default=None, help="default: the first free one from 7860")
    add("--auth", default=None, metavar="USER:PASSWORD", help="ask for this name and password")
    add("--allowed_hosts", nargs="*", default=[], metavar="NAME",
        help="further names and addresses under which people open the page, such as a proxy; needs --auth")  # fmt: skip
    add("--train_dir", type=Path, default=None, metavar="FOLDER",
        help="its sub-folders are offered as pictures to train on")  # fmt: skip
    add("--allow_training", action="store_true", help="training stays possible while other machines are let in")
    add("--inbrowser", action=argparse.BooleanOptionalAction, default=False, help="open the browser")
    add("--no-browser", dest="inbrowser", action="store_false", help="do not open it (the default)")
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
        "footer_links": [],
        "quiet": True,
        "root_path": "",
        "theme": THEME,
        "css": "\n".join([CSS, KEYS_CSS, *(getattr(tab, "CSS", "") for tab in (*TABS.values(), train_tab))]),
        "head": KEYS + translations.HEAD,
        "i18n": translations.catalogue(),
    }


if __name__ == "__main__":
    main()
