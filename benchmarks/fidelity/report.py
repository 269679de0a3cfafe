"""The table and the picture of what was measured: similarity against bytes, with the frontier drawn."""

from __future__ import annotations

import argparse
import importlib.metadata
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.fidelity import no_more_drift
from benchmarks.fidelity.figure import figure
from benchmarks.fidelity.learning import Cost
from benchmarks.fidelity.methods import BUDGETS, METHODS
from benchmarks.fidelity.over_subjects import Runs, by_subject, difference, interval, means, seeds_of
from benchmarks.measures import conditions, results_name, write_results
from benchmarks.subjects import base_hash

RIVAL = "lora"  # whose similarity the others' are compared with, subject by subject
NAMES = (
    "A method adapts attention; with `-ff` in its name feed-forward layers too, with `-ff-only` these alone (Lily with "
    "num_B=2 and stride_A=8), with `-ff-out` the second of each pair of these, with `-q-v` `to_q` and `to_v`. Its "
    f"parameters are near the budget: {', '.join(f'{name} {count:,}' for name, count in BUDGETS.items())}.\n"
)


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """What runs must have in common to stand in one table."""
    return {"steps": args.max_train_steps, "batch": args.train_batch_size, "base": base_hash(args.model)}


def write(runs: Runs, args: argparse.Namespace, cost: Callable[[str, Any], Cost]) -> None:
    """Write the results of the runs on the measured subjects; ``cost`` of a method and size is that of a step."""
    whole_groups = collected(runs, args)
    groups = of_common_seeds(whole_groups)
    found = best_rates(runs, args)
    rows = summaries({(name, budget): group for (name, budget, rate), group in groups.items()
                      if found.get((name, budget)) == rate})  # fmt: skip
    whole = {(name, budget) for name, budget, _ in groups}
    for pair in sorted(whole - {(row["method"], row["budget"]) for row in rows}):
        print(f"{' '.join(pair)}: not measured at the rate that was found best, so it has no row")
    if not rows:
        print("nothing is measured yet, or no seed by all methods")
        return
    for row in rows:
        taken = cost(row["method"], row["size"])
        row |= {"passes": round(taken.passes, 2), "memory": taken.memory}
    others = [
        {"method": name, "budget": budget, "rate": rate, **means(group),
         **beside(group, groups.get((RIVAL, budget, found.get((RIVAL, budget), 0.0)), []))}
        for (name, budget, rate), group in sorted(groups.items()) if found.get((name, budget)) != rate
    ]  # fmt: skip
    name = results_name("fidelity", args.model)
    common = {
        "model": args.model, "steps": args.max_train_steps, "batch": args.train_batch_size, "tuned on": args.tune_on,
        "seeds": sorted(seeds_of(next(iter(groups.values())))),
    }  # fmt: skip
    facts = {**conditions(), "peft": importlib.metadata.version("peft")}
    pairs, same = no_more_drift.pairs(whole_groups), no_more_drift.same_layers(whole_groups)
    result = {
        "settings": common, "rows": rows, "other_rates": others, "pairs": pairs, "same_layers": same,
        "conditions": facts,
    }  # fmt: skip
    write_results(name, result, page(result), Path(args.results_dir))
    figure(rows, others).savefig(Path(args.results_dir) / f"{name}.png", facecolor="white")
    print(page(result))


def worth(runs: Runs) -> float:
    """What the search for a rate raises: similarity over all prompts of the tuning subjects, the styled ones too."""
    return sum(12 * run["similarity"] + 8 * run["styled_similarity"] for run in runs) / (20 * len(runs))


def best_rates(runs: Runs, args: argparse.Namespace) -> dict[tuple[str, str], float]:
    """The rate that was found best for each method and budget, from the runs on the tuning subjects."""
    tuning = [run for run in runs if run["subject"] in args.tune_on and run["seed"] == 0]
    tried: dict[tuple[str, str], dict[float, Runs]] = defaultdict(lambda: defaultdict(list))
    for run in tuning:
        tried[run["method"], run["budget"]][run["rate"]].append(run)
    whole = {
        pair: {rate: group for rate, group in rates.items() if len(group) == len(args.tune_on)}
        for pair, rates in tried.items()
    }
    return {pair: max(rates, key=lambda rate: worth(rates[rate])) for pair, rates in whole.items() if rates}


