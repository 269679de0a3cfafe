"""The command line: lily-diffusion generate | inspect | ui | demo."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import demo, generate

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
INSPECT_EXAMPLES = """\
examples:
  lily-diffusion inspect robot.safetensors           what it is made of, and for which base
  lily-diffusion inspect robot.safetensors --json    the same for programs

Only the header is read: a file of any size is shown at once, and nothing in it is loaded.
"""


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
        return generate.run(args) if args.command == "generate" else inspect(args)
    except (ValueError, OSError, ImportError) as error:
        print(f"lily-diffusion: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lily-diffusion: interrupted", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("lily-diffusion", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=raw)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    draw = commands.add_parser("generate", help="draw pictures", epilog=generate.EXAMPLES, formatter_class=raw)
    generate.add_arguments(draw)
    look = commands.add_parser("inspect", help="show what a file holds", epilog=INSPECT_EXAMPLES, formatter_class=raw)
    look.add_argument("file", type=Path, help="a Lily .safetensors file")
    look.add_argument("--json", action="store_true", help="print JSON")
    commands.add_parser("ui", help="open the page", add_help=False)
    commands.add_parser("demo", help="learn two subjects and draw them", add_help=False)
    return parser


def inspect(args: argparse.Namespace) -> int:
    """Print what a Lily file says of itself."""
    from .save_and_load import METADATA_KEY, read_lily_header
    from .sharing import group_table

    if not args.file.exists():
        raise ValueError(f"there is no file {args.file}.")
    header = read_lily_header(args.file)
    extra = {key: text for key, text in header.metadata.items() if key != METADATA_KEY}
    facts = {
        "file": str(args.file),
        "bytes": args.file.stat().st_size,
        "base_model": header.base_model,
        "model_class": header.model_class,
        "trigger_words": list(header.trigger_words),
        "config": header.config.to_dict(),
        "num_parameters": header.num_parameters,
        "dtype": header.dtype,
        "lora_rank_of_same_size": round(lora_rank(header), 2),
        "content_hash": header.content_hash,
        "fingerprint": header.fingerprint,
    }
    if args.json:
        groups = [{"name": g.name, "num_A": g.num_A, "layers": list(g.layers)} for g in header.groups]
        print(json.dumps({**facts, "groups": groups, "metadata": extra}, indent=2))
        return 0
    facts["config"] = ", ".join(f"{k}={v}" for k, v in facts["config"].items() if v is not None)
    facts["trigger_words"] = ", ".join(header.trigger_words) or "none"
    facts["num_parameters"] = f"{header.num_parameters:,}"
    facts["lora_rank_of_same_size"] = f"{lora_rank(header):.1f} (a LoRA of this rank on the same layers is as large)"
    for key, value in facts.items():
        print(f"{key.replace('_', ' '):<23} {_plain(str(value))}")
    print(f"\n{_plain(group_table(header))}\n")
    for key, text in sorted(extra.items()):
        print(f"{_plain(key)}: {_plain(text)}")
    return 0


def lora_rank(header: Any) -> float:
    """The rank at which LoRA on the same layers has as many parameters: it needs rank * (in + out) a layer."""
    return header.num_parameters / sum(len(g.layers) * (g.in_features + g.out_features) for g in header.groups)


def _plain(text: str) -> str:
    """Without what could steer a terminal: a file may come from anyone."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def _ui(argv: list[str]) -> int:
    if importlib.util.find_spec("gradio") is None:
        raise ImportError("the page needs gradio, which is not installed: pip install 'lily-diffusion[ui]'")
    from ui.app import main as open_page

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
