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
from . import history, loss_plot
from .config_file import FILE_NAME as SETTINGS_NAME
from .model_card import CARD_NAME, usage
from .run import Run

TRACKER_NAME = "dreambooth-lily"
LINKS = ("a", "an", "the", "on", "in", "at", "of", "with", "and", "by", "under", "near")  # no end of a trigger phrase
SMOOTHING = 0.95  # share of the old value in the smoothed loss


def opening(run: Run) -> str:
    """The readable block before training."""
    lines = [f"  {name:<14}{value}" for name, value in _facts_before(run).items() if value]
    tables = []
    for part, adapter in run.adapters.items():
        tables += [f"{part}:"] * (len(run.adapters) > 1) + group_table(adapter).splitlines()
    notes = [f"  note: {note}" for note in [*run.notes, *loss_plot.plot_notes()]]
    return "\n".join(["***** Running training *****", *lines, "", *(f"  {line}" for line in tables), *notes])


def _facts_before(run: Run) -> dict[str, str]:
    args, accelerator = run.args, run.accelerator
    pictures, classes = run.instances.pictures, len(run.classes.pictures) if run.classes else 0
    captions = {item.caption for item in pictures.items}
    caption = repr(min(captions)) if len(captions) == 1 else f"{len(captions)} different ones, first {min(captions)!r}"
    rates = [f"{rate:g}" for rate in dict.fromkeys(run.lr_scheduler.get_last_lr())]
    quantised = f", kept in {args.quantize_base}" if args.quantize_base else ""
    rounds = run.max_train_steps * run.samples_in_step / len(pictures)
    return {
        "Base model": f"{args.pretrained_model_name_or_path} ({run.family.objective}, {accelerator.device})",
        "Pictures": f"{len(pictures)} at {_resolution(run)}" + f", and {classes} of the class" * bool(classes),
        "Held out": f"{len(run.held_out.samples)}, never trained on" if run.held_out else "",
        "Captions": caption,
        "Batch": f"{args.train_batch_size} x {args.gradient_accumulation_steps} accumulated x "
        f"{accelerator.num_processes} processes = {run.samples_in_step}",
        "Steps": f"{run.max_train_steps}, that is {rounds:.1f} times every picture; {run.progress.step} done",
        "Optimizer": f"{_optimizer(run)}, learning rate {' and '.join(rates)}, {args.lr_scheduler}",
        "Precision": f"{accelerator.mixed_precision} for the base{quantised}, float32 for the adapter",
        "Seed": str(run.progress.seed),
        "Trained": f"{_parameters(run):,} parameters, scaling {run.adapter.config.scaling:g}",
        "Saved": f"the average of the weights, decay {args.ema_decay:g}" if run.ema else "",
    }


def closing(run: Run, weights: Path, seconds: float, prompt: str) -> str:
    """What was saved where, how long it took, and the lines that use it."""
    size = weights.stat().st_size / 1024
    took = time.strftime("%H:%M:%S", time.gmtime(seconds))
    lines = [f"***** Done: {run.progress.step} steps in {took} *****", f"  Adapter  {weights} ({size:,.0f} kB)"]
    left = {
        "Card": CARD_NAME, "Samples": "samples", "Losses": loss_plot.FILE_NAME, "Numbers": history.FILE_NAME,
        "Settings": SETTINGS_NAME, "Logs": run.args.logging_dir,
    }  # fmt: skip
    for label, name in left.items():
        if (run.output_dir / name).exists():
            lines.append(f"  {label:<8} {run.output_dir / name}")
    args = run.args
    code = usage(args.pretrained_model_name_or_path, str(run.output_dir), prompt, args.max_sequence_length)
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
        "resolution": _resolution(run),
        "batch size": run.samples_in_step,
        "optimizer": _optimizer(run),
        "learning rate": f"{args.learning_rate:g} ({args.lr_scheduler})",
        "text encoder learning rate": args.text_encoder_lr,
        "trained parts": ", ".join(run.adapters) if len(run.adapters) > 1 else None,
        "min-SNR gamma": args.snr_gamma,
        "noise offset": args.noise_offset or None,
        "noise levels": args.weighting_scheme,
        "caption dropout": args.caption_dropout or None,
        "masks": "yes" if run.instances.pictures.has_masks else None,
        "output preservation": args.output_preservation_weight if args.with_output_preservation else None,
        "averaged weights": f"decay {args.ema_decay:g}" if run.ema else None,
        "precision": run.accelerator.mixed_precision,
        "base weights": args.quantize_base,
        "seed": run.progress.seed,
        "rank": config.r,
        "stride_A": config.stride_A,
        "num_B": config.num_B,
        "scaling": config.scaling,
        "routing": config.routing,
        "parameters": f"{_parameters(run):,}",
        "smoothed loss": f"{run.progress.smoothed_loss:.4f}" if run.progress.smoothed_loss is not None else None,
        "held-out loss": _held_out_loss(run),
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


def folders_kept_back(run: Run) -> list[str]:
    """Folders inside the output folder that are not for others: logs, caches, the pictures of training."""
    args, home = run.args, run.output_dir.resolve()
    given = [
        args.disk_cache_dir, args.instance_data_dir, args.class_data_dir, args.validation_data_dir, args.mask_data_dir,
        args.cache_dir,
    ]  # fmt: skip
    folders = [home / args.logging_dir, *(Path(folder).resolve() for folder in given if folder)]
    return [f.relative_to(home).as_posix() for f in folders if f != home and f.is_relative_to(home)]


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
    """Begin what --report_to names, with the settings of the run but for secrets."""
    if run.args.report_to == "none":
        return
    shown = {name: value for name, value in vars(run.args).items() if name != "hub_token"}
    plain = {name: v if isinstance(v, (int, float, str, bool)) else str(v) for name, v in shown.items()}
    folder = run.output_dir / run.args.logging_dir
    if run.accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
    wandb = {"name": run.output_dir.resolve().name, "dir": str(folder)}
    run.accelerator.init_trackers(TRACKER_NAME, config=plain, init_kwargs={"wandb": wandb})


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


def smoothed(before: float | None, loss: float, step: int = round(1 / (1 - SMOOTHING))) -> float:
    """The trend after one more loss: the mean of all at first, so that the very first does not stay in it for long."""
    share = min(SMOOTHING, 1 - 1 / step)
    return loss if before is None else share * before + (1 - share) * loss


def _resolution(run: Run) -> str:
    edge, shapes = run.args.resolution, len(set(map(run.instances.pictures.edges, range(len(run.instances.pictures)))))
    if run.args.use_aspect_ratio_buckets or run.args.aspect_ratio_buckets:
        return f"about {edge} x {edge} pixels, in {shapes} shape{'s' * (shapes > 1)}"
    return f"{edge} pixels"


def _optimizer(run: Run) -> str:
    return f"{run.args.optimizer}{' in 8 bits' if run.args.use_8bit_adam else ''}"


def _parameters(run: Run) -> int:
    return sum(adapter.num_parameters() for adapter in run.adapters.values())


def _held_out_loss(run: Run) -> str | None:
    """The mean over the noise levels of the last measurement; only the main process has it."""
    kept = run.history
    last = [kept.column(name)[1][-1] for name in kept.held_out_columns()] if kept is not None else []
    return f"{np.mean(last):.4f} over {len(last)} noise levels" if last else None
