"""What a training step costs, in time and memory, beside diffusers' own LoRA recipe with as many trained parameters.

    python -m benchmarks.training_speed
    python -m benchmarks.training_speed --size tiny --rounds 2 --results_dir outputs/try      # does it run?

Both rivals take the same step on the same batch: forward, mean squared error, backward, gradients cut to length 1,
AdamW. The recipe is that of diffusers' training scripts: `model.add_adapter(LoraConfig(...))` on the same projections,
the base frozen, and for bf16 kept in it, the trained weights in float32 under autocast. LoRA's rank is the one that
comes nearest to Lily's number of parameters. Steps take turns, within a pair in either order, and the median of the
pairs' ratios counts.

Memory is what stays between steps (weights, and the states of the optimizer) and the peak of what a step allocates on
top (activations, gradients, temporaries). On a GPU the peak is `max_memory_allocated` less what was allocated before;
on the CPU it is the highest running sum of what torch's allocator reports to its profiler, which leaves out only what
libraries like oneDNN keep for themselves.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers.training_utils import cast_training_params
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

from benchmarks.base_shapes import (
    CONFIG,
    CUDA,
    DEVICE,
    PRECISIONS,
    Subject,
    add_options,
    base_of,
    chosen,
    config_of,
    equal_rank,
    facts,
    inputs_of,
    layers_of,
    lily,
    lora,
    results_of,
    seconds,
    twin,
    what_of,
)
from benchmarks.measures import write_results
from lily_diffusion import LilyConfig


class Rival(NamedTuple):
    """One way to train, ready for its next step."""

    step: Callable[[], None]
    trained: int  # parameters
    kept: int  # bytes that stay between steps, once a step was taken


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    return parser.parse_args(argv)


def rival(
    base: nn.Module, inputs: dict[str, Tensor], way: Callable[[Any], list[nn.Parameter]], precision: str,
    checkpointing: bool,
) -> Rival:  # fmt: skip
    """The base with adapters of one kind, after one step."""
    dtype = PRECISIONS[precision]
    model = twin(base)
    trained = way(model)
    cast_training_params(model, torch.float32)  # LoRA's; Lily's are so already
    if checkpointing:
        model.enable_gradient_checkpointing()
    model.train()
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    target = torch.randn_like(next(iter(inputs.values())), dtype=torch.float32)
    autocast = torch.autocast(DEVICE.type, dtype) if dtype != torch.float32 else contextlib.nullcontext()

    def step() -> None:
        with autocast:
            loss = (model(**inputs, return_dict=False)[0].float() - target).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step()
    states = [value for state in optimizer.state.values() for value in state.values()]
    unique = {id(p): p for p in [*model.parameters(), *model.buffers(), *trained, *states]}
    kept = sum(p.numel() * p.element_size() for p in unique.values())
    return Rival(step, sum(p.numel() for p in trained), kept)


def peak(step: Callable[[], None]) -> int:
    """Bytes that a step has at most beyond those that it began with."""
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as record:
        step()
    results: Any = record.profiler.kineto_results  # type: ignore[union-attr]
    events = [
        e for e in results.events() if e.name() == "[memory]" and e.device_type() == torch.autograd.DeviceType.CPU
    ]
    now = highest = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        highest = max(highest, now)
    return highest


def compare(
    subject: Subject, precision: str, checkpointing: bool, rounds: int, config: LilyConfig = CONFIG
) -> dict[str, Any]:
    """Time and memory of both on one base."""
    base, inputs = base_of(subject, precision), inputs_of(subject, precision)
    rank = equal_rank(base, config)
    ours = rival(base, inputs, lambda model: lily(model, config), precision, checkpointing)
    theirs = rival(base, inputs, lambda model: lora(model, config, rank), precision, checkpointing)
    pairs = []
    for i in range(rounds + 1):
        order = (ours, theirs) if i % 2 else (theirs, ours)
        times = {id(one): seconds(one.step) for one in order}
        pairs.append((times[id(ours)], times[id(theirs)]))
    pairs = pairs[1:]  # the first warms up
    memory = [one.kept + peak(one.step) for one in (ours, theirs)]
    return {
        "model": subject.name,
        "precision": precision,
        "checkpointing": checkpointing,
        "r_lora": rank,
        "parameters": [ours.trained, theirs.trained],
        "seconds": [statistics.median(times) for times in zip(*pairs, strict=True)],
        "bytes": memory,
        "time_ratio": statistics.median(a / b for a, b in pairs),
        "memory_ratio": memory[0] / memory[1],
    }


def page(result: dict[str, Any]) -> str:
    rows, batch, rounds = result["rows"], result["batch"], result["rounds"]
    lines = [
        f"# A training step beside diffusers' LoRA recipe{what_of(result)}\n",
        f"Lily r={CONFIG.r}, stride_A={CONFIG.stride_A}, num_B={CONFIG.num_B}, and LoRA at the rank with as many "
        f"parameters, on {layers_of(result)}; batch {batch}, AdamW, {rounds} pairs of steps. Ratios are Lily / "
        "LoRA: above 1, Lily takes more. Memory is what stays between steps and the peak of a step on top "
        f"({'CPU' if result['conditions']['on'].startswith('CPU') else 'CUDA'} allocator). In a cell: Lily, LoRA.\n",
        "| model | precision | checkpointing | trained parameters (r of LoRA) | step, ms | ratio | MiB | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        millions = ", ".join(f"{number / 1e6:.2f} M" for number in row["parameters"])
        milliseconds = ", ".join(f"{seconds * 1e3:.0f}" for seconds in row["seconds"])
        mebibytes = ", ".join(f"{number / 2**20:.0f}" for number in row["bytes"])
        lines.append(
            f"| {row['model']} | {row['precision']} | {'on' if row['checkpointing'] else 'off'} "
            f"| {millions} ({row['r_lora']}) | {milliseconds} | {row['time_ratio']:.2f} "
            f"| {mebibytes} | {row['memory_ratio']:.2f} |"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cases = [
        (subject, precision, checkpointing)
        for subject in chosen(args)
        for precision in args.precisions
        for checkpointing in (False, True)
    ]
    rows = [
        compare(subject, precision, checkpointing, args.rounds, config_of(args))
        for subject, precision, checkpointing in tqdm(cases, desc="settings")
    ]
    about = {"batch": args.batch_size, "rounds": args.rounds, "targets": args.target_modules, "size": args.size}
    result = {"rows": rows, **about, "conditions": facts()}
    write_results(results_of("training_speed", args), result, page(result), Path(args.results_dir))
    print(page(result))


if __name__ == "__main__":
    main()