def collected(runs: Runs, args: argparse.Namespace) -> dict[tuple[str, str, float], Runs]:
    """The runs of each method, budget and rate, of the seeds that have all subjects."""
    groups: dict[tuple[str, str, float], dict[int, Runs]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if run["method"] in METHODS and run["subject"] in args.subjects and run["seed"] in args.seeds:
            groups[run["method"], run["budget"], run["rate"]][run["seed"]].append(run)
    whole = {
        key: [run for group in seeds.values() if {run["subject"] for run in group} >= set(args.subjects)
              for run in group]
        for key, seeds in groups.items()
    }  # fmt: skip
    return {key: group for key, group in whole.items() if group}


def of_common_seeds(groups: dict[tuple[str, str, float], Runs]) -> dict[tuple[str, str, float], Runs]:
    """The runs of the seeds that all groups have: a group of more seeds would stand beside others unlike them."""
    seeds = set.intersection(*map(seeds_of, groups.values())) if groups else set()
    common = {key: [run for run in group if run["seed"] in seeds] for key, group in groups.items()}
    return common if seeds else {}


def summaries(runs: dict[tuple[str, str], Runs]) -> list[dict[str, Any]]:
    """A row for each method and budget: means over subjects, with 95% intervals from resampled subjects."""
    rows = []
    for budget in BUDGETS:
        for name in METHODS:
            if not (group := runs.get((name, budget))):
                continue
            similarity, first = by_subject(group, "similarity"), group[0]
            over = beside(group, runs.get((RIVAL, budget), [])) if name != RIVAL else beside([], [])
            rows.append({
                "method": name, "budget": budget, "size": first["size"], "parameters": first["parameters"],
                "bytes": first["bytes"], "rate": first["rate"], "subjects": len(similarity),
                **means(group), "interval": interval(list(similarity.values())), **over,
            })  # fmt: skip
    return rows


def beside(group: Runs, rival: Runs) -> dict[str, Any]:
    """How much more similar a group's pictures are than the rival's, as a mean over subjects with its interval."""
    if not rival:
        return {"over_lora": None, "over_lora_interval": None}
    over, *ends = difference(group, rival, "similarity")
    return {"over_lora": over, "over_lora_interval": ends}


def page(result: dict[str, Any]) -> str:
    rows, settings = result["rows"], result["settings"]
    lines = [
        f"# How well a subject is learnt by `{settings['model']}`, byte for byte\n",
        f"{rows[0]['subjects']} subjects that the model has never seen, five pictures each, {settings['steps']} "
        f"steps of {settings['batch']}; the same pictures, noise and order for every method; seed "
        f"{', '.join(map(str, settings['seeds']))}. The learning rate was "
        f"sought on {', '.join(settings['tuned on'])}, which are not among them. Similarity is the mean cosine to true "
        "pictures in other poses (EfficientNet-Lite0), in brackets its 95% interval over subjects; styled, the same "
        'where "small", "two", a pencil sketch or pixel art is asked for, which was not learnt from; style and colour, '
        "how often what was asked for is drawn; diversity among pictures of one prompt; drift, half of one minus the "
        "cosine to what the base draws of other things from the same noise; step, its time in forward passes of the "
        "bare model; MB, its memory beside the model's own.\n",
        NAMES,
        "| method | budget | parameters | bytes | rate | similarity | over LoRA | styled | style | colour "
        "| diversity | drift | step | MB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["interval"]
        name = f"**{row['method']}**" if no_more_drift.is_ours(row["method"]) else row["method"]
        lines.append(
            f"| {name} | {row['budget']} | {row['parameters']:,} | {row['bytes']:,} | {row['rate']:g} "
            f"| {row['similarity']:.3f} ({low:.3f} to {high:.3f}) | {_over(row)} | {row['styled_similarity']:.3f} "
            f"| {row['style']:.0f}% | {row['colour']:.0f}% | {row['diversity']:.3f} | {row['drift']:.3f} "
            f"| {row['passes']:.1f} | {row['memory'] / 1e6:.0f} |"
        )
    if result["other_rates"]:
        lines += ["", "At other learning rates, on the same subjects; over LoRA at its best:", "",
                  "| method | budget | rate | similarity | over LoRA | styled | style | drift |",
                  "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    lines += [
        f"| {row['method']} | {row['budget']} | {row['rate']:g} | {row['similarity']:.3f} | {_over(row)} "
        f"| {row['styled_similarity']:.3f} | {row['style']:.0f}% | {row['drift']:.3f} |"
        for row in result["other_rates"]
    ]
    lines += no_more_drift.table(result["pairs"], no_more_drift.NO_MORE)
    return "\n".join([*lines, *no_more_drift.table(result["same_layers"], no_more_drift.BESIDE_LORA)])


def _over(row: dict[str, Any]) -> str:
    if row["over_lora"] is None:
        return ""
    return "{:+.3f} ({:+.3f} to {:+.3f})".format(row["over_lora"], *row["over_lora_interval"])
