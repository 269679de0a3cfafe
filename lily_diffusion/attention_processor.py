"""Attention processors that add Lily's updates: whatever processor is there is wrapped, none is written anew.

The wrapper is a subclass of the processor's own class that shares its state. It hands the processor a view of the
attention module, in which the adapted projections answer base + update.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

from .adapter import LilyAdapter
from .adapter_weight import AdapterWeight, parse
from .forward_order import names_in
from .sharing import FUSED, plain

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
        if name not in self.factors or self.factors[name].device != device:
            self.factors[name] = values
        else:
            self.factors[name].copy_(values)

    def remove(self, name: str) -> None:
        """Forget an adapter."""
        for table in (self.adapters, self.weights, self.levels, self.factors):
            table.pop(name, None)

    def update(self, layer: str, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Add to y (..., out) the weighted sum of all active adapters' updates for x (..., in)."""
        if self.enabled:
            for name in self.weights:
                factor = self._factor(name, layer)
                if factor is not None:
                    y = y + self.adapters[name](layer, x, factor).to(y.dtype)
        return y

    def _factor(self, name: str, layer: str) -> float | torch.Tensor | None:
        """What the update is multiplied by; None where there is none to add."""
        if torch.compiler.is_compiling():
            number = self.adapters[name].number.get(layer)
            return None if number is None else self.factors[name][number] * self.call_scale
        return self.levels[name].get(layer, 0.0) * self.call_scale or None


class Sites:
    """What an attention module needs to know: the model's state and its own projections' full names."""

    def __init__(self, state: LilyState, layers: dict[str, str]):
        self.state = state
        self.layers = layers  # attribute ("to_q", "to_out.0") -> full name
        self.names = {attribute.split(".")[0] for attribute in layers}  # what a view answers for
        self.names |= {fused for fused, parts in FUSED.items() if parts[-1] in layers}
        self.inner: Any = None  # the processor that was there


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


def one_adapter(model: nn.Module, adapter_name: str | None) -> tuple[str, LilyAdapter]:
    """The adapter of this name; None stands for the only one.

    Raises:
        ValueError: there is no such adapter, or there are several and none is named.
    """
    known = get_adapters(model)
    if adapter_name is None and len(known) != 1:
        raise ValueError(f"Say which adapter: there is {', '.join(map(repr, known)) or 'none'}.")
    if adapter_name is not None and adapter_name not in known:
        raise ValueError(unknown_adapter(adapter_name, list(known)))
    name = next(iter(known)) if adapter_name is None else adapter_name
    return name, known[name]


class LilyAttnProcessor:
    """Marks a processor that adds Lily's updates; made by `wrap`, never by hand."""


class AttentionView:
    """An attention module whose adapted projections answer base + update; all else is the module's own."""

    def __init__(self, attention: nn.Module):
        self._attention = attention
        self._sites = attention.__dict__[STATE]

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._attention, name)
        if name not in self._sites.names:
            return value
        layers = self._sites.layers
        if name in layers:
            return ProjectionView(value, (layers[name],), self._sites.state)
        if isinstance(value, nn.ModuleList):
            return [
                ProjectionView(layer, (layers[f"{name}.{i}"],), self._sites.state) if f"{name}.{i}" in layers else layer
                for i, layer in enumerate(value)
            ]
        parts = tuple(layers.get(part) for part in FUSED[name])
        widths = [getattr(self._attention, part).out_features for part in FUSED[name]]
        return ProjectionView(value, parts, self._sites.state, widths)


