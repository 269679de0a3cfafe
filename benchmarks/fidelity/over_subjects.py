"""Means over subjects, and their 95% intervals from resampled subjects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

SCORES = ("similarity", "styled_similarity", "style", "colour", "diversity", "drift")
RESAMPLES = 10_000
Runs = list[dict[str, Any]]


def difference(group: Runs, other: Runs, score: str) -> list[float]:
    """The mean over subjects of the one's score minus the other's, at the seeds of both, and its interval's ends."""
    seeds = seeds_of(group) & seeds_of(other)
    ours, theirs = (by_subject([run for run in runs if run["seed"] in seeds], score) for runs in (group, other))
    over = [ours[subject] - theirs[subject] for subject in sorted(ours.keys() & theirs.keys())]
    return [mean(over), *interval(over)]


def seeds_of(group: Runs) -> set[int]:
    return {run["seed"] for run in group}


def means(group: Runs) -> dict[str, float]:
    return {score: mean(list(by_subject(group, score).values())) for score in SCORES}


def by_subject(runs: Runs, score: str) -> dict[str, float]:
    """The mean over seeds of each subject, of the runs that have the score: of some, the drift was not measured."""
    values: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        if score in run:
            values[run["subject"]].append(run[score])
    return {subject: sum(scores) / len(scores) for subject, scores in values.items()}


def mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)


def interval(values: Sequence[float]) -> list[float]:
    """The middle 95% of the means of resampled values."""
    drawn = np.random.default_rng(0).choice(np.array(values), (RESAMPLES, len(values))).mean(1)
    return [round(float(edge), 4) for edge in np.quantile(drawn, (0.025, 0.975))]
