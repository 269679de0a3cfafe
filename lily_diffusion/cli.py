"""The command line: lily-diffusion generate | inspect | bake | merge | convert | ui | demo."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from typing import Any

from . import demo, generate
from .commands import bake, convert, inspect, merge
from .commands.output import printable

DESCRIPTION = "Draw with Lily adapters, look into their files, open the page, or see it all work once."
EXAMPLES = """\
examples:
  lily-diffusion demo                                    learn two subjects from five pictures each, and draw them
  lily-diffusion generate --prompt "a cat on a red background"
  lily-diffusion generate --prompt "a sks robot on a blue background" --adapter outputs/demo/robot.safetensors:0.8
  lily-diffusion inspect outputs/demo/robot.safetensors
  lily-diffusion ui                                      the page, on this machine only
'lily-diffusion COMMAND --help' explains one command.
"""
COMMANDS: dict[str, tuple[Any, str]] = {
    "generate": (generate, "draw pictures"),
    "inspect": (inspect, "show what a file holds"),
    "bake": (bake, "freeze an adapter's routers: plain LoRA out of Lily"),
    "merge": (merge, "several frozen adapters into one file"),
    "convert": (convert, "LoRA, and the Lily files of PEFT and of the authors, in; PEFT's out"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, or 2 after one sentence on stderr."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        if argv[:1] == ["ui"]:
            return _ui(argv[1:])
        _hush()
        if argv[:1] == ["demo"]:
            return demo.main(argv[1:])
        args = build_parser().parse_args(argv)
        return COMMANDS[args.command][0].run(args)
    except (ValueError, OSError, ImportError) as error:
        print(f"lily-diffusion: {printable(' '.join(str(error).split()))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lily-diffusion: interrupted", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("lily-diffusion", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=raw)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (program, purpose) in COMMANDS.items():
        program.add_arguments(
            commands.add_parser(
                name, help=purpose, description=program.__doc__, epilog=program.EXAMPLES, formatter_class=raw
            )
        )
    commands.add_parser("ui", help="open the page", add_help=False)
    commands.add_parser("demo", help="learn two subjects and draw them", add_help=False)
    return parser


def _ui(argv: list[str]) -> int:
    if importlib.util.find_spec("gradio") is None:
        raise ImportError("the page needs gradio, which is not installed: pip install 'lily-diffusion[ui]'")
    from ui.__main__ import main as open_page

    open_page(argv)
    return 0


def _hush() -> None:
    """Keep what diffusers and transformers say while loading off the screen; errors are still raised."""
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


if __name__ == "__main__":
    sys.exit(main())
