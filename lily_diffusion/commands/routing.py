"""The part of lily-diffusion inspect that needs a model: run it on prompts, and tell what the routers chose."""

from __future__ import annotations

import argparse
import inspect
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from ..adapter import LilyAdapter
from ..base_model import call_options
from ..components import denoiser, one_name
from ..heat_map import Layer, Panel, places_of, routing_map
from ..inspection import LayerRouting, RoutingRecorder, record_routing, routing_by_step
from ..loaders import load_lily_weights
from ..pipelines import default_guidance, open_pipeline

NAME = "inspected"  # the adapter's, while it is on the model
MAX_PANELS = 3  # more prompts are drawn as their mean


class Watched(NamedTuple):
    """What the routers did in one call of the pipeline."""

    prompt: str
    steps: int  # rounds of the denoising loop; a few schedulers take more than they are asked for
    calls_per_step: int
    layers: dict[str, LayerRouting]  # in the order in which the model ran them
    unconditional: dict[str, LayerRouting] | None  # the other side of the guidance, where one batch holds both


def watch(args: argparse.Namespace) -> list[Watched]:
    """Put the file's adapter on the model, and listen while it draws each prompt (to latents only).

    Raises:
        ValueError: the model cannot be loaded, takes no prompt, or is another base than the adapter's.
    """
    pipe = open_pipeline(args.model, args.device)
    if args.guidance_scale is None:
        args.guidance_scale = default_guidance(pipe, args.model)
    load_lily_weights(pipe, args.file, NAME)
    component, model = denoiser(pipe)
    if component not in one_name(pipe, NAME)[1]:
        raise ValueError("only the denoiser's routers are listened to, and the file has no part for it.")
    accepted = inspect.signature(pipe.__call__).parameters
    if "prompt" not in accepted:
        raise ValueError(f"a {type(pipe).__name__} takes no prompt, so there is nothing to run it on.")
    options = {
        **call_options(args.model),
        "num_inference_steps": args.steps,
        "guidance_scale": args.guidance_scale,
        "output_type": "latent",
        "callback_on_step_end": None,
    }
    options = {name: value for name, value in options.items() if name in accepted}
    watched = []
    with tqdm(total=args.steps * len(args.prompt), unit="step", desc="listening") as progress:
        for prompt in args.prompt:
            with record_routing(model, NAME) as recorder:
                steps = _draw(pipe, prompt, options, args.seed, progress) or args.steps
            guided = bool(getattr(pipe, "do_classifier_free_guidance", args.guidance_scale > 1))
            watched.append(_sorted_out(recorder, prompt, steps, guided))
    return watched


def _draw(pipe: Any, prompt: str, options: dict[str, Any], seed: int, progress: tqdm) -> int:
    """Run the pipeline and return the rounds of its denoising loop, 0 where it does not tell."""
    steps = 0

    def step_end(pipe, step, timestep, tensors):
        nonlocal steps
        steps += 1
        progress.update()
        return tensors

    if "callback_on_step_end" in options:
        options = {**options, "callback_on_step_end": step_end}
    pipe(prompt=prompt, generator=torch.Generator("cpu").manual_seed(seed), **options)
    return steps


