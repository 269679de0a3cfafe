"""Teach a text-to-image model a new subject from a few pictures. ``--help`` has examples.

    accelerate launch train_scripts/train_dreambooth_lily.py --pretrained_model_name_or_path embedded \\
        --instance_data_dir examples/subjects/robot --output_dir outputs/robot --max_train_steps 300 --cache_latents
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from lily_diffusion.training import TrainingError, parse_args, train

FORMAT = "%(asctime)s - %(levelname)s - %(name)s - %(message)s"


def main(argv: list[str] | None = None) -> int:
    """Parse, build, train, save; returns the exit status."""
    logging.basicConfig(format=FORMAT, datefmt="%m/%d/%Y %H:%M:%S", level=logging.WARNING)
    logging.getLogger("lily_diffusion").setLevel(logging.INFO)
    args = parse_args(argv)
    try:
        result = train(args)
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        there = Path(args.output_dir).exists()
        print(f"stopped; {f'what was saved is in {args.output_dir}' if there else 'nothing is saved'}", file=sys.stderr)
        return 130
    return 128 + result.stopped_by if result.stopped_by else 0


if __name__ == "__main__":
    sys.exit(main())
