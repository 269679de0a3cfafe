"""lily-diffusion inspect: what a Lily file says of itself."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ..save_and_load import METADATA_KEY, read_lily_header
from ..sharing import group_table

EXAMPLES = """\
examples:
  lily-diffusion inspect robot.safetensors           what it is made of, and for which base
  lily-diffusion inspect robot.safetensors --json    the same for programs

Only the header is read: a file of any size is shown at once, and nothing in it is loaded.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="a Lily .safetensors file")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print what a Lily file says of itself."""
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
