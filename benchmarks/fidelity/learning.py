"""One loop for every method: the same pictures, noise, order and optimizer; only what is trained differs."""

from __future__ import annotations

import itertools
import random
import statistics
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.base_shapes import seconds
from benchmarks.fidelity.methods import PLACEHOLDER, Learner, copied
from benchmarks.subjects import CLASSES, PICTURES
from benchmarks.training_speed import peak
from lily_diffusion import base_model
from lily_diffusion.base_model.pictures import COLOURS, describe, draw, random_scene
from lily_diffusion.training import parse_args
from lily_diffusion.training.families import Condition, Family, load_family
from lily_diffusion.training.run import TrainedModel

STEPS_TIMED = 9


class Lesson(NamedTuple):
    """What a subject is learnt from: latents' mean and deviation, and a caption, for each picture."""

    mean: Tensor
    std: Tensor
    colours: list[str]


class Outcome(NamedTuple):
    seconds: float  # of the processor
    loss: float  # mean of the last tenth of the steps


def family_of(model: str) -> Family:
    """The base model with the trainer's own way to noise and to ask; what it holds is the pipeline to copy."""
    length = base_model.CALL_OPTIONS.get(model, {}).get("max_sequence_length")
    flags = ["--max_sequence_length", str(length)] if length else []
    return load_family(parse_args(["--pretrained_model_name_or_path", model, "--instance_data_dir", "unused", *flags]))


def fresh(family: Family) -> Family:
    """The same, with models of its own to change."""
    return type(family)(copied(family.pipe), family.args)


def lesson(family: Family, subject: str, emoji: dict[str, Tensor]) -> Lesson:
    """The five pictures that benchmarks.subjects learns from."""
    rng = random.Random(f"learn {subject}")
    colours = rng.sample(list(COLOURS), PICTURES)
    scenes = [random_scene(subject, rng, style="plain", colour=colour) for colour in colours]
    return Lesson(*family.posterior(draw(scenes, emoji)), colours)


def named(subject: str, word: str, colour: str, style: str = "plain") -> str:
    return describe(f"{word} {CLASSES[subject]}", colour, style)


def learn(
    family: Family, learner: Learner, given: Lesson, subject: str, rate: float, steps: int, batch: int, seed: int
) -> Outcome:
    """Train what the learner trains, for some steps."""
    model = TrainedModel(family.denoiser, learner.adapters).train()
    losses = batch_losses(family, model, learner.word, given, subject, batch, seed)
    started = time.process_time()
    paces = learner.paces or [1.0] * len(learner.trained)
    groups = [{"params": [p], "lr": rate * pace} for p, pace in zip(learner.trained, paces, strict=True)]
    optimizer = torch.optim.AdamW(groups, weight_decay=1e-4)
    pace = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps if learner.falls else 1.0)
    recent: list[float] = []
    for loss in itertools.islice(losses, steps):
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.trained, 1.0)
        optimizer.step()
        pace.step()
        recent.append(loss.item())
    model.eval()
    tail = recent[-max(1, steps // 10) :]
    return Outcome(time.process_time() - started, sum(tail) / len(tail))


class Cost(NamedTuple):
    """What a step of training takes: time, in forward passes of the bare model with that batch, and bytes beside the
    bare model (what a method adds to it, gradients and states of what is trained, and the step's peak on top)."""

    passes: float
    memory: int


def cost(bare: Family, family: Family, learner: Learner, given: Lesson, subject: str, batch: int) -> Cost:
    """The median of a few steps, each beside a forward pass of the bare model."""
    model = TrainedModel(family.denoiser, {}).train()
    losses = batch_losses(family, model, learner.word, given, subject, batch, 0)
    optimizer = torch.optim.AdamW(learner.trained)

    def step() -> None:
        next(losses).backward()
        optimizer.step()

    passes = batch_losses(bare, TrainedModel(bare.denoiser, {}).eval(), "sks", given, subject, batch, 0)
    times = []
    for _ in range(STEPS_TIMED + 1):
        with torch.no_grad():
            times.append(seconds(lambda: next(passes)))
        times[-1] = seconds(step) / times[-1]
    states = [value for state in optimizer.state.values() for value in state.values()]
    added = size_of(held(family, learner)) - size_of(held(bare))
    return Cost(statistics.median(times[1:]), added + size_of(learner.trained) + size_of(states) + peak(step))


def held(family: Family, learner: Learner | None = None) -> list[Tensor]:
    """The tensors of all models of a pipeline, and of what a method has put beside them."""
    parts = [part for part in family.pipe.components.values() if isinstance(part, torch.nn.Module)]
    parts += learner.adapters.values() if learner else []
    return list({id(t): t for part in parts for t in [*part.parameters(), *part.buffers()]}.values())


def size_of(tensors: Iterable[Tensor]) -> int:
    """Bytes."""
    return sum(t.numel() * t.element_size() for t in tensors)


def batch_losses(
    family: Family, model: TrainedModel, word: str, given: Lesson, subject: str, batch: int, seed: int
) -> Iterator[Tensor]:
    """The loss of one batch after the other; every picture comes once in each round."""
    captions = [named(subject, word, colour) for colour in given.colours]
    inverts = word == PLACEHOLDER
    prompts: dict[str, Condition] = {} if inverts else family.encode_prompts(captions, torch.device("cpu"))
    rng = torch.Generator().manual_seed(seed)
    order: list[int] = []
    while True:
        while len(order) < batch:
            order += torch.randperm(len(captions), generator=rng).tolist()
        rows, order = order[:batch], order[batch:]
        mean, std = given.mean[rows], given.std[rows]
        latents = family.latents(mean, std, torch.randn(mean.shape, generator=rng))
        noise = torch.randn(mean.shape, generator=rng)
        timesteps = family.timesteps(torch.rand(batch, generator=rng))
        with torch.autocast("cpu", torch.bfloat16):
            asked = [family.encode(captions[i], torch.device("cpu")) if inverts else prompts[captions[i]] for i in rows]
            loss = family.losses(model, latents, noise, timesteps, family.batch(asked)).mean()
        yield loss
