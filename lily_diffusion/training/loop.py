"""THE LOOP: train an adapter from parsed arguments, saving as it goes."""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ..inspection import RoutingRecorder, record_routing
from ..loaders import save_lily_weights
from . import reports
from .build import Run, build
from .checkpoints import random_states, save_checkpoint, set_random_states
from .checks import complete
from .draws import micro_batch_positions, mixed_seed
from .errors import TrainingError
from .interrupts import StopRequest
from .losses import with_prior
from .model_card import push_to_hub, write_model_card
from .sources import Samples

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepReport:
    """What one optimizer step did, for whoever watches."""

    step: int
    max_train_steps: int
    loss: float  # mean over the accumulated batches and over the processes
    smoothed_loss: float
    learning_rate: float
    grad_norm: float


@dataclass(frozen=True)
class TrainingResult:
    """What a run left behind."""

    losses: list[float]  # of the steps done in this call
    steps: int  # done in all, with those before a resume
    output_dir: Path
    weights: Path
    seconds: float
    stopped_by: int | None = None  # a signal's number, -1 for the watcher; None: it ran to its end
    message: str = ""


def train(args: argparse.Namespace, on_step: Callable[[StepReport], bool | None] | None = None) -> TrainingResult:
    """Train as the parsed arguments say and save everything into ``args.output_dir``.

    Args:
        args: from `parse_args`.
        on_step: called after every step; when it answers True the run saves and stops.

    The process's own random numbers go on afterwards as if nothing had been drawn in between.

    Raises:
        TrainingError: the run could not start, or would have learnt nothing.
    """
    start, random_before = time.monotonic(), random_states()
    try:
        return _train(build(complete(args)), start, on_step)
    finally:
        set_random_states(random_before)


def _train(run: Run, start: float, on_step: Callable[[StepReport], bool | None] | None) -> TrainingResult:
    if run.progress.step >= run.max_train_steps:
        done, end = run.progress.step, run.max_train_steps
        raise TrainingError(f"the checkpoint is at step {done} and the run ends at {end}; raise --max_train_steps")
    reports.start_trackers(run)
    _say(run, reports.opening(run))
    losses: list[float] = []
    try:
        with StopRequest() as stop:
            stopped_by = _steps(run, stop, losses, on_step)
            weights = _save_weights(run)
            checkpoint = _checkpoint(run) if stopped_by or run.args.checkpointing_steps else None
        if stopped_by and checkpoint is not None:
            message = reports.how_to_resume(run, checkpoint)
        else:
            message = _present(run, weights, start)
    finally:
        run.accelerator.end_training()
    _say(run, message)
    seconds = time.monotonic() - start
    return TrainingResult(losses, run.progress.step, run.output_dir, weights, seconds, stopped_by, message)


def _steps(run: Run, stop: StopRequest, losses: list[float], on_step: Callable | None) -> int | None:
    """Step until the end or until someone asks to stop; returns who asked."""
    args, progress, main = run.args, run.progress, run.accelerator.is_main_process
    bar = tqdm(total=run.max_train_steps, initial=progress.step, desc="Steps", disable=not main)
    before: list[Tensor] = []  # the weights that gave the last finite loss
    with bar, logging_redirect_tqdm():
        while progress.step < run.max_train_steps:
            report = _step(run, before)
            losses.append(report.loss)
            bar.update(1)
            bar.set_postfix(loss=f"{report.smoothed_loss:.4f}", lr=f"{report.learning_rate:.2g}")
            asked = on_step is not None and bool(on_step(report))
            if progress.step == run.max_train_steps:
                break  # nothing is left to stop; the end is saved and shown by `train`
            stopped_by = _agree(run, stop.signal_number or (-1 if asked else 0))
            if stopped_by:
                return stopped_by
            if args.checkpointing_steps and progress.step % args.checkpointing_steps == 0:
                _checkpoint(run)
            if progress.step % run.validation_steps == 0:
                _validate(run)
    return None


def _step(run: Run, before: list[Tensor]) -> StepReport:
    """One optimizer step; `before` receives the weights as they were before it."""
    args, accelerator, progress = run.args, run.accelerator, run.progress
    run.model.train()
    run.family.denoiser.eval()  # frozen, so its dropout has nothing to regularise
    watching = run.args.report_to != "none" and progress.step % args.logging_steps == 0
    total = torch.zeros((), device=accelerator.device)
    recorder: RoutingRecorder | None = None
    for micro_batch in range(args.gradient_accumulation_steps):
        listening = record_routing(run.family.denoiser) if watching and micro_batch == 0 else contextlib.nullcontext()
        with accelerator.accumulate(run.model):
            with listening as heard:
                loss = batch_loss(run, micro_batch)
            recorder = heard or recorder
            accelerator.backward(loss)
        total += loss.detach() / args.gradient_accumulation_steps
    grad_norm = accelerator.clip_grad_norm_(list(run.adapter.parameters()), args.max_grad_norm)
    loss_value, norm_value = float(accelerator.reduce(total, "mean")), float(grad_norm)
    _stop_if_not_finite(run, before, loss_value, norm_value)
    before[:] = [p.detach().clone() for p in run.adapter.parameters()]

    learning_rate = run.lr_scheduler.get_last_lr()[0]
    run.optimizer.step()
    if not accelerator.optimizer_step_was_skipped:  # fp16 leaves out a step whose gradients overflowed
        run.lr_scheduler.step()
    run.optimizer.zero_grad()
    progress.step += 1
    progress.samples_seen += run.samples_in_step
    progress.smoothed_loss = reports.smoothed(progress.smoothed_loss, loss_value)
    smoothed_loss = progress.smoothed_loss
    scalars = {"loss": loss_value, "smoothed_loss": smoothed_loss, "lr": learning_rate, "grad_norm": norm_value}
    accelerator.log({**scalars, **reports.router_scalars(run, recorder)}, step=progress.step)
    return StepReport(progress.step, run.max_train_steps, loss_value, smoothed_loss, learning_rate, norm_value)


