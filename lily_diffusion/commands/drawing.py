"""The options of the commands that draw, checked before anything is loaded."""

from __future__ import annotations

import argparse
import math

from ui.keeping.recipe import MAX_SEED


def check_drawing(args: argparse.Namespace, pictures: int = 1) -> None:
    """Raise ValueError for --steps, --seed or --guidance_scale out of range; the seeds of `pictures` count up."""
    most = MAX_SEED - max(pictures - 1, 0)
    if args.steps < 1:
        raise ValueError(f"--steps must be 1 or more, not {args.steps}.")
    if args.seed < 0:
        raise ValueError(f"--seed must be 0 or more, not {args.seed}.")
    if args.seed > most:
        raise ValueError(f"--seed must be at most {most}, not {args.seed}.")
    if args.guidance_scale is not None and not math.isfinite(args.guidance_scale):
        raise ValueError(f"--guidance_scale must be a finite number, not {args.guidance_scale}.")
