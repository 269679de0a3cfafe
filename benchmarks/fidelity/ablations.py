"""What each choice in Lily is worth: the same budget, one thing changed at a time.

    python -m benchmarks.fidelity.ablations
    python -m benchmarks.fidelity.ablations --variants default num_B=2 --rates 2e-3 5e-3

On the three subjects that learning rates are tuned on: similarity of the drawn pictures as in `benchmarks.fidelity`
(over all prompts, the styled ones too), which needs many subjects and seeds before small differences show; so beside
it the loss itself, on true pictures of the subject that were not learnt from, at fixed noise, as a part of the base's
loss (lower is better), and how far the answers to other prompts move from the base's, as a part of the answers (shift,
lower is better). Every run is kept with the results, and none is repeated.
"""

from __future__ import annotations

import argparse
import functools
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.fidelity import kept
from benchmarks.fidelity.__main__ import TUNED_ON
from benchmarks.fidelity.learning import family_of, fresh, learn, lesson, named
from benchmarks.fidelity.methods import BUDGETS, METHODS, RANKS, Learner, Method, denoiser, lily, size_for
from benchmarks.fidelity.report import worth
from benchmarks.fidelity.scores import measured, truths_of, unrelated_prompts
from benchmarks.measures import RESULTS, conditions, results_name, write_results
from benchmarks.subjects import base_hash
from lily_diffusion import base_model
from lily_diffusion.base_model.likeness import Likeness
from lily_diffusion.base_model.pictures import COLOURS, HELD_OUT, draw, load_emoji, random_scene
from lily_diffusion.state import one_adapter
from lily_diffusion.training.families import Family
from lily_diffusion.training.run import TrainedModel

UNSEEN = 24  # true pictures of the subject, two a colour
LEVELS = 4  # noise levels of each
SCORES = ("similarity", "loss", "shift")
Values = dict[str, float]


def changed(change: Callable[[Any], None], pipe: Any, r: int, **options: Any) -> Learner:
    """Lily with its fresh adapter changed."""
    learner = lily(pipe, r, **options)
    with torch.no_grad():
        change(one_adapter(denoiser(pipe), None)[1])
    return learner


def paced(paces: dict[str, float], pipe: Any, r: int) -> Learner:
    """Lily with parts that learn at another pace: name of a part -> multiplier of the learning rate."""
    learner = lily(pipe, r)
    names = [name for name, _ in one_adapter(denoiser(pipe), None)[1].named_parameters()]
    learner.paces = [paces.get(name.split(".")[0], 1.0) for name in names]
    return learner


def falling(pipe: Any, r: int) -> Learner:
    """Lily with a learning rate that falls to zero."""
    learner = lily(pipe, r)
    learner.falls = True
    return learner


def pairs(std: float, adapter: Any) -> None:
    """Experts in pairs +N and -N under routers of zero: the update is zero, and yet every expert is another."""
    for B in adapter.lily_B:
        noise = torch.randn_like(B[0::2]) * std
        B[0::2], B[1::2] = noise, -noise
    for router in adapter.lily_router.parameters():
        router.zero_()


def orthogonal(adapter: Any) -> None:
    """Rows of A at right angles, as long as they are otherwise."""
    for A in adapter.lily_A.parameters():
        nn.init.orthogonal_(A, gain=math.sqrt(1 / 3))


def sharper(times: float, adapter: Any) -> None:
    """Routers that are decided from the start."""
    for router in adapter.lily_router.parameters():
        router.mul_(times)


def one_each(adapter: Any) -> None:
    """Static routers that begin with one expert each, by turns: no two layers have both A and B in common."""
    for group in adapter.groups:
        for number, layer in enumerate(group.layers):
            router = adapter.tensors(layer)[2]
            router.zero_()
            router[number % len(router)] = 4.0


