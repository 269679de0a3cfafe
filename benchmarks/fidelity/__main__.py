"""Which method learns a subject better, byte for byte?

    python -m benchmarks.fidelity
    python -m benchmarks.fidelity --model embedded-dit --methods lily lora --budgets small --seeds 0
    python -m benchmarks.fidelity --part 1/2 & python -m benchmarks.fidelity --part 2/2      # on two cores

For each method and budget of trained parameters, the learning rate is sought on three subjects: from where the method
starts, up or down the series 1, 2, 5, 10, while the drawn pictures come nearer to the true ones. The other twelve are
learnt at the best rate, once for each seed. Every run is kept with the results, and none is repeated, as is what a
step of each method costs; the report takes what is there.
"""

from __future__ import annotations

import argparse
import functools
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.fidelity import kept, report
from benchmarks.fidelity.learning import Cost, cost, family_of, fresh, learn, lesson
from benchmarks.fidelity.methods import BUDGETS, METHODS, ONE_SIZE, Method, size_for
from benchmarks.fidelity.scores import measured, truths_of, unrelated_features
from benchmarks.measures import RESULTS
from benchmarks.subjects import CLASSES
from lily_diffusion import base_model
from lily_diffusion.base_model.likeness import Likeness
from lily_diffusion.base_model.pictures import HELD_OUT, load_emoji
from lily_diffusion.grid import contact_sheet

TUNED_ON, MEASURED_ON = list(CLASSES)[:3], list(CLASSES)[3:]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", choices=["embedded", "embedded-dit"], default="embedded")
    add("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="NAME")
    add("--budgets", nargs="+", choices=BUDGETS, default=list(BUDGETS))
    add("--subjects", nargs="+", choices=MEASURED_ON, default=MEASURED_ON, metavar="NAME")
    add("--tune_on", nargs="+", choices=TUNED_ON, default=TUNED_ON, metavar="NAME")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2])
    add("--rates", nargs="+", type=float, help="measure at these learning rates too, whichever was found best")
    add("--max_train_steps", type=int, default=100)
    add("--train_batch_size", type=int, default=4)
    add("--part", default="1/1", help="1/2: the first half of the work, for one of two processes")
    add("--tune_only", action="store_true", help="seek the learning rates, and stop")
    add("--report_only", action="store_true", help="learn nothing; what a step costs is measured if it is not known")
    add("--pictures_dir", default="outputs/fidelity", help="what was drawn")
    add("--results_dir", default=str(RESULTS))
    return parser.parse_args(argv)


