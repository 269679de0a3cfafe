"""The benchmarks run, their arithmetic is right, and the page says what the results say."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import base_shapes, first_picture, render, speed, training_speed
from benchmarks.fidelity import __main__ as fidelity
from benchmarks.fidelity import ablations, figure, learning, no_more_drift, over_subjects, report, scores
from benchmarks.fidelity.methods import BUDGETS, METHODS, copied, size_for
from lily_diffusion import base_model


@torch.no_grad()
def answer(pipe):
    """Of the UNet, to one question."""
    draw = torch.Generator().manual_seed(0)
    sample, prompt = torch.randn(1, 8, 16, 16, generator=draw), torch.randn(1, 24, 256, generator=draw)
    return pipe.unet(sample, 500, encoder_hidden_states=prompt).sample


def test_the_pages_are_what_the_results_say():
    assert render.PAGE.read_text() == render.rendered()
    assert render.README.read_text() == render.in_readme() and "| Lily |" in render.in_readme()
    assert render.main(["--check"]) == 0


def test_speed_measures_every_rival(tmp_path):
    speed.main(
        [
            "--size",
            "tiny",
            "--rounds",
            "1",
            "--models",
            "FLUX.1",
            "--precisions",
            "fp32",
            "--target_modules",
            "attention",
            "feed-forward",
            "--results_dir",
            str(tmp_path),
        ]
    )
    (row,) = json.loads((tmp_path / "speed_feed_forward.json").read_text())["rows"]
    assert row["Lily"]["operators"] == 6 < 7 < row["PEFT's Lily"]["operators"]
    assert row["Lily, frozen and fused"]["operators"] == 0
    assert row["Lily"]["bytes_of_parameters"] < 1.1 < row["PEFT's Lily"]["bytes_of_parameters"]
    assert all(row[name]["forward"] > 0 for name in speed.RIVALS)
    assert all(row[name]["added"] > 0 for name in speed.RIVALS[:3])


def test_training_speed_measures_both(tmp_path):
    case = next(s for s in base_shapes.subjects("tiny", 2) if "FLUX.1" in s.name)
    row = training_speed.compare(case, "fp32", False, rounds=1)
    ours, theirs = row["parameters"]
    assert 0.9 < ours / theirs < 1.1
    assert 0.8 < row["memory_ratio"] < 1.3


def test_the_page_starts_and_makes_its_first_picture(tmp_path):
    first_picture.main(["--starts", "1", "--results_dir", str(tmp_path)])
    start = json.loads((tmp_path / "first_picture.json").read_text())["starts"][0]
    assert 0 < start["page"] < start["picture"] and start["steps"] == 25 and start["processor"] > 1


@pytest.mark.parametrize("name", ["lily", "lora", "lokr", "vera", "fourierft"])
def test_sizes_come_near_the_budget(name):
    pipe = base_model.load_pipeline()
    size = size_for(METHODS[name], pipe, "small")
    count = METHODS[name].put(copied(pipe), size).parameters
    assert 0.65 < count / BUDGETS["small"] < 1.5


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.sized])
def test_every_adapter_starts_as_the_base(name):
    pipe, sizes = copied(base_model.load_pipeline()), METHODS[name].sizes
    before = answer(pipe)
    METHODS[name].put(pipe, sizes[len(sizes) // 2])
    assert (answer(pipe) - before).abs().max() < 0.01  # UniLoRA's start is small, not zero


@pytest.mark.slow
def test_a_run_of_the_subject_benchmark(tmp_path, monkeypatch):
    names = ["lily", "textual-inversion"]
    monkeypatch.setattr(scores, "STEPS", 2)
    monkeypatch.setattr(scores, "UNRELATED", 2)
    monkeypatch.setattr(scores, "POSES", 1)
    monkeypatch.setattr(learning, "STEPS_TIMED", 1)
    flags = ["--methods", *names, "--budgets", "small", "--seeds", "0", "--subjects", "owl", "--tune_on", "ghost"]
    flags += ["--max_train_steps", "2", "--pictures_dir", str(tmp_path / "drawn"), "--results_dir", str(tmp_path)]
    monkeypatch.setattr(fidelity, "stepped", lambda rate, direction: rate)  # one rate is tried
    fidelity.main(flags)
    rows = json.loads((tmp_path / "fidelity.json").read_text())["rows"]
    assert sorted(row["method"] for row in rows) == names
    assert all(0 < row["similarity"] < 1 and row["bytes"] >= 4 * row["parameters"] for row in rows)
    drifts = {row["method"]: row["drift"] for row in rows}
    assert abs(drifts["textual-inversion"]) < 1e-3 < drifts["lily"]  # which leaves prompts without its token alone
    kept = [(tmp_path / f"fidelity_{name}.jsonl").read_text() for name in ("runs", "costs")]
    fidelity.main(flags)  # nothing is run or timed again
    assert [(tmp_path / f"fidelity_{name}.jsonl").read_text() for name in ("runs", "costs")] == kept
    assert len(kept[1].splitlines()) == len(names)
    assert (tmp_path / "fidelity.png").stat().st_size > 10_000


def test_an_ablation_measures_unseen_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(ablations, "UNSEEN", 12)
    monkeypatch.setattr(ablations, "LEVELS", 1)
    monkeypatch.setattr(scores, "STEPS", 4)
    monkeypatch.setattr(scores, "POSES", 1)
    flags = ["--variants", "pairs of experts", "--rates", "5e-3", "--subjects", "ghost", "--max_train_steps", "3"]
    ablations.main([*flags, "--results_dir", str(tmp_path)])
    (row,) = json.loads((tmp_path / "ablations.json").read_text())["rows"]
    assert 0.2 < row["loss"] < 1 and 0 < row["shift"] < 0.5  # it learns, and moves other things little
    assert 0.2 < row["similarity"] < 1
    done = (tmp_path / "ablation_runs.jsonl").read_text()
    ablations.main([*flags, "--results_dir", str(tmp_path)])  # nothing is run again
    assert (tmp_path / "ablation_runs.jsonl").read_text() == done


@pytest.mark.parametrize("change", ["pairs of experts", "orthogonal A", "routers x 4"])
def test_a_changed_fresh_adapter_changes_no_answer(change):
    pipe = copied(base_model.load_pipeline())
    before = answer(pipe)
    ablations.VARIANTS[change](pipe, 4)
    assert torch.equal(answer(pipe), before)


def test_the_search_goes_uphill_and_stops():
    bench = fidelity.Bench.__new__(fidelity.Bench)
    asked = []

    def worth(name, budget, rate):
        asked.append(rate)
        return -abs(torch.tensor(rate).log10().item() + 1.7)  # best at 0.02

    bench.worth = worth
    assert bench.tuned(METHODS["lora"], "small") == 0.02
    assert sorted(set(asked)) == [0.005, 0.01, 0.02, 0.05]
    assert [fidelity.stepped(rate, up) for rate, up in ((1e-3, 1), (2e-3, 1), (5e-3, 1), (1e-3, -1), (0.02, -1))] == [
        2e-3, 5e-3, 1e-2, 5e-4, 1e-2,
    ]  # fmt: skip


def test_the_rate_of_the_table_is_the_one_that_was_found_best():
    args = fidelity.parse_args(["--tune_on", "ghost", "--subjects", "owl", "--seeds", "0"])

    def run(subject, rate, similarity):
        score = {"similarity": similarity, "styled_similarity": 0.5}
        return {"method": "lora", "budget": "tiny", "subject": subject, "seed": 0, "rate": rate, **score}

    runs = [run("ghost", 1e-3, 0.5), run("ghost", 2e-3, 0.7), run("ghost", 5e-3, 0.6), run("owl", 2e-3, 0.3)]
    assert report.best_rates(runs, args) == {("lora", "tiny"): 2e-3}
    assert list(report.collected([*runs, run("owl", 5e-3, 0.9)], args)) == [
        ("lora", "tiny", 2e-3),
        ("lora", "tiny", 5e-3),
    ]


def test_a_seed_counts_when_all_its_subjects_are_learnt_and_two_methods_meet_at_the_seeds_of_both():
    args = fidelity.parse_args(["--subjects", "owl", "cactus", "--seeds", "0", "1"])

    def runs(method, seed, subjects, similarity):
        rest = {"method": method, "budget": "tiny", "rate": 1e-3, "seed": seed, "similarity": similarity}
        return [{**rest, "subject": subject} for subject in subjects]

    both = ["owl", "cactus"]
    done = [*runs("lily", 0, both, 0.6), *runs("lily", 1, both, 0.9)]
    done += [*runs("lora", 0, both, 0.5), *runs("lora", 1, ["owl"], 0.0)]
    lily, lora = report.collected(done, args).values()
    assert (over_subjects.seeds_of(lily), over_subjects.seeds_of(lora)) == ({0, 1}, {0})
    assert over_subjects.difference(lily, lora, "similarity") == [0.1, 0.1, 0.1]
    table = report.of_common_seeds(report.collected(done, args))
    assert [over_subjects.seeds_of(group) for group in table.values()] == [{0}, {0}]
    assert report.of_common_seeds({"lily": runs("lily", 0, both, 0.6), "lora": runs("lora", 1, both, 0.5)}) == {}


def test_the_frontier_and_the_intervals():
    rows = [
        {"bytes": bytes_, "similarity": similarity}
        for bytes_, similarity in ((10, 0.5), (20, 0.4), (20, 0.6), (30, 0.6), (40, 0.7))
    ]
    assert [(r["bytes"], r["similarity"]) for r in figure.frontier(rows)] == [(10, 0.5), (20, 0.6), (40, 0.7)]
    low, high = over_subjects.interval([0.4, 0.5, 0.6])
    assert 0.4 <= low < 0.5 < high <= 0.6


def test_lily_beside_a_rival_costs_no_more():
    def runs(bytes_, similarity, drift):
        rest = dict.fromkeys(over_subjects.SCORES, 0.5)
        return [
            {**rest, "bytes": bytes_, "subject": subject, "seed": 0, "similarity": similarity + more, "drift": drift}
            for subject, more in (("owl", 0.0), ("cactus", 0.2))
        ]

    groups = {
        ("lora", "small", 1e-2): runs(100, 0.5, 0.1),
        ("lora", "tiny", 1e-2): runs(50, 0.4, 0.1),
        ("lily", "small", 1e-3): runs(104, 0.6, 0.1),
        ("lily", "small", 2e-3): runs(104, 0.9, 0.2),  # drifts
        ("lily", "medium", 1e-3): runs(400, 0.9, 0.1),  # is larger
    }
    (row,) = no_more_drift.pairs(groups)
    assert (row["rival"], row["ours"]) == (("lora", "small", 1e-2), ("lily", "small", 1e-3))
    assert row["differences"]["similarity"] == [0.1, 0.1, 0.1]
    assert "+0.100 (+0.100 to +0.100)" in no_more_drift.table([row], no_more_drift.NO_MORE)[-1]


def test_lily_beside_lora_on_the_same_layers_whatever_it_costs():
    def runs(seed, similarity):
        rest = dict.fromkeys(over_subjects.SCORES, 0.5)
        return [{**rest, "bytes": 100, "subject": s, "seed": seed, "similarity": similarity} for s in ("owl", "cactus")]

    ours, lora = no_more_drift.SAME_LAYERS[0]
    (row,) = no_more_drift.same_layers({ours: runs(0, 0.4), lora: runs(0, 0.5)})
    assert (row["rival"], row["ours"], row["seeds"]) == (lora, ours, 1)
    assert row["differences"]["similarity"][0] == pytest.approx(-0.1)
    assert no_more_drift.same_layers({ours: runs(0, 0.4), lora: runs(1, 0.5)}) == []  # no seed in common
    assert no_more_drift.same_layers({ours: runs(0, 0.4)}) == []
