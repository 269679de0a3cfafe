"""lily-diffusion merge: several frozen adapters in one file, as their exact sum, or by TIES, DARE or pruning."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..adapter import LilyAdapter
from ..components import denoiser, public_name
from ..frozen import check_frozen
from ..header import METADATA_KEY, check_denoiser_only, content_hash
from ..interchange.lora import read_lora, read_metadata
from ..interchange.lora_header import read_trigger_words
from ..interchange.merging import ALIASES, PRUNED, SIGN_METHODS, SIGNED, SUMS, merge_adapters
from ..interchange.rank import largest_error
from ..loaders import check_compatible
from ..pipelines import open_shapes
from ..save_and_load import build_adapter, load_tensors, read_file, read_lily_header
from .output import FORMATS, check_output, unet_for_kohya, write_adapter

EXAMPLES = """\
examples:
  # the exact weighted sum of two frozen adapters, as 'set_adapters' makes it at run time
  lily-diffusion merge robot.safetensors:0.8 bear.safetensors:0.6 --output both.safetensors

  # TIES and DARE drop part of each update, so that the two disturb each other less
  lily-diffusion merge robot.safetensors bear.safetensors --method ties --density 0.5 --output both.safetensors

  # as a LoRA file that other programs load
  lily-diffusion merge robot.safetensors:0.8 bear.safetensors:0.6 --format kohya --output both_lora.safetensors