class Bench:
    """One base model, and every run on it that was asked for, now or before."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.pictures = Path(args.pictures_dir) / args.model
        self.file = kept.runs_file(args.results_dir, args.model)
        self.costs = kept.runs_file(args.results_dir, args.model, "fidelity_costs")
        self.settings = report.settings(args)
        self.done = {self.key(**run): run for run in kept.read(self.file) if run["settings"] == self.settings}
        self.likeness = Likeness()
        self.emoji = load_emoji(str(base_model.SUBJECTS), {n: HELD_OUT[n] for n in [*args.tune_on, *args.subjects]})

    @staticmethod
    def key(method: str, budget: str, subject: str, seed: int, rate: float, **_: Any) -> tuple[Any, ...]:
        return method, budget, subject, seed, rate

    @functools.cached_property
    def family(self) -> Any:
        return family_of(self.args.model)

    @functools.cached_property
    def unrelated(self) -> torch.Tensor:
        """Features of the unrelated prompts drawn by the base."""
        return unrelated_features(fresh(self.family).pipe, self.args.model, self.likeness)

    @functools.cache  # noqa: B019
    def truths(self, subject: str) -> Any:
        return truths_of(subject, self.emoji, self.likeness)

    @functools.cache  # noqa: B019
    def size(self, name: str, budget: str) -> Any:
        return size_for(METHODS[name], self.family.pipe, budget)

    def run(self, name: str, budget: str, subject: str, seed: int, rate: float) -> dict[str, Any]:
        """What this method makes of one subject, unless it was done before. To seek a rate, less is drawn."""
        key, args = self.key(name, budget, subject, seed, rate), self.args
        if key in self.done:
            return self.done[key]
        size = self.size(name, budget)  # which draws adapters of its own
        torch.manual_seed(seed)
        family = fresh(self.family)
        given = lesson(family, subject, self.emoji)
        learner = METHODS[name].put(family.pipe, size)
        outcome = learn(
            family, learner, given, subject, rate, args.max_train_steps, args.train_batch_size, seed
        )  # fmt: skip
        pipe, started = family.pipe, time.process_time()
        unrelated = None if subject in TUNED_ON else self.unrelated
        scores, images = measured(
            pipe, args.model, subject, learner.word, self.truths(subject), unrelated, self.likeness
        )
        result = {
            "settings": self.settings, "method": name, "budget": budget, "size": size, "subject": subject, "seed": seed,
            "rate": rate, "parameters": learner.parameters, "bytes": learner.file_bytes(), **scores,
            "loss": round(outcome.loss, 5), "training_seconds": round(outcome.seconds, 1),
            "drawing_seconds": round(time.process_time() - started, 1),
        }  # fmt: skip
        self.done[key] = result
        kept.append(self.file, result)
        sheet = self.pictures / f"{name}_{budget}" / f"{subject.replace(' ', '_')}_{seed}_{rate:g}.jpg"
        sheet.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(images, [""] * len(images), columns=10, scale=1).save(sheet, quality=85)
        tqdm.write(
            f"{name} {budget} {subject} {seed} {rate:g}: {scores['similarity']:.3f} {scores['styled_similarity']:.3f} "
            f"drift {scores.get('drift', 0):.3f} colour {scores['colour']} style {scores['style']} "
            f"({outcome.seconds:.0f} + {result['drawing_seconds']:.0f} s)"
        )
        return result

    def cost(self, name: str, size: Any) -> Cost:
        """What a step of training takes, unless it was measured before."""
        subject, batch = self.args.tune_on[0], self.args.train_batch_size
        what = {"settings": self.settings, "method": name, "size": size}
        for line in kept.read(self.costs):
            if what.items() <= line.items():
                return Cost(line["passes"], line["memory"])
        family = fresh(self.family)
        learner = METHODS[name].put(family.pipe, size)
        taken = cost(self.family, family, learner, lesson(family, subject, self.emoji), subject, batch)
        kept.append(self.costs, {**what, **taken._asdict()})
        return taken

    def worth(self, name: str, budget: str, rate: float) -> float:
        """How good the rate is, on the tuning subjects."""
        return report.worth([self.run(name, budget, subject, 0, rate) for subject in self.args.tune_on])

    def tuned(self, method: Method, budget: str) -> float:
        """The best rate of the series, found by going uphill from where the method starts."""
        worth = functools.cache(functools.partial(self.worth, method.name, budget))
        best = method.rate
        for direction in (1, -1):
            while worth(rate := stepped(best, direction)) > worth(best):
                best = rate
        return best


def stepped(rate: float, direction: int) -> float:
    """The next of the series 1, 2, 5, 10, ..., up or down."""
    digit, power = f"{rate:e}".split("e")
    series = (0.5, 1, 2, 5, 10)
    return float(f"{series[series.index(float(digit)) + direction]}e{power}")


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    bench = Bench(args)
    pairs = [
        (METHODS[name], budget)
        for name in args.methods
        for budget in (args.budgets if METHODS[name].sized else [ONE_SIZE])
    ]
    part, parts = (int(number) for number in args.part.split("/"))
    if not args.report_only:
        pairs = pairs[part - 1 :: parts]
        rates = {(method.name, budget): bench.tuned(method, budget) for method, budget in tqdm(pairs, desc="rates")}
        for seed in [] if args.tune_only else args.seeds:
            for method, budget in tqdm(pairs, desc=f"seed {seed}"):
                for rate in dict.fromkeys([rates[method.name, budget], *(args.rates or ())]):
                    for subject in args.subjects:
                        bench.run(method.name, budget, subject, seed, rate)
    if parts == 1:
        report.write(list(bench.done.values()), args, bench.cost)


if __name__ == "__main__":
    main()
