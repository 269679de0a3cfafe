"""What an adapter costs when pictures are made: Lily, PEFT's LoRA, PEFT's Lily and the bare model, side by side.

    python -m benchmarks.speed
    python -m benchmarks.speed --size wide --precisions bf16 --models "Stable Diffusion"
    python -m benchmarks.speed --models embedded --target_modules attention feed-forward
    python -m benchmarks.speed --size tiny --rounds 1 --results_dir outputs/try      # does it run?

All have about as many parameters and the base's type. Forward passes take turns in one process, each round in another
order; a ratio is that of one round, and the median of the rounds counts. Passes of a whole model differ by more than an
adapter adds, so the attention modules, and adapted layers outside them, take turns by themselves too. Files are those
that each tool writes by its own call. Operators are those that torch dispatches for one adapted layer beyond the
layer's own; views, which compute nothing, are left out. `benchmarks/training_speed.py` has the training step.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from tqdm import tqdm

from benchmarks import base_shapes
from benchmarks.base_shapes import (
    CONFIG,
    Subject,
    add_options,
    base_of,
    chosen,
    config_of,
    equal_rank,
    facts,
    inputs_of,
    layers_of,
    results_of,
    seconds,
    twin,
    what_of,
)
from benchmarks.measures import write_results
from lily_diffusion import LilyConfig, attach, fuse_lily, load_lily_weights, save_lily_weights, set_adapters
from lily_diffusion.sharing import attention_modules, select
from lily_diffusion.state import get_adapters

RIVALS = ("LoRA", "PEFT's Lily", "Lily", "Lily, frozen and fused")
REPEATS = 3  # of what is attached and loaded; the fastest counts
VIEWS = {"view", "t", "transpose", "_unsafe_view", "expand", "detach", "alias", "unsqueeze", "slice", "reshape"}


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("--compiled", action="store_true", help="compile every model first")
    return parser.parse_args(argv)


def put(name: str, base: nn.Module, config: LilyConfig, rank: int) -> tuple[nn.Module, Any]:
    """One rival on a model of its own that shares the base's weights, and what saves it."""
    model, dtype = twin(base), next(base.parameters()).dtype
    if name == "LoRA":
        base_shapes.lora(model, config, rank)
        return nn.Module.to(model, dtype), lambda folder: model.save_lora_adapter(folder)
    if name == "PEFT's Lily":
        wrapped = base_shapes.peft_lily(model, config)
        nn.Module.to(wrapped, dtype)
        return model, wrapped.save_pretrained
    if name == "Lily":
        awake(attach(model, config).to(dtype))
        return model, lambda folder: save_lily_weights(model, folder)
    for projection in select(model, config.target_modules):  # what is fused gets weights of its own
        linear = model.get_submodule(projection.name)
        linear.weight = nn.Parameter(linear.weight.clone(), requires_grad=False)
    awake(attach(model, replace(config, routing="static")))
    fuse_lily(model)
    return model, None


@torch.no_grad()
def awake(adapter: nn.Module) -> None:
    for parameter in adapter.lily_B.parameters():  # type: ignore[operator, union-attr]
        nn.init.normal_(parameter, std=1e-3)


def compare(subject: Subject, precision: str, rounds: int, config: LilyConfig, compiled: bool) -> dict[str, Any]:
    """All rivals on one base."""
    base, inputs = base_of(subject, precision).eval(), inputs_of(subject, precision)
    rank = equal_rank(base, config)
    models: dict[str, Any] = {"bare": twin(base)}
    savers: dict[str, Any] = {}
    for name in RIVALS:
        models[name], savers[name] = put(name, base, config, rank)
    layers = [p.name for p in select(base, config.target_modules)]
    operators = {name: operators_each(models[name], models["bare"], inputs, len(layers)) for name in RIVALS}
    torch._dynamo.reset()  # it compiles only so many models of one class
    compiler = torch.compile if compiled else lambda called: called
    calls = {name: forward(compiler(model.eval()), inputs) for name, model in models.items()}
    times = rotate(calls, rounds)
    bare = times["bare"]
    attending = {name: compiler(call) for name, call in adapted_parts(models, inputs, layers).items()}
    alone = rotate({"pass": calls["bare"], **attending}, rounds)
    row: dict[str, Any] = {
        "model": subject.name, "precision": precision, "compiled": compiled, "r_lora": rank,
        "bare_ms": round(1e3 * statistics.median(bare), 2),
    }  # fmt: skip
    for name in RIVALS:
        ratios = [mine / theirs for mine, theirs in zip(times[name], bare, strict=True)]
        row[name] = {"forward": round(statistics.median(ratios), 3), "operators": operators[name]}
        turns = zip(alone[name], alone["bare"], alone["pass"], strict=True)
        row[name]["added"] = round(statistics.median((mine - theirs) / whole for mine, theirs, whole in turns), 4)
        if savers[name] is not None and not compiled:
            row[name] |= files_and_switches(name, base, models[name], savers[name], config, rank)
    return row


