"""Whether a run can go on from its checkpoint, as far as the checkpoint says so without the base model."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..save_and_load import WEIGHT_NAME, LilyHeader, read_lily_header
from .checkpoints import find_checkpoint, read_progress
from .errors import TrainingError
from .settings import BINDING, compare

FILES = ("optimizer.pt", "lr_scheduler.pt", "random_states.pt")  # beside the weights, in every checkpoint
CONFIG = {  # flag -> its name in the adapter's configuration
    "rank": "r", "stride_A": "stride_A", "num_B": "num_B", "scaling": "scaling", "routing": "routing",
    "lily_dropout": "dropout", "target_modules": "target_modules",
}  # fmt: skip


def check_checkpoint(args: argparse.Namespace) -> None:
    """Check completed arguments against the checkpoint that ``--resume_from_checkpoint`` means, if there is one.

    Raises:
        TrainingError: it is not there or damaged, or flags are not those that it was made with, or the run is over.
    """
    checkpoint = find_checkpoint(Path(args.output_dir), args.resume_from_checkpoint)
    if checkpoint is None:
        return
    progress, end = read_progress(checkpoint), args.max_train_steps
    if end is not None and progress.step >= end:
        raise TrainingError(
            f"the checkpoint is at step {progress.step} and the run ends at {end}; raise --max_train_steps"
        )
    if args.seed not in (None, progress.seed):
        raise TrainingError(f"the checkpoint was made with --seed {progress.seed}; leave --seed out, or give that one")
    compare(progress.settings, {name: getattr(args, name) for name in BINDING})
    for name in FILES:
        if not (checkpoint / name).is_file():
            raise TrainingError(f"{checkpoint} has no {name}, so it is damaged; resume from another checkpoint")
    try:
        header = read_lily_header(checkpoint / WEIGHT_NAME)
    except (OSError, ValueError) as error:
        raise TrainingError(f"{checkpoint} is damaged, so resume from another checkpoint: {error}") from error
    _check_adapter(args, header)


def _check_adapter(args: argparse.Namespace, header: LilyHeader) -> None:
    for flag, field in CONFIG.items():
        before, now = getattr(header.config, field), getattr(args, flag)
        if field == "target_modules":
            before, now = " ".join(before or ("attention",)), " ".join(now)
        if before != now:
            raise TrainingError(f"the checkpoint was made with {field}={before}, not {now}; give --{flag} {before}")
    encoders = [part.component for part in header.parts if part.component not in ("unet", "transformer")]
    if bool(encoders) != args.train_text_encoder:
        advice = "give --train_text_encoder as well" if encoders else "leave --train_text_encoder out"
        parts = " and ".join(part.component for part in header.parts)
        raise TrainingError(f"the checkpoint adapts the {parts}; {advice}")
