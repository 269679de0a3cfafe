"""What a run tells: the block before training, scalars and pictures for the trackers, and the words at the end."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..inspection import RoutingRecorder, expert_similarity
from ..save_and_load import WEIGHT_NAME
from ..sharing import group_table
from .build import Run
from .model_card import usage

TRACKER_NAME = "dreambooth-lily"
LINKS = ("a", "an", "the", "on", "in", "at", "of", "with", "and", "by", "under", "near")  # no end of a trigger phrase
SMOOTHING = 0.95  # share of the old value in the smoothed loss


def opening(run: Run) -> str:
    """The readable block before training."""
    args, accelerator = run.args, run.accelerator
    pictures, classes = len(run.instances.pictures), len(run.classes.pictures) if run.classes else 0
    captions = {item.caption for item in run.instances.pictures.items}
    caption = repr(min(captions)) if len(captions) == 1 else f"{len(captions)} different ones, first {min(captions)!r}"
    facts = {
        "Base model": f"{args.pretrained_model_name_or_path} ({run.family.objective}, {accelerator.device})",
        "Pictures": f"{pictures} at {args.resolution} pixels" + f", and {classes} of the class" * bool(classes),
        "Captions": caption,
        "Batch": f"{args.train_batch_size} x {args.gradient_accumulation_steps} accumulated x "
        f"{accelerator.num_processes} processes = {run.samples_in_step}",
        "Steps": f"{run.max_train_steps}, that is {run.max_train_steps * run.samples_in_step / pictures:.1f} times "
        f"every picture; {run.progress.step} done",
        "Learning rate": f"{run.lr_scheduler.get_last_lr()[0]:g}, {args.lr_scheduler}",
        "Precision": f"{accelerator.mixed_precision} for the base, float32 for the adapter",
        "Seed": str(run.progress.seed),
        "Trained": f"{run.adapter.num_parameters():,} parameters, scaling {run.adapter.config.scaling:g}",
    }
    lines = [f"  {name:<14}{value}" for name, value in facts.items()]
    table = group_table(run.adapter).splitlines()
    notes = [f"  note: {note}" for note in run.notes]
    return "\n".join(["***** Running training *****", *lines, "", *(f"  {line}" for line in table), *notes])


def closing(run: Run, weights: Path, seconds: float, prompt: str) -> str:
    """What was saved where, how long it took, and the lines that use it."""
    size = weights.stat().st_size / 1024
    took = time.strftime("%H:%M:%S", time.gmtime(seconds))
    lines = [f"***** Done: {run.progress.step} steps in {took} *****", f"  Adapter  {weights} ({size:,.0f} kB)"]
    for label, name in (("Card", "README.md"), ("Samples", "samples"), ("Logs", run.args.logging_dir)):
        if (run.output_dir / name).exists():
            lines.append(f"  {label:<8} {run.output_dir / name}")
    code = usage(run.args.pretrained_model_name_or_path, str(run.output_dir), prompt)
    return "\n".join([*lines, "", "Use it:", "", *(f"    {line}" for line in code.splitlines()), ""])


def how_to_resume(run: Run, checkpoint: Path) -> str:
    return (
        f"Stopped after step {run.progress.step} of {run.max_train_steps}. The adapter is in "
        f"{run.output_dir / WEIGHT_NAME}, the checkpoint in {checkpoint}. To go on, give the same command with "
        "--resume_from_checkpoint latest"
    )


def training_facts(run: Run) -> dict[str, Any]:
    """What the card and the file's header say about the training."""
    args, config = run.args, run.adapter.config
    facts = {
        "steps": run.progress.step,
        "pictures": len(run.instances.pictures),
        "class pictures": len(run.classes.pictures) if run.classes else None,
        "resolution": args.resolution,
        "batch size": run.samples_in_step,
        "learning rate": f"{args.learning_rate:g} ({args.lr_scheduler})",
        "min-SNR gamma": args.snr_gamma,
        "precision": run.accelerator.mixed_precision,
        "seed": run.progress.seed,
        "rank": config.r,
        "stride_A": config.stride_A,
        "num_B": config.num_B,
        "scaling": config.scaling,
        "routing": config.routing,
        "parameters": f"{run.adapter.num_parameters():,}",
        "smoothed loss": f"{run.progress.smoothed_loss:.4f}" if run.progress.smoothed_loss is not None else None,
    }
    return {name: value for name, value in facts.items() if value is not None}


def saving_facts(run: Run) -> dict[str, Any]:
    """The arguments for `save_lily_weights`: trigger words, base, and the header's training facts."""
    edge = run.args.resolution
    facts = {f"training.{name.replace(' ', '_')}": str(value) for name, value in training_facts(run).items()}
    return {
        "trigger_words": trigger_words(run),
        "base_model": run.args.pretrained_model_name_or_path,
        "metadata": {"modelspec.title": title(run), "modelspec.resolution": f"{edge}x{edge}", **facts},
        "dtype": torch.float32,
    }


def trigger_words(run: Run) -> tuple[str, ...]:
    """The instance prompt; without one, the words with which all captions begin, or else the first caption."""
    if run.args.instance_prompt:
        return (run.args.instance_prompt,)
    captions = list(dict.fromkeys(item.caption for item in run.instances.pictures.items))
    if len(captions) == 1:
        return (captions[0],)
    columns = zip(*(caption.split() for caption in captions), strict=False)
    shared = [column[0] for column in itertools.takewhile(lambda words: len(set(words)) == 1, columns)]
    while shared and shared[-1].lower() in LINKS:
        shared.pop()
    return (" ".join(shared) or captions[0],)


def title(run: Run) -> str:
    return f"{run.output_dir.resolve().name}: a Lily adapter"


def start_trackers(run: Run) -> None:
    if run.args.report_to == "none":
        return
    shown = {name: value for name, value in vars(run.args).items() if name != "hub_token"}
    plain = {name: v if isinstance(v, (int, float, str, bool)) else str(v) for name, v in shown.items()}
    run.accelerator.init_trackers(TRACKER_NAME, config=plain)


def router_scalars(run: Run, recorder: RoutingRecorder | None) -> dict[str, float]:
    """Mean router entropy (1: all experts alike) and mean cosine between experts; empty when nothing was recorded."""
    entropy = list(recorder.entropy().values()) if recorder is not None else []
    if not entropy:
        return {}
    similarity = list(expert_similarity(run.adapter).values())
    return {"router_entropy": float(np.mean(entropy)), "expert_similarity": float(np.mean(similarity))}


def track_picture(run: Run, path: Path) -> None:
    """Hand a validation sheet to the trackers."""
    with Image.open(path) as opened:
        picture = np.asarray(opened.convert("RGB"))
    for tracker in run.accelerator.trackers:
        if tracker.name == "tensorboard":
            tracker.writer.add_image("validation", picture, run.progress.step, dataformats="HWC")
        elif tracker.name == "wandb":
            import wandb

            tracker.log({"validation": wandb.Image(picture)}, step=run.progress.step)


def smoothed(before: float | None, loss: float) -> float:
    return loss if before is None else SMOOTHING * before + (1 - SMOOTHING) * loss