def _sorted_out(recorder: RoutingRecorder, prompt: str, steps: int, guided: bool) -> Watched:
    if not recorder.layers:
        raise ValueError("the pipeline ran none of the adapter's layers.")
    calls, samples, _ = recorder.calls(recorder.layers[0]).shape
    halves = guided and samples % 2 == 0
    layers = routing_by_step(recorder, steps, 1 if halves else None)
    return Watched(prompt, steps, calls // steps, layers, routing_by_step(recorder, steps, 0) if halves else None)


def mixtures(watched: Sequence[Watched]) -> dict[str, Tensor]:
    """Layer -> mean probabilities of its experts over all steps and prompts: (num_B,)."""
    return {layer: _usage(watched, layer).mean((0, 1)) for layer in watched[0].layers}


def routing_facts(adapter: LilyAdapter, watched: Sequence[Watched]) -> dict[str, Any]:
    """Everything for programs: by group (a list in the order of the adapter's), and by prompt, layer and step."""
    return {
        "steps": watched[0].steps,
        "calls_per_step": watched[0].calls_per_step,
        "side": "all calls" if watched[0].unconditional is None else "conditional",
        "groups": [_group_facts(watched, group.layers) for group in adapter.groups],
        "prompts": [_prompt_facts(seen) for seen in watched],
    }


def figures(values: Iterable[float]) -> dict[str, float]:
    """Median, least and most."""
    values = list(values)
    return {"median": median(values), "min": min(values), "max": max(values)}


def _usage(watched: Sequence[Watched], layer: str) -> Tensor:
    """(prompts, steps, num_B)"""
    return torch.stack([seen.layers[layer].usage for seen in watched])


def _group_facts(watched: Sequence[Watched], names: Sequence[str]) -> dict[str, Any] | None:
    """Means over layers, prompts and steps; `differs_by` has the standard deviations of the probabilities."""
    names = [name for name in names if name in watched[0].layers]
    if not names:
        return None
    usage = torch.stack([_usage(watched, name) for name in names])  # (layers, prompts, steps, num_B)
    entropy = torch.stack([torch.stack([seen.layers[name].entropy for seen in watched]) for name in names])
    return {
        "usage": usage.mean((0, 1, 2)).tolist(),
        "entropy": figures(entropy.mean((1, 2)).tolist()),
        "differs_by": {
            "step": usage.std(2, correction=0).mean().item(),
            "prompt": usage.mean(2).std(1, correction=0).mean().item(),
            "layer": usage.mean((1, 2)).std(0, correction=0).mean().item(),
        },
    }


def _prompt_facts(seen: Watched) -> dict[str, Any]:
    other = seen.unconditional
    layers = {
        layer: {
            "usage": routing.usage.mean(0).tolist(),
            "entropy": routing.entropy.mean().item(),
            "usage_by_step": routing.usage.tolist(),
            "entropy_by_step": routing.entropy.tolist(),
            "unconditional_usage": None if other is None else other[layer].usage.mean(0).tolist(),
            "unconditional_entropy": None if other is None else other[layer].entropy.mean().item(),
        }
        for layer, routing in seen.layers.items()
    }
    return {
        "prompt": seen.prompt,
        "entropy_by_step": torch.stack([r.entropy for r in seen.layers.values()]).mean(0).tolist(),
        "unconditional_entropy_by_step": None
        if other is None
        else torch.stack([r.entropy for r in other.values()]).mean(0).tolist(),
        "layers": layers,
    }


def prompt_rows(facts: dict[str, Any]) -> list[list[str]]:
    """A table: entropy, the mean of all layers, of each prompt over all steps and at up to six of them."""
    last = facts["steps"] - 1
    shown = sorted({round(last * i / 5) for i in range(6)})
    head = ["entropy, mean of all layers", "all steps", *(f"step {step + 1}" for step in shown)]
    rows = [(f'"{seen["prompt"]}"', seen["entropy_by_step"]) for seen in facts["prompts"]]
    others = [seen["unconditional_entropy_by_step"] for seen in facts["prompts"]]
    if others[0] is not None:
        rows.append(("the unconditional side", [fmean(values) for values in zip(*others, strict=True)]))
    cells = [[name, f"{fmean(values):.2f}", *(f"{values[step]:.2f}" for step in shown)] for name, values in rows]
    return [head, *cells]


def save_picture(path: Path, adapter: LilyAdapter, watched: Sequence[Watched], title: str, note: str) -> None:
    """Draw the heat maps, one a prompt (of many prompts their mean), write beside `path` and rename."""
    panels = [_panel(f'"{seen.prompt}"', adapter, [seen]) for seen in watched]
    if len(watched) > MAX_PANELS:
        panels = [_panel(f"the mean of {len(watched)} prompts", adapter, watched)]
    picture = routing_map(panels, title=title, note=note)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.writing")
    try:
        picture.save(temporary, format="PNG", optimize=True)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _panel(caption: str, adapter: LilyAdapter, watched: Sequence[Watched]) -> Panel:
    groups = {layer: (group, number) for number, group in enumerate(adapter.groups) for layer in group.layers}
    names = list(watched[0].layers)
    places = places_of({name: groups[name][0].projection for name in names})
    layers, entropies = [], []
    for name in names:
        group, number = groups[name]
        entropy = torch.stack([seen.layers[name].entropy for seen in watched]).mean(0)
        usage = _usage(watched, name).mean(0)
        entropies.append(entropy.mean().item())
        layers.append(
            Layer(group.projection, *places[name], f"{number} {group.name}", usage.tolist(), entropy.tolist())
        )
    return Panel(f"{caption}: mean entropy {fmean(entropies):.2f}", layers)
