"""THE LOOP: train an adapter from parsed arguments, saving as it goes."""

from __future__ import annotations

import argparse
import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm.contrib.logging import logging_redirect_tqdm

from ..inspection import RoutingRecorder, record_routing
from . import reports, saving
from .build import build
from .checkpoints import random_states, set_random_states
from .checks import complete
from .dry_run import dry_run
from .errors import TrainingError
from .families.base import release
from .interrupts import StopRequest
from .main_process import agreed, leave
from .objective import batch_loss
from .optimizer import learning_rate_now, training_mode
from .progress_bar import Bar, speed_scalars
from .run import Run


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
    weights: Path  # not there after a dry run
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
    tf32_before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        return _run(complete(args), start, on_step)
    finally:
        release()  # the base model, which its own hooks would keep until some later collection
        set_random_states(random_before)
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = tf32_before


def _run(args: argparse.Namespace, start: float, on_step: Callable[[StepReport], bool | None] | None) -> TrainingResult:
    run = build(args)
    return _rehearse(run, start) if args.dry_run else _train(run, start, on_step)


def _rehearse(run: Run, start: float) -> TrainingResult:
    try:
        loss, report = dry_run(run)
    finally:
        leave(run.accelerator)
    saving.say(run, report)
    seconds = time.monotonic() - start
    return TrainingResult(
        [loss], run.progress.step, run.output_dir, run.output_dir / reports.WEIGHT_NAME, seconds, message=report
    )


def _train(run: Run, start: float, on_step: Callable[[StepReport], bool | None] | None) -> TrainingResult:
    if run.progress.step >= run.max_train_steps:
        done, end = run.progress.step, run.max_train_steps
        raise TrainingError(f"the checkpoint is at step {done} and the run ends at {end}; raise --max_train_steps")
    reports.start_trackers(run)
    saving.save_settings(run)
    saving.say(run, reports.opening(run))
    losses: list[float] = []
    try:
        with StopRequest() as stop:
            stopped_by = _steps(run, stop, losses, on_step)
            weights = saving.save_weights(run)
            checkpoint = saving.checkpoint(run) if stopped_by or run.args.checkpointing_steps else None
        if stopped_by and checkpoint is not None:
            message = reports.how_to_resume(run, checkpoint)
        else:
            message = saving.present(run, weights, start)
    finally:
        leave(run.accelerator)
    saving.say(run, message)
    seconds = time.monotonic() - start
    return TrainingResult(losses, run.progress.step, run.output_dir, weights, seconds, stopped_by, message)


def _steps(run: Run, stop: StopRequest, losses: list[float], on_step: Callable | None) -> int | None:
    """Step until the end or until someone asks to stop; returns who asked."""
    args, progress, accelerator = run.args, run.progress, run.accelerator
    before: list[Tensor] = []  # what a step that turns out badly has changed, as it was
    bar = Bar(run.max_train_steps, progress.step, visible=accelerator.is_main_process)
    with bar, logging_redirect_tqdm():
        if progress.step == 0:
            saving.measure_held_out(run)
        while progress.step < run.max_train_steps:
            report = _step(run, before)
            losses.append(report.loss)
            bar.update(report)
            asked = on_step is not None and bool(on_step(report))
            if progress.step == run.max_train_steps:
                break  # nothing is left to stop; the end is saved and shown by `train`
            stopped_by = agreed(accelerator, stop.signal_number or (-1 if asked else 0))
            if stopped_by:
                return stopped_by
            with bar.paused():
                if args.checkpointing_steps and progress.step % args.checkpointing_steps == 0:
                    saving.checkpoint(run)
                if progress.step % run.validation_steps == 0:
                    saving.validate(run)
    return None


def _step(run: Run, before: list[Tensor]) -> StepReport:
    """One optimizer step; `before` receives the weights as they were before it."""
    args, accelerator, progress = run.args, run.accelerator, run.progress
    begun = time.monotonic()
    run.model.train()
    run.family.denoiser.eval()  # frozen, so its dropout has nothing to regularise
    training_mode(run.optimizer)
    watching = args.report_to != "none" and progress.step % args.logging_steps == 0
    watching = watching and not args.compile_base  # a program that records would be another program
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
    grad_norm = accelerator.clip_grad_norm_(run.parameters, args.max_grad_norm)
    loss_value, norm_value = float(accelerator.reduce(total, "mean")), float(grad_norm)
    _stop_if_not_finite(run, before, loss_value, norm_value)
    if len(before) == len(run.weights):
        torch._foreach_copy_(before, [p.detach() for p in run.weights])
    else:
        before[:] = [p.detach().clone() for p in run.weights]

    learning_rate = learning_rate_now(run.optimizer)
    run.optimizer.step()
    if not accelerator.optimizer_step_was_skipped:  # fp16 leaves out a step whose gradients overflowed
        run.lr_scheduler.step()
        if run.ema is not None:
            run.ema.update()
    run.optimizer.zero_grad()
    progress.step += 1
    progress.samples_seen += run.samples_in_step
    progress.smoothed_loss = reports.smoothed(progress.smoothed_loss, loss_value, progress.step)
    numbers = {"loss": loss_value, "smoothed_loss": progress.smoothed_loss, "lr": learning_rate}
    numbers |= {"grad_norm": norm_value, "seconds": time.monotonic() - begun}
    if run.history is not None:
        run.history.add(progress.step, **numbers)
    scalars = {**numbers, **speed_scalars(numbers["seconds"]), **reports.router_scalars(run, recorder)}
    accelerator.log(scalars, step=progress.step)
    return StepReport(progress.step, run.max_train_steps, loss_value, progress.smoothed_loss, learning_rate, norm_value)


def _stop_if_not_finite(run: Run, before: list[Tensor], loss: float, grad_norm: float) -> None:
    """Stop before a NaN gets into the weights; fp16's scaler deals with overflowing gradients by itself."""
    if math.isfinite(loss) and (math.isfinite(grad_norm) or run.accelerator.scaler is not None):
        return
    what = f"the loss became {loss}" if not math.isfinite(loss) else f"the gradient's norm became {grad_norm}"
    where = f"{what} at step {run.progress.step + 1}; try a lower --learning_rate or --scaling"
    if not before or run.progress.step < 2:
        raise TrainingError(f"{where}. There are no better weights to save than those that the run began with")
    with torch.no_grad():
        for parameter, value in zip(run.weights, before, strict=True):
            parameter.copy_(value)
    run.progress.step -= 1  # the last update led here: save the weights from before it
    weights = saving.save_weights(run)
    raise TrainingError(f"{where}. The weights after step {run.progress.step} are saved in {weights}")
