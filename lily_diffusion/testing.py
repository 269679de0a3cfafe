"""Does Lily work on a model? The checks that prove it, for your own model too.

from lily_diffusion.testing import check_model
print(check_model(model, {"hidden_states": x, "timestep": t, "encoder_hidden_states": text}))
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from .adapter import LilyAdapter
from .attach import attach, detach
from .config import LilyConfig
from .loaders import load_lily_weights, save_lily_weights
from .sharing import KINDS, Projection, attention_modules, select
from .switches import set_adapters

CONFIG = LilyConfig(r=4, stride_A=2, num_B=2, target_modules=KINDS)


@dataclass
class Report:
    """What `check_model` found. `str(report)` is a table for people."""

    model: str  # class name
    attentions: int  # attention modules
    projections: dict[str, int]  # name inside the attention module or the block -> how many of them are adapted
    passed: dict[str, bool | None] = field(default_factory=dict)  # None: the base model itself cannot do it
    notes: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return False not in self.passed.values()

    def __str__(self) -> str:
        words = {True: "yes", False: "NO", None: "-"}
        lines = [f"{name:24} {words[value]:4} {self.notes.get(name, '')}" for name, value in self.passed.items()]
        names = ", ".join(f"{name} {count}" for name, count in self.projections.items())
        return "\n".join([f"{self.model}: {self.attentions} attention modules; {names}", *lines])


def check_model(model: nn.Module, inputs: Mapping[str, Any], config: LilyConfig = CONFIG) -> Report:
    """Attach, blend, train, save, load and detach on a model, comparing numbers. The model ends as it began.

    Args:
        model: a UNet, transformer or text encoder in evaluation mode, best a small one in float32.
        inputs: keyword arguments of one forward pass.
        config: of the adapters that are tried.

    Returns:
        A report; `report.ok` says whether every check passed.

    Raises:
        ValueError: the model has nothing that Lily can adapt.
    """
    projections = select(model, config.target_modules)
    counts: dict[str, int] = {}
    for p in projections:
        counts[p.attribute] = counts.get(p.attribute, 0) + 1
    report = Report(type(model).__name__, sum(1 for _ in attention_modules(model)), counts)
    before, base, used = _traces(model), _run(model, inputs), _used_layers(model, projections, inputs)
    can_checkpoint = _can_checkpoint(model, projections, inputs)  # by itself, before Lily can have a part in it
    passed, notes = report.passed, report.notes
    late = _out_of_order(model, inputs)
    passed["in forward order"] = None if late else True
    if late:
        notes["in forward order"] = f"{late} runs earlier than those listed before it"

    adapter = attach(model, config, "one")
    passed["fresh adapter is exact"] = _equal(_run(model, inputs), base)
    _draw_experts(adapter, 1)
    alone = _run(model, inputs)
    passed["adapter changes output"] = not _equal(alone, base)

    if isinstance(used, Exception):
        passed["every tensor has gradient"] = passed["gradient checkpointing"] = None
        notes["every tensor has gradient"] = f"the model alone: {str(used).splitlines()[0]}"
    else:
        gradients = _gradients(model, adapter, inputs)
        idle, dead = _without_gradient(adapter, gradients, used)
        passed["every tensor has gradient"] = not dead
        if dead:
            notes["every tensor has gradient"] = f"none for {len(dead)} tensors, first {dead[0]}"
        elif idle:
            notes["every tensor has gradient"] = f"but for layers that the model does not use: {', '.join(idle)}"
        passed["gradient checkpointing"] = (
            _same_when_checkpointed(model, adapter, inputs, gradients) if can_checkpoint else None
        )

    with tempfile.TemporaryDirectory() as folder:
        path = save_lily_weights(model, folder, adapter_name="one", dtype=torch.float32)
        detach(model)
        load_lily_weights(model, path, adapter_name="loaded")
    passed["saved and loaded"] = _equal(_run(model, inputs), alone)

    _draw_experts(attach(model, config, "two"), 2)
    set_adapters(model, ["loaded", "two"], [0.0, 0.0])
    passed["weight 0 is exact"] = _equal(_run(model, inputs), base)
    set_adapters(model, ["loaded", "two"], [1.0, 0.5])
    both = _run(model, inputs)
    set_adapters(model, ["two", "loaded"], [0.5, 1.0])
    passed["blend in any order"] = _equal(_run(model, inputs), both) and not _equal(both, alone)

    detach(model)
    passed["detached without a trace"] = _equal(_run(model, inputs), base) and _traces(model) == before
    return report


def _run(model: nn.Module, inputs: Mapping[str, Any]) -> list[torch.Tensor]:
    with torch.no_grad():
        return _forward(model, inputs)


def _forward(model: nn.Module, inputs: Mapping[str, Any]) -> list[torch.Tensor]:
    """All tensors of the output; random numbers drawn on the way are the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return list(_tensors(model(**inputs)))


