"""What a run leaves behind: weights, checkpoints, validation sheets, losses and the card. One process writes."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from ..loaders import save_lily_weights
from . import reports
from .arguments import build_parser
from .checkpoints import save_checkpoint
from .config_file import write_config
from .history import History
from .loss_plot import draw_losses
from .main_process import on_main_process
from .model_card import push_to_hub, write_model_card
from .optimizer import averaged_weights
from .run import Run

logger = logging.getLogger(__name__)


def save_settings(run: Run) -> None:
    """``run.yaml``, from which the run can be repeated, and the beginning of ``loss.csv``."""

    def write() -> None:
        write_config(run.args, run.output_dir, build_parser(), seed=run.progress.seed)
        run.history = History(run.output_dir, run.progress.step, run.resumed_from)

    on_main_process(run.accelerator, write)


def save_weights(run: Run) -> Path:
    """The adapter's file in the output folder, with averaged weights where they are kept."""
    with best_weights(run):
        on_main_process(
            run.accelerator, lambda: save_lily_weights(run.parts, run.output_dir, **reports.saving_facts(run))
        )
    return run.output_dir / reports.WEIGHT_NAME


def checkpoint(run: Run) -> Path:
    """``checkpoint-<step>``, with the weights as they are trained."""

    def save() -> None:
        limit, facts = run.args.checkpoints_total_limit, reports.saving_facts(run)
        save_checkpoint(run.output_dir, run.progress, run.parts, run.checkpoint_parts, limit, **facts)

    path = run.output_dir / f"checkpoint-{run.progress.step}"
    on_main_process(run.accelerator, save)
    say(run, f"Saved state to {path}")
    return path


def validate(run: Run) -> Path | None:
    """Measure the held-out loss, draw the losses and a sheet. Drawing that fails does not end a run."""
    measure_held_out(run)

    def draw() -> Path | None:
        try:
            return _draw(run)
        except Exception as error:  # out of memory, a full disk, a pipeline's whim: training is worth more
            logger.warning("no validation picture (%s: %s); the run goes on", type(error).__name__, error)
            return None

    return on_main_process(run.accelerator, draw)


def measure_held_out(run: Run) -> None:
    """The loss of the held-out pictures, into the history."""
    held_out, history = run.held_out, run.history
    if held_out is None:
        return

    def measure() -> None:
        losses = held_out.losses(run.trained)
        if history is not None:
            history.add_held_out(run.progress.step, losses)
        scalars = {f"held_out_loss/{level:g}": loss for level, loss in losses.items()}
        run.accelerator.log(scalars, step=run.progress.step)

    with best_weights(run), run.accelerator.autocast():
        on_main_process(run.accelerator, measure)


def present(run: Run, weights: Path, start: float) -> str:
    """Pictures, card and upload, when all is saved and nothing can be lost; returns the closing words."""
    sheet = validate(run)
    prompt = (run.args.validation_prompt or reports.trigger_words(run))[0]
    on_main_process(run.accelerator, lambda: _write_card(run, prompt, sheet))
    seconds = time.monotonic() - start
    return on_main_process(run.accelerator, lambda: reports.closing(run, weights, seconds, prompt)) or ""


@contextlib.contextmanager
def best_weights(run: Run) -> Iterator[None]:
    """The weights that are saved and shown: averages, where the optimizer or --use_ema keeps them."""
    with averaged_weights(run.optimizer), run.ema.swapped_in() if run.ema is not None else contextlib.nullcontext():
        yield


def say(run: Run, text: str) -> None:
    if run.accelerator.is_main_process:
        logger.info("%s", text)


def _draw(run: Run) -> Path | None:
    if run.history is not None:
        draw_losses(run.history)
    if run.validation is None:
        return None
    with best_weights(run):
        path = run.validation.save(run.output_dir / "samples", run.progress.step, run.accelerator.autocast())
    reports.track_picture(run, path)
    logger.info("Running validation... %s", path)
    return path


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
        max_sequence_length=args.max_sequence_length,
    )
    if args.push_to_hub:
        say(run, push_to_hub(run.output_dir, args.hub_model_id, args.hub_token, reports.folders_kept_back(run)))