def batch_loss(run: Run, micro_batch: int) -> Tensor:
    """The loss of the `micro_batch`-th part of the next step, a pure function of the seed and of the samples seen."""
    args, accelerator = run.args, run.accelerator
    rank, world_size = accelerator.process_index, accelerator.num_processes
    positions = micro_batch_positions(run.progress.samples_seen, micro_batch, args.train_batch_size, rank, world_size)
    samples: Samples = run.instances.samples(positions)
    if run.classes is not None:
        samples = samples + run.classes.samples(positions)
    torch.manual_seed(mixed_seed(run.progress.seed, "dropout", positions[0]))
    prompts = run.family.batch([run.embeddings[caption] for caption in samples.captions])
    losses = run.family.losses(run.model, samples.latents, samples.noise, samples.timesteps, prompts)
    loss = with_prior(losses, len(positions), args.prior_loss_weight)
    if world_size > 1:  # DDP waits for a gradient of every tensor, and a model may not use all of its projections
        loss = loss + 0.0 * torch.stack([p.sum() for p in run.adapter.parameters()]).sum()
    return loss


def _stop_if_not_finite(run: Run, before: list[Tensor], loss: float, grad_norm: float) -> None:
    """Stop before a NaN gets into the weights; fp16's scaler deals with overflowing gradients by itself."""
    if math.isfinite(loss) and (math.isfinite(grad_norm) or run.accelerator.scaler is not None):
        return
    what = f"the loss became {loss}" if not math.isfinite(loss) else f"the gradient's norm became {grad_norm}"
    where = f"{what} at step {run.progress.step + 1}; try a lower --learning_rate or --scaling"
    if not before or run.progress.step < 2:
        raise TrainingError(f"{where}. There are no better weights to save than those that the run began with")
    with torch.no_grad():
        for parameter, value in zip(run.adapter.parameters(), before, strict=True):
            parameter.copy_(value)
    run.progress.step -= 1  # the last update led here: save the weights from before it
    weights = _save_weights(run)
    raise TrainingError(f"{where}. The weights after step {run.progress.step} are saved in {weights}")


def _present(run: Run, weights: Path, start: float) -> str:
    """Pictures, card and upload, when all is saved and nothing can be lost; returns the closing words."""
    sheet = _validate(run)
    prompt = (run.args.validation_prompt or reports.trigger_words(run))[0]
    if run.accelerator.is_main_process:
        _write_card(run, prompt, sheet)
    return reports.closing(run, weights, time.monotonic() - start, prompt)


def _write_card(run: Run, prompt: str, sheet: Path | None) -> None:
    args = run.args
    write_model_card(
        run.output_dir,
        title=reports.title(run),
        base_model=args.pretrained_model_name_or_path,
        trigger_words=reports.trigger_words(run),
        prompt=prompt,
        facts=reports.training_facts(run),
        source=args.hub_model_id or str(run.output_dir),
        sheet=sheet,
    )
    if args.push_to_hub:
        _say(run, push_to_hub(run.output_dir, args.hub_model_id, args.hub_token))


def _save_weights(run: Run) -> Path:
    run.accelerator.wait_for_everyone()
    if run.accelerator.is_main_process:
        return save_lily_weights(run.family.denoiser, run.output_dir, **reports.saving_facts(run))
    return run.output_dir / reports.WEIGHT_NAME


def _checkpoint(run: Run) -> Path:
    run.accelerator.wait_for_everyone()
    path = run.output_dir / f"checkpoint-{run.progress.step}"
    if run.accelerator.is_main_process:
        limit = run.args.checkpoints_total_limit
        facts = reports.saving_facts(run)
        save_checkpoint(run.output_dir, run.progress, run.family.denoiser, run.checkpoint_parts, limit, **facts)
        logger.info("Saved state to %s", path)
    return path


def _validate(run: Run) -> Path | None:
    """Draw a sheet on the main process; the others wait."""
    path = None
    if run.validation is not None and run.accelerator.is_main_process:
        path = run.validation.save(run.output_dir / "samples", run.progress.step, run.accelerator.autocast())
        reports.track_picture(run, path)
        logger.info("Running validation... %s", path)
    run.accelerator.wait_for_everyone()
    return path


def _agree(run: Run, request: int) -> int:
    """A request to stop that reaches one process stops all of them after the same step."""
    if run.accelerator.num_processes == 1:
        return request
    requests = run.accelerator.gather(torch.tensor([request], device=run.accelerator.device))
    return int(requests[requests.abs().argmax()])


def _say(run: Run, text: str) -> None:
    if run.accelerator.is_main_process:
        logger.info("%s", text)