class ProjectionView:
    """A linear layer with its updates; one made of several side by side has a name and a width for each of them."""

    def __init__(self, linear: Any, layers: tuple[str | None, ...], state: LilyState, widths: list[int] | None = None):
        self._linear = linear
        self._layers = layers
        self._state = state
        self._widths = widths

    def __call__(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        y = self._linear(x, *args, **kwargs)
        if self._widths is None:
            return self._update(self._layers[0], x, y)
        parts = y.split(self._widths, dim=-1)
        return torch.cat([self._update(n, x, part) for n, part in zip(self._layers, parts, strict=True)], dim=-1)

    def _update(self, layer: str | None, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return y if layer is None else self._state.update(layer, x, y)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._linear, name)


def wrap(processor: Any) -> Any:
    """A processor that does what `processor` does on an `AttentionView`."""
    kind: Any = type(processor)
    if (
        kind.__call__ is not object.__call__
        and hasattr(processor, "__dict__")
        and not callable_without_class(processor)
    ):
        wrapper: Any = object.__new__(_subclass(kind))
        object.__setattr__(wrapper, "__dict__", processor.__dict__)
        return wrapper
    return _composed(processor)


def callable_without_class(processor: Any) -> bool:
    """Functions, methods and partials have no class of their own to derive from."""
    return not isinstance(processor, nn.Module) and type(processor).__module__ in ("builtins", "functools")


@functools.cache
def _subclass(kind: Any) -> Any:
    call = kind.__call__

    @functools.wraps(call)  # diffusers drops keyword arguments that it cannot see in the signature
    def __call__(self, attn, *args, **kwargs):
        return call(self, AttentionView(attn), *args, **kwargs)

    def __reduce_ex__(self, protocol):
        return _rewrap, (kind, self.__dict__)

    members = {"__call__": __call__, "__reduce_ex__": __reduce_ex__, "__module__": kind.__module__}
    return type(f"Lily{kind.__name__}", (LilyAttnProcessor, kind), members)


def _rewrap(kind: type, state: dict[str, Any]) -> Any:
    wrapper: Any = object.__new__(_subclass(kind))
    object.__setattr__(wrapper, "__dict__", state)
    return wrapper


def _composed(processor: Any) -> LilyAttnProcessor:
    """For functions and classes with slots: the wrapper holds the processor."""
    call = processor if callable_without_class(processor) else type(processor).__call__

    @functools.wraps(call)
    def __call__(self, attn, *args, **kwargs):
        return processor(AttentionView(attn), *args, **kwargs)

    def __reduce_ex__(self, protocol):
        return _composed, (processor,)

    return type("LilyComposedProcessor", (LilyAttnProcessor,), {"__call__": __call__, "__reduce_ex__": __reduce_ex__})()


def names_read(processor: Any) -> set[str]:
    """Every name in the code of a processor; a projection that is not among them is called by somebody else."""
    kind: Any = type(processor)
    call = processor if callable_without_class(processor) else kind.__call__
    if call is nn.Module.__call__:
        call = kind.forward
    names = set(names_in(call, kind))
    return names.union(*(FUSED[name] for name in FUSED if name in names))


def wrap_processor(attention: nn.Module) -> None:
    """Put the wrapper in the place of the attention module's processor, if it is not there already."""
    processor = attention.processor
    if isinstance(processor, LilyAttnProcessor):
        return
    sites: Sites = attention.__dict__[STATE]
    sites.inner = processor
    _assign(attention, wrap(processor))


def restore_processor(attention: nn.Module) -> None:
    """Put the very same processor object back, and forget about Lily."""
    if isinstance(attention.processor, LilyAttnProcessor):
        _assign(attention, attention.__dict__[STATE].inner)
    for name in (STATE, "set_processor", "get_processor"):
        attention.__dict__.pop(name, None)


def shield(attention: nn.Module) -> None:
    """Let ``set_processor`` and ``get_processor`` of this module deal in plain processors, wrapping them unseen."""
    for name, function in (("set_processor", _set_processor), ("get_processor", _get_processor)):
        if hasattr(type(attention), name):
            attention.__dict__[name] = functools.partial(function, attention)


def _set_processor(attention: nn.Module, processor: Any, *args: Any, **kwargs: Any) -> None:
    if isinstance(processor, LilyAttnProcessor):
        raise ValueError("This processor already belongs to Lily; set the plain one, Lily wraps it by itself.")
    _assign(attention, attention.__dict__[STATE].inner)
    kind: Any = type(attention)
    kind.set_processor(attention, processor, *args, **kwargs)
    wrap_processor(attention)


def _get_processor(attention: nn.Module, *args: Any, **kwargs: Any) -> Any:
    wrap_processor(attention)
    return attention.__dict__[STATE].inner


def _assign(attention: nn.Module, processor: Any) -> None:
    if isinstance(processor, nn.Module):
        attention._modules["processor"] = processor
        attention.__dict__.pop("processor", None)
    else:
        attention._modules.pop("processor", None)
        attention.processor = processor