def forward(model: Any, inputs: dict[str, Tensor]) -> Callable[[], Any]:
    @torch.no_grad()
    def call() -> None:
        model(**inputs, return_dict=False)

    call()
    return call


@torch.no_grad()
def adapted_parts(
    models: dict[str, Any], inputs: dict[str, Tensor], layers: Sequence[str]
) -> dict[str, Callable[[], Any]]:
    """For each model, a call of its attention modules and other adapted layers, given what a bare pass gives them."""
    names = [name for name, _ in attention_modules(models["bare"])]
    names += [layer for layer in layers if not any(layer.startswith(f"{name}.") for name in names)]
    given: list[Any] = []
    hooks = [
        models["bare"]
        .get_submodule(name)
        .register_forward_pre_hook(lambda *call, name=name: given.append((name, *call[1:])), with_kwargs=True)
        for name in names
    ]
    models["bare"](**inputs, return_dict=False)
    for hook in hooks:
        hook.remove()

    @torch.no_grad()
    def call(modules: list[nn.Module]) -> list[Any]:  # answers that nobody wants would not be compiled
        return [module(*args, **kwargs) for module, (_, args, kwargs) in zip(modules, given, strict=True)]

    return {n: functools.partial(call, [m.get_submodule(name) for name, *_ in given]) for n, m in models.items()}