VARIANTS: dict[str, Callable[..., Learner]] = {
    "default": lily,
    "num_B=2": functools.partial(lily, num_B=2),
    "num_B=8": functools.partial(lily, num_B=8),
    "stride_A=1": functools.partial(lily, stride_A=1),
    "stride_A=2": functools.partial(lily, stride_A=2),
    "stride_A=8": functools.partial(lily, stride_A=8),
    "stride_A=2, num_B=2": functools.partial(lily, stride_A=2, num_B=2),
    "scaling=1": functools.partial(lily, scaling=1.0),
    "scaling=4": functools.partial(lily, scaling=4.0),
    "routing=token": functools.partial(lily, routing="token"),
    "routing=batch": functools.partial(lily, routing="batch"),
    "routing=static": functools.partial(lily, routing="static"),
    "routing=static, an expert each": functools.partial(changed, one_each, routing="static"),
    "pairs of experts": functools.partial(changed, functools.partial(pairs, 0.02)),
    "orthogonal A": functools.partial(changed, orthogonal),
    "routers x 4": functools.partial(changed, functools.partial(sharper, 4.0)),
    "routers x 16": functools.partial(changed, functools.partial(sharper, 16.0)),
    "routers learn 10 times faster": functools.partial(paced, {"lily_router": 10.0}),
    "B learns 4 times faster": functools.partial(paced, {"lily_B": 4.0}),
    "A learns 4 times faster": functools.partial(paced, {"lily_A": 4.0}),
    "the rate falls to zero": falling,
    "dropout=0.1": functools.partial(lily, dropout=0.1),
    "LoRA": METHODS["lora"].put,
    "DoRA": METHODS["dora"].put,
}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", choices=["embedded", "embedded-dit"], default="embedded")
    add("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    add("--budget", choices=BUDGETS, default="small")
    add("--rates", nargs="+", type=float, default=[2e-3, 5e-3, 1e-2])
    add("--subjects", nargs="+", choices=TUNED_ON, default=TUNED_ON, metavar="NAME")
    add("--max_train_steps", type=int, default=100)
    add("--results_dir", default=str(RESULTS))
    return parser.parse_args(argv)


class Judge:
    """The loss on unseen pictures and the drift, at the same noise for everybody."""

    def __init__(self, family: Family, emoji: dict[str, Tensor]):
        self.family, self.emoji = family, emoji
        self.likeness = Likeness()
        self._base: dict[str, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def answers(self, family: Family, subject: str) -> tuple[Tensor, Tensor]:
        """Losses on the unseen pictures (UNSEEN * LEVELS,), and answers to unrelated prompts."""
        rng, noise = random.Random(f"judge {subject}"), torch.Generator().manual_seed(0)
        colours = [colour for colour in COLOURS for _ in range(UNSEEN // len(COLOURS))]
        scenes = [random_scene(subject, rng, style="plain", colour=colour) for colour in colours]
        mean, std = self.family.posterior(draw(scenes, self.emoji))
        latents = self.family.latents(mean, std, torch.zeros_like(mean))
        captions = [named(subject, "sks", colour) for colour in colours]
        others = unrelated_prompts()
        encoded = self.family.encode_prompts([*captions, *others], torch.device("cpu"))
        model = TrainedModel(family.denoiser, {}).eval()
        losses, answers = [], []
        with torch.autocast("cpu", torch.bfloat16):
            for level in range(LEVELS):
                t = self.family.timesteps(torch.full((len(latents),), (level + 0.5) / LEVELS))
                drawn = torch.randn(latents.shape, generator=noise)
                prompts = self.family.batch([encoded[c] for c in captions])
                losses.append(self.family.losses(model, latents, drawn, t, prompts))
                noisy = torch.randn((len(others), *latents.shape[1:]), generator=noise)
                prompts = self.family.batch([encoded[c] for c in others])
                answers.append(self.family.ask(model, noisy, t[:1].expand(len(others)), prompts))
        return torch.cat(losses).float(), torch.cat(answers).float()

    def values(self, family: Family, subject: str, word: str) -> Values:
        if subject not in self._base:
            self._base[subject] = self.answers(fresh(self.family), subject)
        (base_losses, base_answers), (losses, answers) = self._base[subject], self.answers(family, subject)
        truths, model = truths_of(subject, self.emoji, self.likeness), self.family.args.pretrained_model_name_or_path
        seen, _ = measured(family.pipe, model, subject, word, truths, None, self.likeness)
        return {
            "similarity": worth([seen]),
            "loss": (losses.sum() / base_losses.sum()).item(),
            "shift": ((answers - base_answers).norm() / base_answers.norm()).item(),
        }


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    family = family_of(args.model)
    emoji = load_emoji(str(base_model.SUBJECTS), {name: HELD_OUT[name] for name in args.subjects})
    judge = Judge(family, emoji)
    cells = [(v, rate, subject) for v in args.variants for rate in args.rates for subject in args.subjects]
    runs: dict[tuple[str, float], list[Values]] = {}
    file = kept.runs_file(args.results_dir, args.model, "ablation_runs")
    for variant, rate, subject in tqdm(cells, desc="runs"):
        asked = {"base": base_hash(args.model), "budget": args.budget, "steps": args.max_train_steps,
                 "variant": variant, "rate": rate, "subject": subject}  # fmt: skip
        done = (run for run in kept.read(file) if asked.items() <= run.items())
        if (run := next(done, None)) is None:
            run = {**asked, **cell(args, family, judge, variant, rate, subject)}
            kept.append(file, run)
        runs.setdefault((variant, rate), []).append(run)
    report(args, runs)


def cell(args: argparse.Namespace, family: Family, judge: Judge, variant: str, rate: float, subject: str) -> Values:
    method = Method(variant, VARIANTS[variant], RANKS, rate)
    size = size_for(method, family.pipe, args.budget)
    torch.manual_seed(0)
    own = fresh(family)
    learner = method.put(own.pipe, size)
    learn(own, learner, lesson(own, subject, judge.emoji), subject, rate, args.max_train_steps, 4, 0)
    values = {**judge.values(own, subject, learner.word), "size": size, "parameters": learner.parameters}
    tqdm.write(f"{variant} {rate:g} {subject}: {', '.join(f'{name} {values[name]:.4f}' for name in SCORES)}")
    return values


def report(args: argparse.Namespace, runs: dict[tuple[str, float], list[Values]]) -> None:
    rows = []
    for (variant, rate), values in runs.items():
        means = {key: round(sum(v[key] for v in values) / len(values), 4) for key in SCORES}
        rows.append({"variant": variant, "rate": rate, **means, **{k: values[0][k] for k in ("size", "parameters")}})
    result = {"rows": rows, "settings": {"budget": args.budget, "steps": args.max_train_steps, "model": args.model,
              "subjects": args.subjects}, "conditions": conditions()}  # fmt: skip
    write_results(results_name("ablations", args.model), result, page(result), Path(args.results_dir))
    print(page(result))


def page(result: dict[str, Any]) -> str:
    rows, settings = result["rows"], result["settings"]
    rates = sorted({row["rate"] for row in rows})
    lines = [
        "# What each choice is worth\n",
        f"The {settings['budget']} budget on {settings['model']}, {settings['steps']} steps of 4; mean over "
        f"{', '.join(settings['subjects'])}. In a cell: similarity of drawn pictures (higher is better), loss on "
        "unseen pictures of the subject, and shift of the answers to other prompts (lower is better), as parts of the "
        "base's.\n",
        f"| variant | r | parameters | {' | '.join(f'{rate:g}' for rate in rates)} |",
        f"|---|---|---|{'---|' * len(rates)}",
    ]
    for variant in dict.fromkeys(row["variant"] for row in rows):
        found = {row["rate"]: row for row in rows if row["variant"] == variant}
        first = next(iter(found.values()))
        cells = [", ".join(f"{found[r][name]:.3f}" for name in SCORES) if r in found else "" for r in rates]
        lines.append(f"| {variant} | {first['size']} | {first['parameters']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
