"""lily-diffusion inspect: what a Lily file holds, how large its updates are, and with a model what its routers do."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..adapter import LilyAdapter
from ..header import METADATA_KEY, LilyHeader, LilyPart
from ..inspection import Spectrum, group_facts, spectra
from ..save_and_load import build_adapters, read_file, read_lily_header
from ..sharing import group_table
from .drawing import check_drawing
from .output import printable
from .routing import figures, mixtures, prompt_rows, routing_facts, save_picture, watch

EXAMPLES = """\
examples:
  lily-diffusion inspect robot.safetensors                 what it is made of, for which base, how large its updates are
  lily-diffusion inspect robot.safetensors --layers        every layer by itself
  lily-diffusion inspect robot.safetensors --json          everything, for programs
  lily-diffusion inspect robot.safetensors --header_only   what the header says, at once

  # with a model: which experts the routers choose for a prompt, as tables and as a picture
  lily-diffusion inspect robot.safetensors --model embedded --prompt "a sks robot on a red background" \\
    --picture routing.png

docs/inspect.md says how to read the tables and the picture.
"""
UPDATE = {
    "static": "the update matrix of each layer; routing is static, so it is exact",
    "equal": "the update matrix of each layer with all experts counted equally (each input has a mixture of its own)",
    "prompts": "the update matrix of each layer with the experts mixed as they were for the prompts, on average",
}
RANGES = "Where the layers of a group differ, the line has their median (least..most)."
DIFFERS = "Means over layers, steps and prompts; 'differs by' is the standard deviation in percentage points."
DIGITS = {"norm": 3, "effective_rank": 1, "rank_90": 0, "rank_99": 0}  # after the point


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", type=Path, help="a Lily .safetensors file")
    add("--json", action="store_true", help="print JSON, with everything in it")
    add("--layers", action="store_true", help="a line for every layer, not only for every group")
    add("--header_only", action="store_true", help="read the header alone: instant for any size, no norms and ranks")
    add("--model", metavar="NAME", help="run 'embedded', a pipeline's folder or a hub id, and listen to the routers")
    add("--prompt", action="append", metavar="TEXT", help="what to run it on; may be repeated")
    add("--steps", type=int, default=25, help="denoising steps (default: 25)")
    add(
        "--guidance_scale",
        type=float,
        help="how closely the prompt is followed (default: the model's own; 3 for embedded)",
    )
    add("--seed", type=int, default=0, help="of the noise, the same for every prompt (default: 0)")
    add("--device", help="such as cuda or cpu (default: cuda if there is one)")
    add("--picture", type=Path, metavar="FILE.png", help="draw which experts count in which layer at which step")


def run(args: argparse.Namespace) -> int:
    """Print what a Lily file is, and with a model what its routers do."""
    if not args.file.exists():
        raise ValueError(f"there is no file {args.file}.")
    _check(args)
    header = read_lily_header(args.file)
    facts = header_facts(args.file, header)
    if not args.header_only:
        adapters = build_adapters(*read_file(args.file), args.file.name)
        adapter = adapters[header.component]
        for part in facts.get("further_parts", ()):
            part |= tensor_facts(adapters[part["component"]], None)
        watched = watch(args) if args.model else None
        mixed = mixtures(watched) if watched and adapter.config.routing != "static" else None
        facts |= tensor_facts(adapter, mixed)
        if watched:
            settings = {name: getattr(args, name) for name in ("model", "guidance_scale", "seed")}
            facts["routing"] = {**settings, **routing_facts(adapter, watched)}
        if watched and args.picture:
            note = f"{args.file.name} on {Path(args.model).name}: {_settings(facts['routing'])}"
            save_picture(args.picture, adapter, watched, "Which experts the routers choose, and how decidedly", note)
            facts["picture"] = str(args.picture)
    if args.json:
        print(json.dumps(facts, indent=2))
        return 0
    print(printable("\n".join(_text(facts, header, args.layers))))
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.header_only and (args.layers or args.model):
        raise ValueError("--header_only reads no tensors, so it goes without --layers and --model.")
    if args.prompt and not args.model:
        raise ValueError("--prompt needs a model to run it on: add --model embedded, a pipeline's folder or a hub id.")
    if args.model and not args.prompt:
        raise ValueError("--model needs at least one --prompt to run the model on.")
    if args.picture and not args.model:
        raise ValueError("--picture shows what the routers do, which needs --model and --prompt.")
    if args.picture and args.picture.suffix != ".png":
        raise ValueError(f"--picture must name a .png file, not {args.picture}.")
    check_drawing(args)


def header_facts(file: Path, header: LilyHeader) -> dict[str, Any]:
    """What the header tells, and what a LoRA on the same layers would need."""
    metadata = {key: text for key, text in sorted(header.metadata.items()) if key != METADATA_KEY}
    lora = lora_parameters(header)
    return {
        "file": str(file),
        "bytes": file.stat().st_size,
        "base_model": header.base_model,
        "model_class": header.model_class,
        "trigger_words": list(header.trigger_words),
        "config": header.config.to_dict(),
        "num_parameters": header.num_parameters,
        "parameter_bytes": header.num_parameters * getattr(torch, header.dtype).itemsize,
        "dtype": header.dtype,
        "lora_rank_of_same_size": round(lora_rank(header), 2),
        "lora_parameters_at_same_r": lora,
        "lora_at_same_r_is_larger": round(lora / header.num_parameters, 3),
        "content_hash": header.content_hash,
        "fingerprint": header.fingerprint,
        "groups": _groups(header),
        **({"further_parts": [_part_facts(part) for part in header.further]} if header.further else {}),
        "training": {k.removeprefix("training."): text for k, text in metadata.items() if k.startswith("training.")},
        "metadata": metadata,
    }


def _part_facts(part: LilyPart) -> dict[str, Any]:
    """What the header tells of the part for a text encoder."""
    return {
        "component": part.component,
        "model_class": part.model_class,
        "config": part.config.to_dict(),
        "num_parameters": part.num_parameters,
        "fingerprint": part.fingerprint,
        "groups": _groups(part),
    }


def _groups(part: LilyHeader | LilyPart) -> list[dict[str, Any]]:
    return [{"name": g.name, "num_A": g.num_A, "layers": list(g.layers)} for g in part.groups]


def lora_rank(header: LilyHeader) -> float:
    """The rank at which LoRA on the same layers has as many parameters."""
    return header.num_parameters / lora_parameters(header, 1)


def lora_parameters(header: LilyHeader, r: int | None = None) -> int:
    """Parameters of a LoRA of rank r (None: of each part's own r) on the same layers: r * (in + out) a layer."""
    return sum(
        (r or part.config.r) * len(g.layers) * (g.in_features + g.out_features)
        for part in header.parts
        for g in part.groups
    )


def tensor_facts(adapter: LilyAdapter, mixed: dict[str, torch.Tensor] | None) -> dict[str, Any]:
    """What the tensors tell: of which matrix the figures are, and the figures by group and by layer."""
    found, groups, layers = spectra(adapter, mixed), [], {}
    for number, (group, shared) in enumerate(zip(adapter.groups, group_facts(adapter), strict=True)):
        for layer, a in zip(group.layers, group.A_of_layer, strict=True):
            layers[layer] = {"group": number, "A": a, **found[layer]._asdict()}
        columns = zip(*(found[layer] for layer in group.layers), strict=True)
        ranges = {name: figures(values) for name, values in zip(Spectrum._fields, columns, strict=True)}
        own = {"name": group.name, "num_A": group.num_A, "layers": list(group.layers)}
        groups.append({**own, "num_parameters": group.num_parameters(adapter.config), **shared._asdict(), **ranges})
    choice = "prompts" if mixed else "static" if adapter.config.routing == "static" else "equal"
    return {"update_of": choice, "groups": groups, "layers": layers}


def _text(facts: dict[str, Any], header: LilyHeader, by_layer: bool) -> list[str]:
    """The lines for people."""
    lines = [f"{key.replace('_', ' '):<23} {value}" for key, value in _summary(facts, header)]
    lines += ["", group_table(header), ""]
    if "update_of" in facts:
        lines += [f"Below: {UPDATE[facts['update_of']]}.", RANGES, *_table(_group_rows(facts)), ""]
    if "routing" in facts:
        routing = facts["routing"]
        lines += [f"What the routers do on {routing['model']}: {_settings(routing)}.", DIFFERS]
        lines += [*_table(_routing_rows(facts)), "", *_table(prompt_rows(routing)), ""]
    if by_layer:
        lines += [*_table(_layer_rows(facts)), ""]
    for part, shown in zip(header.further, facts.get("further_parts", ()), strict=True):
        lines += _part_text(part, shown, by_layer)
    lines += [f"{key}: {text}" for key, text in facts["metadata"].items()]
    return [*lines, f"picture: {facts['picture']}"] if "picture" in facts else lines


def _part_text(part: LilyPart, facts: dict[str, Any], by_layer: bool) -> list[str]:
    """The lines of the part for a text encoder."""
    head = f"The part for the {part.component} ({part.model_class}): {_config(facts)}"
    lines = [head, "", group_table(part), ""]
    if "update_of" in facts:
        lines += [f"Below: {UPDATE[facts['update_of']]}.", *_table(_group_rows(facts)), ""]
    return [*lines, *_table(_layer_rows(facts)), ""] if by_layer else lines


def _summary(facts: dict[str, Any], header: LilyHeader) -> list[tuple[str, Any]]:
    shown = {key: value for key, value in facts.items() if not isinstance(value, (dict, list))}
    for key in ("update_of", "picture", "lora_at_same_r_is_larger", "lora_parameters_at_same_r", "parameter_bytes"):
        shown.pop(key, None)
    share = facts["parameter_bytes"] / facts["bytes"]
    shown["bytes"] = f"{facts['bytes']:,}, of which {facts['parameter_bytes']:,} ({share:.1%}) are parameters"
    shown["num_parameters"] = f"{header.num_parameters:,}"
    shown["lora_rank_of_same_size"] = f"{lora_rank(header):.1f} (a LoRA of this rank on the same layers is as large)"
    times, count = facts["lora_at_same_r_is_larger"], facts["lora_parameters_at_same_r"]
    after = {
        "model_class": [
            ("trigger_words", ", ".join(header.trigger_words) or "none"),
            ("config", _config(facts)),
        ],
        "lora_rank_of_same_size": [("lora_of_the_same_r", f"{count:,} parameters, {times:.2f} times as many")],
    }
    return [row for key, value in shown.items() for row in [(key, value), *after.get(key, [])]]


def _config(facts: dict[str, Any]) -> str:
    return ", ".join(f"{k}={v}" for k, v in facts["config"].items() if v is not None)


def _group_rows(facts: dict[str, Any]) -> list[list[str]]:
    """Groups of one name (each layer of a LoRA is a group of its own) are taken together."""
    head = ["group", "layers", "norm", "effective rank", "rank at 90%", "at 99%", "norms of B", "B alike", "A alike"]
    rows = [head]
    for name in dict.fromkeys(group["name"] for group in facts["groups"]):
        groups = [group for group in facts["groups"] if group["name"] == name]
        layers = [facts["layers"][layer] for group in groups for layer in group["layers"]]
        update = [_spread((layer[key] for layer in layers), digits) for key, digits in DIGITS.items()]
        norms = _spread((norm for group in groups for norm in group["expert_norms"]), 3)
        alike = [_spread((g[key] for g in groups), 2) for key in ("expert_similarity", "A_similarity")]
        rows.append([name, str(len(layers)), *update, norms, *alike])
    return rows


def _routing_rows(facts: dict[str, Any]) -> list[list[str]]:
    rows = [["group", "shares of the experts (%)", "entropy", "differs by step", "prompt", "layer"]]
    for group, routing in zip(facts["groups"], facts["routing"]["groups"], strict=True):
        if routing is not None:
            differs = [f"{100 * routing['differs_by'][by]:.1f}" for by in ("step", "prompt", "layer")]
            rows.append([group["name"], _shares(routing["usage"]), _between(routing["entropy"], 2), *differs])
    return rows


def _layer_rows(facts: dict[str, Any]) -> list[list[str]]:
    prompts = facts.get("routing", {}).get("prompts", [])
    head = ["layer", "A", "norm", "effective rank", "rank at 90%", "at 99%"]
    rows = [[*head, *(f"shares (%), entropy: prompt {i + 1}" for i in range(len(prompts)))]]
    for layer, own in facts["layers"].items():
        row = [layer, str(own["A"]), *(f"{own[key]:.{digits}f}" for key, digits in DIGITS.items())]
        heard = [seen["layers"].get(layer) for seen in prompts]
        rows.append([*row, *(f"{_shares(h['usage'])}, {h['entropy']:.2f}" if h else "not run" for h in heard)])
    return rows


def _settings(routing: dict[str, Any]) -> str:
    side = ", the conditional side of the guidance" if routing["side"] == "conditional" else ""
    return f"{routing['steps']} steps, guidance {routing['guidance_scale']:g}, seed {routing['seed']}{side}"


def _shares(usage: Sequence[float]) -> str:
    return " ".join(f"{100 * share:.0f}".rjust(3) for share in usage)


def _spread(values: Iterable[float], digits: int) -> str:
    return _between(figures(values), digits)


def _between(values: dict[str, float], digits: int) -> str:
    """Median and range; the range only where it shows."""
    middle, low, high = (f"{round(value, digits) + 0.0:.{digits}f}" for value in values.values())  # no -0.00
    return low if low == high else f"{middle} ({low}..{high})"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