def rotate(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every call in every round; the rounds begin one further each time, and the first only warms up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for i in range(rounds + 1):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            times[name].append(seconds(calls[name]))
    return {name: values[1:] for name, values in times.items()}


class Operators(TorchDispatchMode):
    """Counts what computes something."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ not in VIEWS
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def operators_each(model: nn.Module, bare: nn.Module, inputs: dict[str, Tensor], layers: int) -> float:
    """Operators for one adapted layer, on average."""
    counts = []
    for one in (model, bare):
        with Operators() as operators:
            one(**inputs, return_dict=False)
        counts.append(operators.count)
    return round((counts[0] - counts[1]) / layers, 2)


def files_and_switches(
    name: str, base: nn.Module, model: Any, save: Any, config: LilyConfig, rank: int
) -> dict[str, Any]:
    """Bytes of the file, and milliseconds to attach, to load the file, and to set another weight."""
    with tempfile.TemporaryDirectory() as folder:
        save(folder)
        size = sum(file.stat().st_size for file in Path(folder).rglob("*.safetensors"))
        trained = sum(p.numel() * p.element_size() for p in adapter_parameters(name, model))
        copying = min(seconds(lambda: twin(base)) for _ in range(REPEATS))
        attaching = min(seconds(lambda: put(name, base, config, rank)) for _ in range(REPEATS)) - copying
        loading = min(seconds(functools.partial(load, name, twin(base), folder)) for _ in range(REPEATS))
    switch: Callable[[], Any] | None = None
    if name == "Lily":
        switch = lambda: set_adapters(model, ["default"], [0.7])  # noqa: E731
    elif name == "LoRA":
        switch = lambda: model.set_adapters(["default"], [0.7])  # noqa: E731
    return {
        "bytes": size, "bytes_of_parameters": round(size / trained, 3), "attach_ms": round(1e3 * attaching, 1),
        "load_ms": round(1e3 * loading, 1), "switch_ms": switch and round(1e3 * seconds(switch), 2),
    }  # fmt: skip


def adapter_parameters(name: str, model: Any) -> list[Tensor]:
    """Each tensor once."""
    if name == "Lily":
        return list(get_adapters(model)["default"].parameters())
    return [p for key, p in model.named_parameters() if "lora_" in key or "lily_" in key]


def load(name: str, model: Any, folder: str) -> None:
    if name == "LoRA":
        model.load_lora_adapter(
            folder, prefix=None, use_safetensors=True, weight_name="pytorch_lora_weights.safetensors"
        )
    elif name == "Lily":
        load_lily_weights(model, folder)
    else:
        peft.PeftModel.from_pretrained(model, folder)


def page(result: dict[str, Any]) -> str:
    rows, batch, rounds = result["rows"], result["batch"], result["rounds"]
    compiled = rows[0]["compiled"]
    lines = [
        f"# What an adapter costs when pictures are made{' by a compiled model' * compiled}{what_of(result)}\n",
        f"Lily and PEFT's Lily with r={CONFIG.r}, stride_A={CONFIG.stride_A}, num_B={CONFIG.num_B}; LoRA at the rank "
        f"with as many parameters; {layers_of(result)}, batch {batch}, {rounds} rounds. Time is that of the "
        "bare model's forward pass; added, what the adapted modules alone take longer, in percent of that pass. In a "
        "cell: LoRA, PEFT's Lily, Lily, and where there are four, Lily frozen and fused.\n",
    ]
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "model": lambda row: f"{row['model']} (LoRA r={row['r_lora']})",
        "precision": lambda row: row["precision"],
        "bare, ms": lambda row: f"{row['bare_ms']:g}",
        "time": each(lambda one: f"{one['forward']:.2f}"),
        "added, %": each(lambda one: f"{100 * one['added']:.1f}"),
    }
    if not compiled:
        columns |= {
            "operators a projection": each(lambda one: f"{one['operators']:g}", RIVALS[:3]),
            "file / parameters": each(lambda one: f"{one['bytes_of_parameters']:.2f}", RIVALS[:3]),
            "attach, ms": each(lambda one: f"{one['attach_ms']:.0f}", RIVALS[:3]),
            "load, ms": each(lambda one: f"{one['load_ms']:.0f}", RIVALS[:3]),
        }
    lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines += [f"| {' | '.join(cell(row) for cell in columns.values())} |" for row in rows]
    said = (
        f"Lily adds {parts(rows, 'LoRA')} times what LoRA adds, {parts(rows, RIVALS[1])} times what PEFT's Lily adds."
    )
    if not compiled:
        ours, theirs = (statistics.median(row[name]["switch_ms"] for row in rows) for name in ("Lily", "LoRA"))
        said += f" Another weight is set in {ours:.1f} ms, LoRA's in {theirs:.1f}."
    return "\n".join([*lines, "", said])


def each(said: Callable[[dict[str, Any]], str], names: Sequence[str] = RIVALS) -> Callable[[dict[str, Any]], str]:
    """A cell of a row: what is said of each of the rivals."""
    return lambda row: ", ".join(said(row[name]) for name in names)


def parts(rows: list[dict[str, Any]], rival: str) -> str:
    """What Lily adds to a pass by what a rival adds: the median of the rows, and in brackets their ends."""
    found = [row["Lily"]["added"] / row[rival]["added"] for row in rows]
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    cases = [(subject, precision) for subject in chosen(args) for precision in args.precisions]
    rows = []
    for subject, precision in tqdm(cases, desc="settings"):
        rows.append(compare(subject, precision, args.rounds, config_of(args), args.compiled))
    about = {"batch": args.batch_size, "rounds": args.rounds, "targets": args.target_modules, "size": args.size}
    result = {"rows": rows, **about, "conditions": facts()}
    name = results_of("speed_compiled" if args.compiled else "speed", args)
    write_results(name, result, page(result), Path(args.results_dir))
    print(page(result))


if __name__ == "__main__":
    main()
