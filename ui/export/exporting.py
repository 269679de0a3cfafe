"""Baking a blend of adapters into one file, and measuring what is lost by it on prompts that it was not made from."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from PIL import Image

from lily_diffusion.adapter import LilyAdapter
from lily_diffusion.adapter_weight import parse
from lily_diffusion.baking import Baked, Statistics, bake_lily, calibrate, distance, draw, only
from lily_diffusion.base_model import call_options
from lily_diffusion.components import adapters_of, parts
from lily_diffusion.frozen import factors, is_frozen
from lily_diffusion.grid import labelled_grid
from lily_diffusion.interchange.lora import check_format
from ui.export import baked_file
from ui.export.baked_file import FORMATS
from ui.keeping.recipe import MAX_PROMPT, SUM, Recipe, clean_text
from ui.messages import Order
from ui.pipeline import drawing
from ui.pipeline.adapter_folder import AdapterFile
from ui.pipeline.jobs import MAGNIFIED, Job, Progress, difference, seeded
from ui.pipeline.merging import Parts, merge, standing_in
from ui.pipeline.orders import SessionError

MAX_PROMPTS = 16  # to watch the routers on, and as many to measure with
MAX_RANK = 1024
AT_ONCE = 4  # pictures, see `lily_diffusion.baking.draw`
OTHER_SEEDS = 1000  # measured pictures get seeds this much higher


@dataclass(frozen=True)
class Wish:
    """What is to be made. ``rank`` 0 leaves the ranks as they are; ``held_out`` empty measures on ``prompts``."""

    name: str
    format: str
    prompts: tuple[str, ...]
    held_out: tuple[str, ...]
    rank: int = 0


@dataclass(frozen=True)
class Exported:
    """The new file, the saved sheet of pictures (None: nothing was measured), and what was lost, in words."""

    name: str
    path: Path
    sheet: Path | None
    sentences: tuple[str, ...]


def lines(text: str) -> tuple[str, ...]:
    """The prompts in a box, one a line."""
    return tuple(
        dict.fromkeys(line.strip() for line in clean_text(text, MAX_PROMPTS * MAX_PROMPT).splitlines() if line.strip())
    )


def check(job: Job, order: Order, wish: Wish) -> list[AdapterFile]:
    """Return the files that are to be baked; raises SessionError for all that can be wrong before anything is drawn."""
    if wish.format not in FORMATS:
        raise SessionError("Choose one of the formats in the list.")
    if not isinstance(wish.rank, int) or not 0 <= wish.rank <= MAX_RANK:
        raise SessionError(f"The rank must be a whole number from 0 (as it is) to {MAX_RANK}.")
    for prompts in (wish.prompts, wish.held_out):
        if len(prompts) > MAX_PROMPTS or any(len(prompt) > MAX_PROMPT for prompt in prompts):
            raise SessionError(f"Give at most {MAX_PROMPTS} prompts, each of at most {MAX_PROMPT} characters.")
    files = [job.session.adapters.get(name) for name, weight in (order.weights or {}).items() if weight]
    if not files:
        raise SessionError("Choose the adapter or the blend that is to be written.")
    for file in files:
        if file.header is None or (reason := job.session.reason(file)):
            raise SessionError(f"The adapter '{file.name}' cannot be used: {file.problem or reason}")
        if parse((order.weights or {})[file.id]).is_stepped:
            raise SessionError(
                f"The weight of '{file.name}' changes over the steps, which no file can hold. Give it one weight."
            )
        if wish.format != "lily":
            further = {part.component: part for part in file.header.further}
            check_format(FORMATS[wish.format], file.header.component, further)
    routed = any(part.config.routing != "static" for file in files if file.header for part in file.header.parts)
    if routed and not wish.prompts:
        raise SessionError("Give at least one prompt, with the trigger words in it, to watch the routers on.")
    return files


def export(job: Job, order: Order, wish: Wish) -> None:
    """Bake, measure, write, and tell `Exported`. Nothing is written when it is stopped.

    Raises:
        SessionError, AdapterFolderError: the order or the wish cannot be met.
    """
    order = seeded(order)
    files = check(job, order, wish)
    measured = wish.held_out or wish.prompts
    order = replace(order, prompt=next(iter(measured), ""))
    with job.session.using(replace(order, blend=SUM)) as (pipe, recipe):
        call = _Calls(job, pipe, order, len(files), len(wish.prompts), len(measured))
        baked = {file.id: _bake(pipe, wish, file.id, order.seed, call) for file in files}
        frozen = {name: one.parts for name, one in baked.items()}
        whole, errors = merge(frozen, order.weights or {}, *(("svd", wish.rank) if wish.rank else ()))
        rows: list[list[Image.Image]] = []
        sentences: tuple[str, ...] = ()
        if measured:
            rows, sentences = measure(pipe, measured, baked, whole, order.seed + OTHER_SEEDS, call, bool(wish.held_out))
        written = baked_file.in_files(whole, parts(pipe))
    sentences = (*sentences, *_lost(baked, errors), *_other(order.blend))
    path = baked_file.write(job.session.adapters.root, wish.name, wish.format, written, files, sentences)
    sheet = _sheet(rows, measured, job, replace(recipe, seed=order.seed + OTHER_SEEDS)) if rows else None
    job.tell(Exported(path.stem, path, sheet, sentences))


def measure(
    pipe: Any,
    prompts: Sequence[str],
    baked: Mapping[str, Baked],
    whole: Parts,
    seed: int,
    call: _Calls,
    held_out: bool,
) -> tuple[list[list[Image.Image]], tuple[str, ...]]:
    """Draw each prompt with the base alone, the blend (as it is active now), and its baked stand-in.

    Returns:
        (rows of [base, blend, baked, magnified difference], what they show in words)
    """
    adapters = adapters_of(pipe)
    with only(pipe, {}):
        base = draw(pipe, prompts, seed, **call.arguments)
    with ExitStack() as stack:
        seen = {
            (name, component): (part, stack.enter_context(calibrate(part)))
            for name in baked
            for component, part in adapters[name].items()
            if not is_frozen(part)
        }
        blended = draw(pipe, prompts, seed, **call.arguments)
    with standing_in(pipe, whole):
        stand_in = draw(pipe, prompts, seed, **call.arguments)
    off = [error for (name, c), (part, s) in seen.items() for error in update_errors(part, baked[name].parts[c], s)]
    where = "prompts that it was not baked on" if held_out else "the same prompts with other seeds"
    far, yardstick = distance(stand_in, blended), distance(base, blended)
    words = [f"On {where}, the baked pictures are {far:.1%} of the brightness range away from the adapters' own"]
    words[0] += f", where the base model's are {yardstick:.1%} away." if yardstick else "."
    if off:
        words.append(f"There the relative error of the updates is {fmean(off):.1%}, as a mean over layers.")
    rows = [[*row, difference(row[1], row[2])] for row in zip(base, blended, stand_in, strict=True)]
    return rows, tuple(words)


@torch.no_grad()
def update_errors(adapter: LilyAdapter, frozen: LilyAdapter, statistics: Statistics) -> list[float]:
    """Of each layer ``|h M - y| / |y|`` over what it was asked, where M is the frozen stand-in's matrix."""
    errors = []
    for layer, seen in statistics.items():
        r = len(adapter.tensors(layer)[0])
        M = factors(frozen, layer)[1].T[:r].double().cpu() / adapter.config.scaling  # (r, out), on the adapter's own h
        answer = torch.einsum("ers,eso->ro", seen.moments, adapter.tensors(layer)[1].double().cpu())
        off = (M * (seen.moments.sum(0) @ M)).sum() - 2 * (M * answer).sum() + seen.energy
        errors.append(float((off.clamp_min(0) / seen.energy).sqrt()) if seen.energy > 0 else 0.0)
    return errors


