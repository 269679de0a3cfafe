"""lily-diffusion convert: LoRA files, and Lily files of PEFT and of the authors, into ours, and ours into PEFT's."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..adapter import LilyAdapter
from ..components import denoiser, public_name
from ..header import check_denoiser_only
from ..interchange.authors import read_authors
from ..interchange.lora import is_lora, read_lora, read_metadata
from ..interchange.lora_header import read_trigger_words
from ..interchange.peft import CONFIG_NAME, WEIGHTS_NAME, read_peft, write_peft
from ..loaders import check_compatible
from ..pipelines import open_shapes
from ..save_and_load import build_adapter, read_file
from ..sharing import group_table
from .output import check_writable, write_adapter

EXAMPLES = """\
examples:
  # a folder that PEFT saved, for the model that it was trained on
  lily-diffusion convert peft_folder dog.safetensors --model stabilityai/stable-diffusion-xl-base-1.0 \\
    --trigger_words "sks dog"

  # a file of the authors' training script
  lily-diffusion convert lily_layers.pt toy.safetensors --model stabilityai/stable-diffusion-xl-base-1.0

  # a LoRA file, with the names of diffusers or of kohya, for blending and merging with others
  lily-diffusion convert style_lora.safetensors style.safetensors --model stable-diffusion-v1-5/stable-diffusion-v1-5

  # ours for PEFT: PeftModel.from_pretrained(unet, "peft_folder") loads it
  lily-diffusion convert robot.safetensors peft_folder --model embedded

Of the model only the configuration is loaded: names, sizes and order of its layers are needed, no weights.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", type=Path, help="a folder of PEFT, a .pt file of the authors, a LoRA or a Lily .safetensors file")
    add("target", type=Path, help="the .safetensors file to write, or for PEFT the folder")
    add(
        "--model", required=True, metavar="NAME", help="the adapter's base: 'embedded', a pipeline's folder or a hub id"
    )
    add("--to", choices=("lily", "peft"), help="what to write (default: peft from our file, lily from any other)")
    add(
        "--routing", choices=("batch", "sample"), help="over what the router averages (default: batch, as it was there)"
    )
    add("--scaling", type=float, metavar="S", help="lily_s of an authors' file, which does not hold it (default: 1)")
    add("--skip_others", action="store_true", help="leave out what in a LoRA file is no linear layer of the base")
    add("--trigger_words", nargs="+", default=[], metavar="W", help="words that call the subject, for our header")
    add("--base_model", metavar="ID", help="the base's name in what is written (default: the file's own, or --model)")


def run(args: argparse.Namespace) -> int:
    """Convert one adapter and say what was made."""
    kind = _kind(args.source)
    to = args.to or ("peft" if kind == "lily" else "lily")
    _check_arguments(args, kind, to)
    model = open_shapes(args.model)
    adapter, base = _read(args, kind, model)
    if to == "peft":
        written = write_peft(adapter, args.target, model, public_name(args.base_model or base)) / WEIGHTS_NAME
    else:
        written = args.target
        words = args.trigger_words or (read_trigger_words(read_metadata(args.source)) if kind == "lora" else ())
        facts = (denoiser(model)[0], type(model).__name__, public_name(args.base_model or base), words)
        write_adapter(adapter, written, "lily", *facts, {"converted_from": kind})
    before = args.source / WEIGHTS_NAME if kind == "peft" else args.source
    print(group_table(adapter).splitlines()[-1] if kind == "lora" else group_table(adapter))
    print(f"{args.source} ({before.stat().st_size:,} bytes) -> {args.target} ({written.stat().st_size:,} bytes)")
    return 0


def _kind(source: Path) -> str:
    if not source.exists():
        raise FileNotFoundError(f"there is no file or folder {source}.")
    if source.is_dir():
        if not (source / CONFIG_NAME).is_file():
            raise ValueError(f"{source} is no folder of PEFT: it has no {CONFIG_NAME}; for other files, name the file.")
        return "peft"
    if source.suffix != ".safetensors":
        return "authors"
    return "lora" if is_lora(source) else "lily"


def _check_arguments(args: argparse.Namespace, kind: str, to: str) -> None:
    if kind == to:
        raise ValueError(f"{args.source} is in the form that --to {to} asks for already.")
    if to == "lily" and args.target.suffix != ".safetensors":
        raise ValueError(f"the file to write must end in .safetensors, not {args.target.name!r}.")
    if to == "lily" and args.target.resolve() == args.source.resolve():
        raise ValueError("the file to write is the one to read; choose another name.")
    if to == "lily":
        check_writable(args.target)
    if to == "peft" and args.target.suffix == ".safetensors":
        raise ValueError(f"PEFT's form is a folder; {args.target.name!r} is the name of a file.")
    if to == "peft" and args.trigger_words:
        raise ValueError("PEFT's form has no place for --trigger_words.")
    if kind == "lora" and to == "peft":
        raise ValueError("a LoRA chooses no experts, so PEFT's Lily cannot hold it; leave --to out for a Lily file.")
    if kind == "lora" and args.routing:
        raise ValueError("--routing is for adapters that choose their experts by the input, which a LoRA does not.")
    if kind != "lora" and args.skip_others:
        raise ValueError("--skip_others is for LoRA files.")
    if kind == "lily" and args.routing:
        raise ValueError("--routing is for the files of other programs; ours say theirs.")
    if kind != "authors" and args.scaling is not None:
        raise ValueError("--scaling is for the authors' files; others say theirs.")


def _read(args: argparse.Namespace, kind: str, model: Any) -> tuple[LilyAdapter, str | None]:
    """The adapter, and the name of its base where the file has one."""
    routing = args.routing or "batch"
    if kind == "peft":
        return read_peft(args.source, model, routing=routing), args.model
    if kind == "authors":
        scaling = 1.0 if args.scaling is None else args.scaling
        return read_authors(args.source, model, scaling=scaling, routing=routing), args.model
    if kind == "lora":
        return read_lora(args.source, model, skip_others=args.skip_others), args.model
    header, tensors = read_file(args.source)
    check_denoiser_only(header, args.source.name, "PEFT's form has no place for")
    check_compatible(header, model)
    return build_adapter(header, tensors, args.source.name), header.base_model or args.model
