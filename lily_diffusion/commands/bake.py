"""lily-diffusion bake: freeze an adapter's routers, so that any program that reads LoRA can use it.

The routers are watched while the prompts are drawn, and each layer's mixture of experts is replaced by the one matrix
that answers most nearly as it did. What is lost is written beside the file: numbers, and a picture.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean
from typing import Any

from PIL import Image, ImageChops

from ..adapter import LilyAdapter
from ..baking import METHODS, bake_lily, compare, freeze
from ..base_model import call_options
from ..base_model.fitting import atomically
from ..components import as_in_files, denoiser, parts
from ..grid import labelled_grid
from ..header import LilyHeader
from ..interchange.lora import check_format
from ..interchange.rank import largest_error, reduce_rank
from ..loaders import load_lily_weights
from ..pipelines import base_at_hand, default_guidance, open_pipeline, open_shapes
from ..save_and_load import build_adapters, read_file, read_lily_header
from ..switches import unload_lily_weights
from .drawing import check_drawing
from .output import FORMATS, check_output, check_writable, unet_for_kohya, write_adapter

EXAMPLES = """\
examples:
  # for diffusers' own pipe.load_lora_weights
  lily-diffusion bake robot.safetensors --prompt "a sks robot on a red background" --prompt "two sks robot" \\
    --output robot_lora.safetensors

  # for A1111, Forge and ComfyUI, no larger than rank 16
  lily-diffusion bake robot.safetensors --prompt "a sks robot" --format kohya --rank 16 --output robot_lora.safetensors

  # a frozen Lily file, which can be merged with others and fused into the weights
  lily-diffusion bake robot.safetensors --prompt "a sks robot" --format lily --output robot_frozen.safetensors

Beside robot_lora.safetensors lie robot_lora.json, each layer's routing and error, and robot_lora.png: for every prompt
the picture of the base, of the adapter, of its frozen stand-in, and four times the difference of the last two. An
adapter with static routing needs no prompt and loses nothing by freezing.

The spread of the routing is the standard deviation of the experts' probabilities over all prompts and steps, and in
brackets from step to step alone, as means over layers. At 0 the mixture never changes, and freezing loses nothing.
"""
Parts = dict[str, LilyAdapter]  # by component
MAGNIFIED = 4  # times, so that small differences can be seen


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", type=Path, help="a Lily .safetensors file")
    add("--output", type=Path, required=True, metavar="FILE", help="the .safetensors file to write")
    add("--format", default="diffusers", help=f"one of {', '.join(FORMATS)} (default: diffusers)")
    add("--prompt", action="append", default=[], metavar="TEXT", help="to watch the routers on; may be repeated")
    add(
        "--model",
        metavar="NAME",
        help="the base: 'embedded', a pipeline's folder, or a hub id (default: what the file names, if that is "
        "embedded or a folder here)",
    )
    add("--method", choices=METHODS, default=METHODS[0], help="least squares, or the mean mixture (default: fit)")
    add("--rank", type=int, help="at most this rank, by singular value decomposition (default: the adapter's own)")
    add("--max_error", type=float, help="instead of --rank: the relative error that a layer may lose by it")
    add("--steps", type=int, default=25, help="denoising steps (default: 25)")
    add("--guidance_scale", type=float, help="(default: the model's own; 3 for embedded)")
    add("--seed", type=int, default=0, help="of the first prompt, the next ones count up (default: 0)")
    add("--device", help="such as cuda or cpu (default: cuda if there is one)")


def run(args: argparse.Namespace) -> int:
    """Bake one file, write it with its report and picture, and say what is lost."""
    _check(args)
    header = read_lily_header(args.file)
    if args.format != "lily":
        check_format(args.format, header.component, {part.component: part for part in header.further})
    sheet = None
    if all(part.config.routing == "static" for part in header.parts):
        frozen, report, model = _taken_over(args, header)
    else:
        frozen, report, sheet, model = _baked(args, header)
    words, facts = header.trigger_words, {"lily_baked": json.dumps({k: v for k, v in report.items() if k != "layers"})}
    base = (header.component, header.model_class, header.base_model)
    further = {part.component: (frozen[part.component], part.model_class) for part in header.further}
    write_adapter(frozen[header.component], args.output, args.format, *base, words, facts, model, further)
    text = json.dumps(report, indent=1) + "\n"
    atomically(args.output.with_suffix(".json"), lambda temporary: temporary.write_text(text))
    if sheet is not None:
        atomically(args.output.with_suffix(".png"), lambda temporary: sheet.save(temporary, "PNG"))
    _say(args, frozen, report)
    return 0


def _check(args: argparse.Namespace) -> None:
    """All that can be wrong with the arguments by themselves."""
    if not args.file.exists():
        raise ValueError(f"there is no file {args.file}.")
    check_output(args.output, args.format)
    for suffix in (".json", ".png"):
        check_writable(args.output.with_suffix(suffix))
    if args.output.resolve() == args.file.resolve():
        raise ValueError("--output is the file itself; choose another name.")
    if args.rank is not None and args.max_error is not None:
        raise ValueError("give --rank or --max_error, not both.")
    if args.rank is not None and args.rank < 1:
        raise ValueError(f"--rank must be 1 or more, not {args.rank}.")
    if args.max_error is not None and not 0 <= args.max_error < 1:
        raise ValueError(f"--max_error must be at least 0 and below 1, not {args.max_error}.")
    check_drawing(args, len(args.prompt))


def _taken_over(args: argparse.Namespace, header: LilyHeader) -> tuple[Parts, dict[str, Any], Any]:
    """A static adapter as it is, its report, and the UNet that kohya's names need."""
    model = None
    if args.format == "kohya":
        named = open_shapes(args.model) if args.model else None
        model = unet_for_kohya(named, header.base_model, header.component, header.groups)
    adapters = build_adapters(*read_file(args.file), args.file.name)
    report: dict[str, Any] = {"method": "exact", "error": 0.0, "layers": {}}
    return _reduced({c: freeze(adapter, {}) for c, adapter in adapters.items()}, args, report), report, model


