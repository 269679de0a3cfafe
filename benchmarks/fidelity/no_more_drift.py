"""Lily beside each rival, where its file is no larger and it disturbs other things no more; and beside LoRA."""

from __future__ import annotations

from typing import Any

from benchmarks.fidelity.over_subjects import Runs, difference, seeds_of

SCORES = ("similarity", "styled_similarity", "style", "colour", "drift")
SAME_LAYERS = (
    (("lily", "small", 5e-3), ("lora", "small", 5e-3)),
    (("lily", "small", 2e-2), ("lora", "small", 2e-2)),
    (("lily-2-experts", "least", 5e-3), ("lora-q-v", "least", 2e-2)),
    (("lily-ff", "small", 5e-3), ("lora-ff", "small", 5e-3)),
    (("lily-ff-2-experts", "small", 5e-3), ("lora-ff", "small", 5e-3)),
    (("lily-ff-only", "tiny", 5e-3), ("lora-ff-only", "tiny", 1e-2)),
    (("lily-ff-only", "tiny", 1e-2), ("lora-ff-only", "tiny", 1e-2)),
    (("lily-ff-only", "least", 1e-2), ("lora-ff-only", "tiny", 1e-2)),
)  # groups of Lily and of LoRA on the same kinds of layers that meet, whatever they cost
LARGER, MORE = 1.05, 0.002  # times the bytes, and drift, that still count as no more
NO_MORE = (
    "Lily beside each rival at each rate that was measured: the best of Lily's rows whose file is no larger than the "
    f"rival's (by 5% at most) and whose drift is no more (by {MORE} at most). Lily minus the rival, over subjects, at "
    "the seeds that both have (drift at those where it was measured), with 95% intervals:"
)
BESIDE_LORA = "The same beside LoRA on the same kinds of layers, whatever bytes and drift are:"


def pairs(groups: dict[tuple[str, str, float], Runs]) -> list[dict[str, Any]]:
    """For each rival at each rate, the best of Lily's groups among those that cost no more; none, no row.

    Two groups meet at the seeds of both, and those that share the most seeds with the rival come before the rest.

    Args:
        groups: the runs of each method, budget and rate, on the same subjects.
    """
    found = []
    for rival, group in sorted(groups.items()):
        if is_ours(rival[0]):
            continue
        able: list[tuple[int, float, Any]] = []
        for key, ours in groups.items():
            shared = len(seeds_of(ours) & seeds_of(group))
            small = is_ours(key[0]) and ours[0]["bytes"] <= LARGER * group[0]["bytes"]
            if small and shared and difference(ours, group, "drift")[0] <= MORE:
                able.append((shared, difference(ours, group, "similarity")[0], key))
        if able:
            found.append(_pair(groups, max(able)[-1], rival))
    return found


def same_layers(groups: dict[tuple[str, str, float], Runs]) -> list[dict[str, Any]]:
    """The pairs of `SAME_LAYERS` of which both are measured at one seed or more, in the form of `pairs`."""
    met = [
        (ours, lora) for ours, lora in SAME_LAYERS if seeds_of(groups.get(ours, [])) & seeds_of(groups.get(lora, []))
    ]
    return [_pair(groups, ours, lora) for ours, lora in met]


def _pair(groups: dict[tuple[str, str, float], Runs], ours: Any, rival: Any) -> dict[str, Any]:
    mine, other = groups[ours], groups[rival]
    return {
        "rival": rival, "ours": ours, "bytes": mine[0]["bytes"], "rival_bytes": other[0]["bytes"],
        "seeds": len(seeds_of(mine) & seeds_of(other)),
        "differences": {score: difference(mine, other, score) for score in SCORES},
    }  # fmt: skip


def is_ours(method: str) -> bool:
    return method.startswith("lily")


def table(rows: list[dict[str, Any]], intro: str) -> list[str]:
    """Lines of the page."""
    lines = [
        "",
        intro,
        "",
        "| rival | bytes | Lily | bytes | seeds | similarity | styled | style | colour | drift |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        (rival, budget, rate), (ours, own_budget, own_rate) = row["rival"], row["ours"]
        by = row["differences"]
        lines.append(
            f"| {rival}, {budget}, {rate:g} | {row['rival_bytes']:,} | {ours}, {own_budget}, {own_rate:g} "
            f"| {row['bytes']:,} | {row['seeds']} | {_signed(by['similarity'])} | {_signed(by['styled_similarity'])} "
            f"| {by['style'][0]:+.0f}% | {by['colour'][0]:+.0f}% | {_signed(by['drift'])} |"
        )
    return lines if rows else []


def _signed(difference: list[float]) -> str:
    return "{:+.3f} ({:+.3f} to {:+.3f})".format(*difference)
