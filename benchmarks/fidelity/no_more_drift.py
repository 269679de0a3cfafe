"""Lily beside each rival, where its file is no larger and it disturbs other things no more."""

from __future__ import annotations

from typing import Any

from benchmarks.fidelity.over_subjects import Runs, difference, means

SCORES = ("similarity", "styled_similarity", "style", "colour", "drift")
LARGER, MORE = 1.05, 0.002  # times the bytes, and drift, that still count as no more


def pairs(groups: dict[tuple[str, str, float], Runs]) -> list[dict[str, Any]]:
    """For each rival at each rate, the best of Lily's groups among those that cost no more; none, no row.

    Args:
        groups: the runs of each method, budget and rate, on the same subjects.
    """
    mean = {key: means(group) for key, group in groups.items()}
    found = []
    for rival, group in sorted(groups.items()):
        if is_ours(rival[0]):
            continue
        able = [
            key for key, ours in groups.items()
            if is_ours(key[0]) and ours[0]["bytes"] <= LARGER * group[0]["bytes"]
            and mean[key]["drift"] <= mean[rival]["drift"] + MORE
        ]  # fmt: skip
        if able:
            ours = max(able, key=lambda key: mean[key]["similarity"])
            differences = {score: difference(groups[ours], group, score) for score in SCORES}
            sizes = {"bytes": groups[ours][0]["bytes"], "rival_bytes": group[0]["bytes"]}
            found.append({"rival": list(rival), "ours": list(ours), **sizes, "differences": differences})
    return found


def is_ours(method: str) -> bool:
    return method.startswith("lily")


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of the page."""
    lines = [
        "",
        "Lily beside each rival at each rate that was measured: the best of Lily's rows whose file is no larger than "
        f"the rival's (by 5% at most) and whose drift is no more (by {MORE} at most). Lily minus the rival, over "
        "subjects, with 95% intervals:",
        "",
        "| rival | bytes | Lily | bytes | similarity | styled | style | colour | drift |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        (rival, budget, rate), (ours, own_budget, own_rate) = row["rival"], row["ours"]
        by = row["differences"]
        lines.append(
            f"| {rival}, {budget}, {rate:g} | {row['rival_bytes']:,} | {ours}, {own_budget}, {own_rate:g} "
            f"| {row['bytes']:,} | {_signed(by['similarity'])} | {_signed(by['styled_similarity'])} "
            f"| {by['style'][0]:+.0f}% | {by['colour'][0]:+.0f}% | {_signed(by['drift'])} |"
        )
    return lines if rows else []


def _signed(difference: list[float]) -> str:
    return "{:+.3f} ({:+.3f} to {:+.3f})".format(*difference)
