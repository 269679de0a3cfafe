"""Which learning rate suits which rank? Subjects learnt at several of both; the trainer's defaults come from here.

    python -m benchmarks.learning_rates
    python -m benchmarks.learning_rates --ranks 16 --rates 1e-3 2e-3 --subjects "robot face"

Each cell is how much likeness rises, as benchmarks/subjects.py measures it and with its other settings, on average over
the subjects. What is done already, with the same settings and the same base, is not run again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import subjects
from benchmarks.measures import RESULTS, conditions, write_json, write_results
from lily_diffusion import base_model
from lily_diffusion.base_model.likeness import Likeness
from lily_diffusion.base_model.pictures import HELD_OUT, load_emoji


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--subjects", nargs="+", choices=subjects.CLASSES, default=["robot face", "school satchel"], metavar="NAME")
    add("--ranks", nargs="+", type=int, default=[4, 16, 64])
    add("--rates", nargs="+", type=float, default=[5e-4, 1e-3, 2e-3, 4e-3])
    add("--max_train_steps", type=int, default=200)
    add("--work_dir", default="outputs/learning_rates", help="adapters, and what is done so far")
    add("--results_dir", default=str(RESULTS))
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    pipe, likeness = base_model.load_pipeline(), Likeness()
    pipe.set_progress_bar_config(disable=True)
    emoji = load_emoji(str(base_model.SUBJECTS), {name: HELD_OUT[name] for name in args.subjects})
    cells = [(rank, rate, subject) for rank in args.ranks for rate in args.rates for subject in args.subjects]
    rises: dict[tuple[int, float], list[float]] = {}
    for rank, rate, subject in tqdm(cells, desc="runs"):
        rises.setdefault((rank, rate), []).append(rise(pipe, likeness, emoji, rank, rate, subject, args))
        tqdm.write(f"rank {rank}, rate {rate:g}, {subject}: {rises[rank, rate][-1]:+.3f}")
    report(rises, args)


def rise(pipe, likeness: Likeness, emoji, rank: int, rate: float, subject: str, args: argparse.Namespace) -> float:
    """How much likeness rises for one subject."""
    folder = Path(args.work_dir) / f"{rank}_{rate:g}_{subject.replace(' ', '_')}"
    flags = ["--rank", str(rank), "--learning_rate", str(rate), "--max_train_steps", str(args.max_train_steps)]
    run: Any = subjects.parse_args(flags)
    settings = {**vars(run), "base": subjects.base_hash(run.model)}
    result = subjects.finished(folder, settings)
    if result is None:
        result = subjects.learn_and_measure(pipe, subject, emoji, likeness, folder, run)
        write_json(folder / "result.json", {"settings": settings, **result})
    return result["rise"]


def report(rises: dict[tuple[int, float], list[float]], args: argparse.Namespace) -> None:
    means = {cell: sum(values) / len(values) for cell, values in rises.items()}
    lines = [
        "# Learning rates by rank\n",
        f"Rise in likeness on the embedded model after {args.max_train_steps} steps of 4, attention and feed-forward "
        f"layers, scaling 2, stride_A 4, num_B 4; mean over {', '.join(args.subjects)}. The best of each rank is "
        "bold.\n",
        f"| rank | {' | '.join(f'{rate:g}' for rate in args.rates)} |",
        f"|---|{'---|' * len(args.rates)}",
    ]
    for rank in args.ranks:
        best = max(args.rates, key=lambda rate: means[rank, rate])
        shown = [f"**{means[rank, r]:+.3f}**" if r == best else f"{means[rank, r]:+.3f}" for r in args.rates]
        lines.append(f"| {rank} | {' | '.join(shown)} |")
    cells = [{"rank": rank, "rate": rate, "rises": values} for (rank, rate), values in rises.items()]
    write_results(
        "learning_rates", {"cells": cells, "conditions": conditions()}, "\n".join(lines), Path(args.results_dir)
    )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