class _Calls:
    """What every call of the pipeline is given, and the progress over all of them."""

    def __init__(self, job: Job, pipe: Any, order: Order, baked: int, prompts: int, measured: int) -> None:
        batches = baked * -(-prompts // AT_ONCE) + 3 * -(-measured // AT_ONCE)
        self.job, self.steps, self.seen = job, max(1, batches * order.steps), 0
        wanted = {
            **call_options(job.session.base.label),
            "num_inference_steps": order.steps,
            "guidance_scale": order.guidance_scale,
            "width": order.width,
            "height": order.height,
            "callback_on_step_end": self._step,
        }
        known = inspect.signature(pipe.__call__).parameters
        self.arguments: dict[str, Any] = {name: value for name, value in wanted.items() if name in known}

    def _step(self, pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        self.job.check()
        self.seen += 1
        share = min(1.0, self.seen / self.steps)
        self.job.tell(Progress(share, f"Watching, baking and measuring: {share:.0%}"))
        return tensors


def _bake(pipe: Any, wish: Wish, name: str, seed: int, call: _Calls) -> Baked:
    return bake_lily(pipe, list(wish.prompts), name, seed=seed, **call.arguments)


def _lost(baked: Mapping[str, Baked], worst: float) -> list[str]:
    found = []
    if all(one.report["method"] == "exact" for one in baked.values()):
        found.append("The routing was static already, so nothing is lost by baking.")
    if worst:
        found.append(f"The smaller rank costs a layer's update at most {worst:.1%}.")
    return found


def _other(kind: str) -> list[str]:
    return [] if kind == SUM else [f"The file has the sum of the adapters; '{kind}' is for pictures on this page."]


def _sheet(rows: list[list[Image.Image]], prompts: Sequence[str], job: Job, recipe: Recipe) -> Path:
    heads = ["base model", "adapters", "baked", f"difference x {MAGNIFIED}"]
    return drawing.save(labelled_grid(rows, list(prompts), heads), recipe, job.session.output_dir)
