"""The table and the picture of what was measured: similarity against bytes, with the frontier drawn."""

from __future__ import annotations

import argparse
import importlib.metadata
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fidelity.methods import BUDGETS, METHODS
from benchmarks.measures import conditions, results_name, write_results
from benchmarks.subjects import base_hash

SCORES = ("similarity", "styled_similarity", "style", "colour", "diversity", "drift")
RESAMPLES = 10_000
RIVAL = "lora"  # whose similarity the others' are compared with, subject by subject
INK, OURS, THEIRS, RULE = "#1e1e22", "#c2410c", "#64748b", "#d4d4d8"

Runs = list[dict[str, Any]]


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """What runs must have in common to stand in one table."""
    return {"steps": args.max_train_steps, "batch": args.train_batch_size, "base": base_hash(args.model)}


def write(runs: Runs, args: argparse.Namespace) -> None:
    """Write the results of these runs that are on the measured subjects."""
    rows = summaries(collected(runs, args))
    if not rows:
        print("nothing is measured yet")
        return
    name = results_name("fidelity", args.model)
    common = {
        "model": args.model, "steps": args.max_train_steps, "batch": args.train_batch_size, "tuned on": args.tune_on,
        "seeds": args.seeds,
    }  # fmt: skip
    facts = {**conditions(), "peft": importlib.metadata.version("peft")}
    result = {"settings": common, "rows": rows, "conditions": facts}
    write_results(name, result, page(result), Path(args.results_dir))
    frontier_figure(rows).savefig(Path(args.results_dir) / f"{name}.png", facecolor="white")
    print(page(result))


def collected(runs: Runs, args: argparse.Namespace) -> dict[tuple[str, str], Runs]:
    """The runs of each method and budget that has all subjects, at the rate that most of its runs have."""
    by_rate: dict[tuple[str, str], dict[float, Runs]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if run["method"] in METHODS and run["subject"] in args.subjects and run["seed"] in args.seeds:
            by_rate[run["method"], run["budget"]][run["rate"]].append(run)
    groups = {pair: max(rates.values(), key=len) for pair, rates in by_rate.items()}
    return {pair: group for pair, group in groups.items() if {run["subject"] for run in group} >= set(args.subjects)}


def summaries(runs: dict[tuple[str, str], Runs]) -> list[dict[str, Any]]:
    """A row for each method and budget: means over subjects, with 95% intervals from resampled subjects."""
    rows = []
    for budget in BUDGETS:
        rival = by_subject(runs.get((RIVAL, budget), []), "similarity")
        for name in METHODS:
            if not (group := runs.get((name, budget))):
                continue
            similarity = by_subject(group, "similarity")
            shared = sorted(similarity.keys() & rival.keys())
            over = [similarity[subject] - rival[subject] for subject in shared] if name != RIVAL else []
            first = group[0]
            rows.append({
                "method": name, "budget": budget, "size": first["size"], "parameters": first["parameters"],
                "bytes": first["bytes"], "rate": first["rate"], "subjects": len(similarity), "runs": len(group),
                **{score: mean(list(by_subject(group, score).values())) for score in SCORES},
                "training_seconds": statistics.median(run["training_seconds"] for run in group),
                "interval": interval(list(similarity.values())),
                "over_lora": mean(over) if over else None, "over_lora_interval": interval(over) if over else None,
            })  # fmt: skip
    return rows


def by_subject(runs: Runs, score: str) -> dict[str, float]:
    """The mean over seeds of each subject."""
    values: dict[str, list[float]] = defaultdict(list)
    for run in runs:
        values[run["subject"]].append(run[score])
    return {subject: sum(scores) / len(scores) for subject, scores in values.items()}


def mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)


def interval(values: Sequence[float]) -> list[float]:
    """The middle 95% of the means of resampled values."""
    drawn = np.random.default_rng(0).choice(np.array(values), (RESAMPLES, len(values))).mean(1)
    return [round(float(edge), 4) for edge in np.quantile(drawn, (0.025, 0.975))]


def page(result: dict[str, Any]) -> str:
    rows, settings = result["rows"], result["settings"]
    lines = [
        "# How well a subject is learnt, byte for byte\n",
        f"{rows[0]['subjects']} subjects that the base model has never seen, five pictures each, {settings['steps']} "
        f"steps of {settings['batch']}, {len(settings['seeds'])} seed{'s' if len(settings['seeds']) > 1 else ''}; the "
        "same pictures, noise and order for every method. The learning rate was "
        f"sought on {', '.join(settings['tuned on'])}, which are not among them. Similarity is the mean cosine to true "
        "pictures in other poses (EfficientNet-Lite0), in brackets its 95% interval over subjects; styled, the same "
        "where a style is asked for that was not learnt from; style and colour, how often what was asked for is drawn; "
        "diversity among pictures of one prompt; drift, half of one minus the cosine to what the base draws of other "
        "things; s, seconds of one core for the steps.\n",
        "| method | budget | parameters | bytes | rate | similarity | over LoRA | styled | style | colour | diversity "
        "| drift | s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["interval"]
        over = "" if row["over_lora"] is None else "{:+.3f} ({:+.3f} to {:+.3f})".format(
            row["over_lora"], *row["over_lora_interval"])  # fmt: skip
        name = f"**{row['method']}**" if row["method"].startswith("lily") else row["method"]
        lines.append(
            f"| {name} | {row['budget']} | {row['parameters']:,} | {row['bytes']:,} | {row['rate']:g} "
            f"| {row['similarity']:.3f} ({low:.3f} to {high:.3f}) | {over} | {row['styled_similarity']:.3f} "
            f"| {row['style']:.0f}% | {row['colour']:.0f}% | {row['diversity']:.3f} | {row['drift']:.3f} "
            f"| {row['training_seconds']:.0f} |"
        )
    return "\n".join(lines)


def frontier(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that no other beats in both bytes and similarity, by bytes."""
    kept: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda row: (row["bytes"], -row["similarity"])):
        if not kept or row["similarity"] > kept[-1]["similarity"]:
            kept.append(row)
    return kept


def frontier_figure(rows: list[dict[str, Any]]) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((9.0, 5.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    edge = frontier(rows)
    axes.step([r["bytes"] for r in edge], [r["similarity"] for r in edge], where="post", color=RULE, linewidth=6)
    for row in rows:
        colour = OURS if row["method"].startswith("lily") else THEIRS
        low, high = row["interval"]
        axes.plot([row["bytes"]] * 2, [low, high], color=colour, linewidth=1, alpha=0.5)
        axes.plot(row["bytes"], row["similarity"], "o", color=colour, markersize=6)
        axes.annotate(
            row["method"], (row["bytes"], row["similarity"]), (6, 3), textcoords="offset points", color=colour,
            fontsize=8,
        )  # fmt: skip
    axes.set_xscale("log")
    for ticks in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        ticks(lambda bytes_, _: f"{bytes_ / 1e3:,.0f}")
    axes.set_xlabel("size of the file, kB", color=INK)
    axes.set_ylabel("similarity to unseen pictures of the subject", color=INK)
    axes.set_title("Above and to the left is better; the line is what nothing beats", color=INK, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