def _baked(args: argparse.Namespace, header: LilyHeader) -> tuple[Parts, dict[str, Any], Image.Image, Any]:
    """The stand-in of a routed adapter, its report, the sheet of pictures, and the model that drew them."""
    if not args.prompt:
        raise ValueError("this adapter chooses its experts by the input: give at least one --prompt to watch it on.")
    name = args.model or base_at_hand(header.base_model)
    if name is None:
        base = f"says {header.base_model!r}, which is no folder here" if header.base_model else "does not say"
        raise ValueError(
            f"the adapter has to be run on its base, and the file {base}: name it with --model, a pipeline's folder or "
            "a hub id."
        )
    pipe = open_pipeline(name, args.device)
    load_lily_weights(pipe, args.file, "adapter")
    guidance = default_guidance(pipe, name) if args.guidance_scale is None else args.guidance_scale
    call = {**call_options(name), "num_inference_steps": args.steps, "guidance_scale": guidance}
    baked = bake_lily(pipe, args.prompt, "adapter", method=args.method, seed=args.seed, **call)
    report = {**baked.report, "seed": args.seed, **call}
    frozen = _reduced({c: adapter.cpu() for c, adapter in baked.parts.items()}, args, report)
    report["distance"], rows = compare(pipe, args.prompt, frozen, "adapter", seed=args.seed, **call)
    unload_lily_weights(pipe)
    rows = [[*row, _difference(row[1], row[2])] for row in rows]
    sheet = labelled_grid(rows, args.prompt, ["base", "adapter", "frozen", f"difference x {MAGNIFIED}"])
    models = parts(pipe)
    written = {c: as_in_files(adapter.cpu(), models[c]) for c, adapter in frozen.items()}
    return written, report, sheet, denoiser(pipe)[1]


def _difference(a: Image.Image, b: Image.Image) -> Image.Image:
    return ImageChops.difference(a.convert("RGB"), b.convert("RGB")).point(lambda value: min(MAGNIFIED * value, 255))


def _reduced(frozen: Parts, args: argparse.Namespace, report: dict[str, Any]) -> Parts:
    """The adapter at the rank that was asked for; the report's "error" stays that of freezing alone."""
    if args.rank is None and args.max_error is None:
        return frozen
    reduced = {c: reduce_rank(adapter, args.rank, args.max_error) for c, adapter in frozen.items()}
    smaller = {c: adapter for c, (adapter, _) in reduced.items()}
    errors = {f"{c}.{layer}": error for c, (_, own) in reduced.items() for layer, error in own.items()}
    report["rank_reduction"] = {
        "rank": max(adapter.config.r for adapter in smaller.values()),
        "error": round(fmean(errors.values()), 5),
        "largest_error": round(largest_error(errors)[1], 5),
    }
    return smaller


def _say(args: argparse.Namespace, frozen: Parts, report: dict[str, Any]) -> None:
    size, before = args.output.stat().st_size / 1e6, args.file.stat().st_size / 1e6
    rank, layers = max(a.config.r for a in frozen.values()), sum(len(a.layers) for a in frozen.values())
    print(f"{args.output}: rank {rank}, {layers} layers, {size:.2f} MB ({before:.2f} MB before)")
    lost = f"{report['error']:.3f} by freezing"
    if "rank_reduction" in report:
        own = report["rank_reduction"]
        lost += f", and {own['error']:.3f} by the smaller rank (at most {own['largest_error']:.3f} in a layer)"
    print(f"relative error of the updates, mean over layers: {lost}")
    if "spread" in report:
        print(f"spread of the routing: {report['spread']:.3f} ({report['spread_by_step']:.3f} from step to step)")
    if "distance" in report:
        far = report["distance"]
        print(
            f"distance of the pictures from the adapter's: {far['frozen']:.3f}, where the base's is {far['base']:.3f}"
        )
        print(f"{args.output.with_suffix('.png')} shows them")
