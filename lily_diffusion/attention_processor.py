"""Attention processors that add Lily's updates: whatever processor is there is wrapped, none is written anew.

The wrapper is a subclass of the processor's own class that shares its state. It hands the processor a view of the
attention module, in which the adapted projections answer base + update.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

from .forward_order import names_in
from .sharing import FUSED
from .state import STATE, LilyState


class Sites:
    """What an attention module needs to know: the model's state and its own projections' full names."""

    def __init__(self, state: LilyState, layers: dict[str, str]):
        self.state = state
        self.layers = layers  # attribute ("to_q", "to_out.0") -> full name
        self.names = {attribute.split(".")[0] for attribute in layers}  # what a view answers for
        self.names |= {fused for fused, parts in FUSED.items() if parts[-1] in layers}
        self.inner: Any = None  # the processor that was there


class LilyAttnProcessor:
    """Marks a processor that adds Lily's updates; made by `wrap`, never by hand."""


class AttentionView:
    """An attention module whose adapted projections answer base + update; all else is the module's own."""

    def __init__(self, attention: nn.Module):
        object.__setattr__(self, "_attention", attention)
        object.__setattr__(self, "_sites", attention.__dict__[STATE])

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._attention, name, value)

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
        if getattr(self._linear, "_forward_hooks", None):
            y = y.clone()  # a hook may have kept what the layer answered
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