def _out_of_order(model: nn.Module, inputs: Mapping[str, Any]) -> str | None:
    """The first attention module that is called before one that `attention_modules` names before it."""
    names = [name for name, _ in attention_modules(model)]
    called: dict[str, None] = {}
    hooks = [
        module.register_forward_pre_hook(lambda _, __, name=name: called.setdefault(name))
        for name, module in attention_modules(model)
    ]
    try:
        _run(model, inputs)
    finally:
        for hook in hooks:
            hook.remove()
    listed = [name for name in names if name in called]
    return next((a for a, b in zip(called, listed, strict=True) if a != b), None)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)


def _equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def _traces(model: nn.Module) -> tuple:
    """All that a user could notice of an adapter, besides the outputs."""
    return (
        [(name, id(getattr(m, "processor", None)), sorted(m.__dict__)) for name, m in attention_modules(model)],
        list(model.state_dict()),
        [(name, p.requires_grad) for name, p in model.named_parameters()],
        sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules()),
    )


def _draw_experts(adapter: LilyAdapter, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for B in adapter.lily_B:
            B.copy_(torch.randn(B.shape, generator=generator) * 0.1)


@contextlib.contextmanager
def _only_these_learn(model: nn.Module, parameters: list[nn.Parameter]) -> Iterator[None]:
    flags = [(p, p.requires_grad) for p in model.parameters()]
    try:
        for p, _ in flags:
            p.requires_grad_(False)
        for p in parameters:
            p.requires_grad_(True)
            p.grad = None
        yield
    finally:
        for p in parameters:
            p.grad = None
        for p, flag in flags:
            p.requires_grad_(flag)


def _backward(model: nn.Module, inputs: Mapping[str, Any]) -> None:
    """Back-propagate a fixed random combination of all outputs, so that no symmetry of theirs hides a gradient."""
    outputs = _forward(model, inputs)
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randn(y.shape, generator=generator).to(y) for y in outputs]
    torch.stack([(w * y).sum() for w, y in zip(weights, outputs, strict=True) if y.requires_grad]).sum().backward()


def _used_layers(model: nn.Module, layers: list[Projection], inputs: Mapping[str, Any]) -> set[str] | Exception:
    """Layers whose weights have a gradient in the base model itself: the others do nothing in it.

    Or the reason why the base model cannot be trained here.
    """
    weights: dict[str, Any] = {p.name: model.get_submodule(p.name).weight for p in layers}
    with _only_these_learn(model, list(weights.values())):
        try:
            _backward(model, inputs)
        except Exception as error:  # whatever it is, it is not Lily's
            return error
        peaks = {name: float(w.grad.abs().max()) if w.grad is not None else 0.0 for name, w in weights.items()}
    return {name for name, peak in peaks.items() if peak > 1e-9 * max(peaks.values())}


def _gradients(model: nn.Module, adapter: LilyAdapter, inputs: Mapping[str, Any]) -> dict[str, torch.Tensor | None]:
    with _only_these_learn(model, []):
        adapter.requires_grad_(True).zero_grad()
        _backward(model, inputs)
    gradients = {name: None if p.grad is None else p.grad.clone() for name, p in adapter.named_parameters()}
    adapter.zero_grad()
    return gradients


def _without_gradient(
    adapter: LilyAdapter, gradients: Mapping[str, torch.Tensor | None], used: set[str]
) -> tuple[list[str], list[str]]:
    """(layers that the base model does not use, tensors that should have a finite gradient and have none)."""
    readers: dict[int, list[str]] = {}
    for layer in adapter.layers:
        for tensor in adapter.tensors(layer):
            readers.setdefault(id(tensor), []).append(layer)
    dead = []
    for name, p in adapter.named_parameters():
        gradient = gradients[name]
        if gradient is None or not gradient.any():
            bad = bool(used.intersection(readers[id(p)]))
        else:
            bad = not gradient.isfinite().all()
        dead += [name] * bad
    return [layer for layer in adapter.layers if layer not in used], dead


def _can_checkpoint(model: Any, layers: list[Projection], inputs: Mapping[str, Any]) -> bool:
    """Whether the base model knows gradient checkpointing and does not fail with it."""
    if not getattr(model, "_supports_gradient_checkpointing", False) or model.is_gradient_checkpointing:
        return False
    model.enable_gradient_checkpointing()
    try:
        return not isinstance(_used_layers(model, layers, inputs), Exception)
    finally:
        model.disable_gradient_checkpointing()


def _same_when_checkpointed(
    model: Any, adapter: LilyAdapter, inputs: Mapping[str, Any], expected: Mapping[str, torch.Tensor | None]
) -> bool:
    model.enable_gradient_checkpointing()
    try:
        gradients = _gradients(model, adapter, inputs)
    finally:
        model.disable_gradient_checkpointing()
    return all(
        (a is None) == (b is None) and (a is None or b is None or torch.allclose(a, b, rtol=1e-4, atol=1e-6))
        for a, b in zip(gradients.values(), expected.values(), strict=True)
    )
