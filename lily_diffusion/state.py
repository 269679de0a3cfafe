"""What a model knows of its adapters: which there are, how much each counts, and what of it is in the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .adapter import LilyAdapter
from .adapter_weight import AdapterWeight, parse
from .sharing import plain

STATE = "_lily"  # where the model keeps its LilyState and an attention module its Sites


class LilyState:
    """The adapters of one model and how much each counts. A plain object: the model's keys do not change."""

    def __init__(self) -> None:
        self.adapters: dict[str, LilyAdapter] = {}
        self.weights: dict[str, AdapterWeight] = {}  # active adapters only
        self.fraction = 0.0  # of the denoising steps that are done
        self.clock: Any = None  # what tells the fraction, while a weight depends on it
        self.levels: dict[str, dict[str, float]] = {}  # layer -> weight times scaling, now
        self.factors: dict[str, torch.Tensor] = {}  # the same as a tensor: another weight compiles nothing anew
        self.fused: dict[str, AdapterWeight] = {}  # adapters that are in the model's weights, see fusing.py
        self.originals: dict[str, torch.Tensor] = {}  # layer -> its weights before that
        self.enabled = True
        self.call_scale = 1.0  # {"scale": s} among the attention keyword arguments of the running call
        self.attentions: list[nn.Module] = []
        self.hooks: list[Any] = []
        self.outside: dict[str, tuple[Any, Any, Any]] = {}  # layer outside processors -> its module, hook and function
        self.hooked = ""  # their names; a compiled program holds for these alone, and nothing else tells it of hooks

    def add(self, name: str, adapter: LilyAdapter) -> None:
        """Take in an adapter, active at weight 1; what the others cost does not matter."""
        self.adapters[name] = adapter
        self.weights = dict(sorted({**self.weights, name: parse(1.0)}.items()))
        self._level(name)

    def activate(self, weights: dict[str, AdapterWeight]) -> None:
        """Set the active adapters; they are summed in the order of their names, however they were asked for."""
        self.weights = dict(sorted(weights.items()))
        for name in weights:
            self._level(name)

    def advance(self, fraction: float) -> None:
        """Take the weights of this fraction of the steps."""
        self.fraction = fraction
        for name, weight in self.weights.items():
            if weight.is_stepped:
                self._level(name)

    def _level(self, name: str) -> None:
        adapter = self.adapters[name]
        by_layer = self.weights[name].by_layer(adapter.layers, self.fraction)
        self.levels[name] = {layer: weight * adapter.config.scaling for layer, weight in by_layer.items()}
        device = next(adapter.parameters()).device
        values = torch.tensor(list(self.levels[name].values()), device=device)
        old = self.factors.get(name)
        if old is None or old.device != device or old.is_inference():
            self.factors[name] = values
        else:
            old.copy_(values)

    def remove(self, name: str) -> None:
        """Forget an adapter."""
        for table in (self.adapters, self.weights, self.levels, self.factors):
            table.pop(name, None)
        if not any(weight.is_stepped for weight in self.weights.values()):
            self.stop_clock()

    def stop_clock(self) -> None:
        """Listen to no scheduler any more."""
        if self.clock is not None:
            self.clock.stop()
        self.clock = None

    def update(self, layer: str, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Add to y (..., out) the weighted sum of all active adapters' updates for x (..., in).

        Where no gradient is recorded, y itself may be overwritten.
        """
        if self.enabled:
            for name in self.weights:
                factor = self._factor(name, layer)
                if factor is not None:
                    y = self.adapters[name](layer, x, y, factor)
        return y

    def _factor(self, name: str, layer: str) -> float | torch.Tensor | None:
        """What the update is multiplied by; None where there is none to add."""
        if torch.compiler.is_compiling():
            # `hooked` is compared, so that the program is made anew when it changes
            number = self.adapters[name].number.get(layer) if self.hooked != "?" else None
            return None if number is None else self.factors[name][number] * self.call_scale
        return self.levels[name].get(layer, 0.0) * self.call_scale or None


def get_state(model: nn.Module) -> LilyState | None:
    """The model's adapters and weights, or None when nothing is attached."""
    return plain(model).__dict__.get(STATE)


def get_adapters(model: nn.Module) -> dict[str, LilyAdapter]:
    """Name -> adapter, in the order in which they were attached."""
    state = get_state(model)
    return dict(state.adapters) if state else {}


def unknown_adapter(name: str, known: list[str]) -> str:
    """The sentence for a name that no adapter has."""
    return f"There is no adapter named {name!r}; there is {', '.join(map(repr, known)) or 'none'}."


def chosen(known: Mapping[str, Any], adapter_name: str | None) -> str:
    """The name that is meant; None stands for the only one.

    Raises:
        ValueError: there is no such adapter, or there are several and none is named.
    """
    if adapter_name is None and len(known) != 1:
        raise ValueError(f"Say which adapter: there is {', '.join(map(repr, known)) or 'none'}.")
    if adapter_name is not None and adapter_name not in known:
        raise ValueError(unknown_adapter(adapter_name, list(known)))
    return next(iter(known)) if adapter_name is None else adapter_name


def one_adapter(model: nn.Module, adapter_name: str | None) -> tuple[str, LilyAdapter]:
    """The model's adapter of this name; raises as `chosen` does."""
    known = get_adapters(model)
    name = chosen(known, adapter_name)
    return name, known[name]