Adapters that choose their experts by the input have no single matrix to merge: 'lily-diffusion bake' freezes them.
"""


class Source(NamedTuple):
    """One FILE[:WEIGHT], read."""

    file: Path
    weight: float
    adapter: LilyAdapter
    component: str
    model_class: str
    base_model: str | None
    trigger_words: tuple[str, ...]
    content_hash: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE[:WEIGHT]", help="a frozen Lily file, or a LoRA file, and its weight (1)")
    add("--output", type=Path, required=True, metavar="FILE", help="the .safetensors file to write")
    add("--method", default="cat", help=f"{', '.join((*SUMS, *PRUNED, *ALIASES))} (default: cat, the exact sum)")
    add("--rank", type=int, help="of the result, for all methods but cat (default: the sum of the ranks)")
    add("--density", type=float, help=f"part of the entries that is kept, for {', '.join(PRUNED)}")
    add("--majority_sign_method", default="total", help=f"{' or '.join(SIGN_METHODS)}, for ties (default: total)")
    add("--seed", type=int, default=0, help="of DARE's draws (default: 0)")
    add("--format", default="lily", help=f"one of {', '.join(FORMATS)} (default: lily)")
    add(
        "--model",
        metavar="NAME",
        help="the base, for reading LoRA files and for kohya's names: 'embedded', a pipeline's folder or a hub id, of "
        "which only the configuration is read (default for kohya's names: the base in the files' headers, if that is "
        "embedded or a folder here)",
    )
    add("--skip_others", action="store_true", help="leave out what in a LoRA file is no linear layer of the base")


def run(args: argparse.Namespace) -> int:
    """Merge the files, write the result and say how large and how exact it is."""
    check_output(args.output, args.format)
    named = parse_files(args.files)
    if args.output.resolve() in [file.resolve() for file, _ in named]:
        raise ValueError(f"--output {args.output} is one of the files to merge; choose another name.")
    model = open_shapes(args.model) if args.model else None
    sources = [read_source(file, weight, args, model) for file, weight in named]
    check_same_base(sources)
    about = header_facts(sources, args)
    component, _, base_model, *_ = about
    if args.format == "kohya":
        model = unet_for_kohya(model, base_model, component, [g for s in sources for g in s.adapter.groups])
    adapter, errors = merge_adapters(
        {str(source.file): source.adapter for source in sources},
        [source.weight for source in sources],
        args.method,
        rank=args.rank,
        density=args.density,
        majority_sign_method=args.majority_sign_method,
        seed=args.seed,
    )
    write_adapter(adapter, args.output, args.format, *about, model)
    layer, error = largest_error(errors)
    print(args.output)
    print(f"rank        {adapter.config.r} ({', '.join(f'{s.file.name} {s.adapter.config.r}' for s in sources)})")
    print(f"parameters  {adapter.num_parameters():,}")
    print(f"bytes       {args.output.stat().st_size:,}")
    print(f"truncation  largest relative error of a layer {error:.2e} ({layer!r})" if error else "truncation  none")
    return 0


def parse_files(texts: Sequence[str]) -> list[tuple[Path, float]]:
    """Make sense of ``FILE[:WEIGHT]``; a file whose own name ends so comes first.

    Raises:
        ValueError: a file is missing or given twice, or a weight is no number.
    """
    named: list[tuple[Path, float]] = []
    for text in texts:
        head, mark, tail = text.rpartition(":")
        file, weight = Path(text), 1.0
        if not file.exists() and mark and head:
            try:
                file, weight = Path(head), float(tail)
            except ValueError:
                raise ValueError(f"the weight of {text} must be a number, not {tail!r}.") from None
        if not file.is_file():
            raise ValueError(f"there is no adapter file {file}.")
        if file.resolve() in [other.resolve() for other, _ in named]:
            raise ValueError(f"{file} is given twice; add up its weights instead.")
        named.append((file, weight))
    return named


def read_source(file: Path, weight: float, args: argparse.Namespace, model: Any) -> Source:
    """Read a frozen Lily file, or a LoRA file if the model that it is for is given.

    Raises:
        ValueError: it is neither, it is not frozen, or it does not fit the model.
    """
    metadata = read_metadata(file)
    if METADATA_KEY not in metadata and model is None:
        raise ValueError(f"{file.name} is no Lily file; if it is a LoRA file, name its base with --model.")
    if METADATA_KEY not in metadata:
        adapter = read_lora(file, model, skip_others=args.skip_others)
        words, digest = read_trigger_words(metadata), content_hash(load_tensors(file))
        about = denoiser(model)[0], type(model).__name__, public_name(args.model), words, digest
        return Source(file, weight, adapter, *about)
    header = read_lily_header(file)
    check_denoiser_only(header, file.name, "cannot be merged")
    check_frozen(header.config, file.name)
    if model is not None:
        check_compatible(header, model)
    adapter = build_adapter(*read_file(file), file.name)
    about = header.component, header.model_class, header.base_model, header.trigger_words, header.content_hash
    return Source(file, weight, adapter, *about)


def check_same_base(sources: Sequence[Source]) -> None:
    """Raise ValueError when two files are for models of different classes; shapes are compared as they are merged."""
    first = sources[0]
    for source in sources[1:]:
        if (source.component, source.model_class) != (first.component, first.model_class):
            raise ValueError(
                f"The files are for different bases: {first.file.name} is for a {first.model_class} and "
                f"{source.file.name} for a {source.model_class}."
            )


def header_facts(
    sources: Sequence[Source], args: argparse.Namespace
) -> tuple[str, str, str | None, tuple[str, ...], dict[str, str]]:
    """For the result's header: component, model class, base, the words of all files, and what it was made of."""
    bases = {source.base_model for source in sources}
    base_model = bases.pop() if len(bases) == 1 else None
    words = tuple(dict.fromkeys(word for source in sources for word in source.trigger_words))
    extra = {
        "merged_from": json.dumps(recipe(sources, args), sort_keys=True),
        "modelspec.merged_from": ", ".join(source.file.stem for source in sources),
    }
    return sources[0].component, sources[0].model_class, base_model, words, extra


def recipe(sources: Sequence[Source], args: argparse.Namespace) -> dict[str, Any]:
    """How to make the file again: names, hashes and weights of the files, and the method with its settings."""
    settings = {name: getattr(args, name) for name in ("rank", "density") if getattr(args, name) is not None}
    if args.method in SIGNED:
        settings["majority_sign_method"] = args.majority_sign_method
    if args.method.startswith("dare"):
        settings["seed"] = args.seed
    files = [{"name": s.file.name, "content_hash": s.content_hash, "weight": s.weight} for s in sources]
    return {"files": files, "method": args.method, **settings}
