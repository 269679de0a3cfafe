"""Attaching an adapter to a model through its attention processors, and taking it off without a trace."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

from .adapter import LilyAdapter
from .attention_processor import LilyAttnProcessor, Sites, names_read, restore_processor, shield, wrap_processor
from .config import LilyConfig
from .fusing import check_not_fused, unfuse
from .sharing import (
    attention_modules,
    find_linear_layers,
    is_feed_forward,
    plain,
    plan_groups,
    projections_of,
    select,
)
from .state import STATE, LilyState, get_adapters, get_state, unknown_adapter


def attach(model: nn.Module, adapter: LilyConfig | LilyAdapter, adapter_name: str = "default") -> LilyAdapter:
    """Attach an adapter to a UNet, transformer or text encoder and make it active at weight 1.

    The model's parameters, keys, flags and outputs stay as they are; a fresh adapter changes no bit of any output.

    Args:
        model: a diffusers model with attention processors, or a text encoder of transformers (not a pipeline).
        adapter: what to make (in float32, on the model's device), or an adapter made before.
        adapter_name: a name that no other adapter of the model has.

    Raises:
        ValueError: the name is taken or bad, a target names no projection, or the adapter does not fit the model.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"attach takes a model such as pipe.unet or pipe.transformer, not {type(model).__name__}.")
    model = plain(model)
    if not isinstance(adapter_name, str) or not adapter_name:
        raise ValueError(f"adapter_name must be a string that is not empty, not {adapter_name!r}.")
    if adapter_name in get_adapters(model):
        raise ValueError(f"An adapter named {adapter_name!r} is attached already; detach it or choose another name.")
    if isinstance(adapter, LilyConfig):
        groups = plan_groups(select(model, adapter.target_modules), adapter)
        adapter = LilyAdapter(adapter, groups).to(home(model)).train(model.training)
    else:
        check_fits(adapter.groups, model)
    state = model.__dict__.get(STATE) or _prepare(model)
    state.add(adapter_name, adapter)
    _hook_others(model, state)
    return adapter


def detach(model: nn.Module, adapter_name: str | None = None) -> None:
    """Take one adapter off, or all. With the last one gone, every processor is the very object it was before.

    Raises:
        ValueError: there is no adapter of this name.
    """
    state, model = get_state(model), plain(model)
    if adapter_name is not None and adapter_name not in get_adapters(model):
        raise ValueError(unknown_adapter(adapter_name, list(get_adapters(model))))
    if state is None:
        return
    if adapter_name is None:
        unfuse(model)
    else:
        check_not_fused(model, adapter_name)
    for name in [adapter_name] if adapter_name is not None else list(state.adapters):
        state.remove(name)
    _hook_others(model, state)
    if not state.adapters:
        for hook in state.hooks:
            hook.remove()
        for attention in state.attentions:
            restore_processor(attention)
        del model.__dict__[STATE]


def home(model: nn.Module) -> torch.device:
    """Where the model's weights are; the CPU for an offloaded one (adapters follow what they are given)."""
    return next((p.device for p in model.parameters() if not p.is_meta), torch.device("cpu"))


def check_fits(groups: Any, model: nn.Module) -> None:
    """Raise ValueError, naming the first, when the model lacks layers of the groups or has them in other sizes."""
    have = {p.name: (p.in_features, p.out_features) for p in find_linear_layers(model)}
    wanted = {layer: (g.in_features, g.out_features) for g in groups for layer in g.layers}
    missing = [layer for layer in wanted if layer not in have]
    other = [layer for layer in wanted if layer in have and have[layer] != wanted[layer]]
    kind = type(plain(model)).__name__
    if missing:
        raise ValueError(
            f"The adapter is for another base: {len(missing)} of its {len(wanted)} layers are not in this {kind}, "
            f"first {missing[0]}."
        )
    if other:
        (a, b), (c, d) = wanted[other[0]], have[other[0]]
        raise ValueError(
            f"The adapter is for another base: {len(other)} of its {len(wanted)} layers have another shape in this "
            f"{kind}, first {other[0]}, {a}->{b} in the adapter and {c}->{d} in the model."
        )


def refresh(model: nn.Module) -> None:
    """Wrap processors that were assigned directly (``attention.processor = ...``) since the model was compiled.

    Outside processors, hook the layers that were replaced.

    A model that is not compiled does this by itself before each forward pass.
    """
    state = get_state(model)
    for attention in state.attentions if state else ():
        wrap_processor(attention)
    if state is not None:
        _hook_replaced(plain(model), state)


def _prepare(model: nn.Module) -> LilyState:
    """Wrap the processors of all attention modules and watch over them."""
    state = LilyState()
    for name, attention in attention_modules(model):
        processor = getattr(attention, "processor", None)
        if processor is None:
            continue
        used = names_read(processor)
        layers = {p.attribute: p.name for p in projections_of(name, attention) if p.attribute.split(".")[0] in used}
        attention.__dict__[STATE] = Sites(state, layers)
        wrap_processor(attention)
        shield(attention)
        state.attentions.append(attention)
    state.hooks.append(model.register_forward_pre_hook(before_forward, with_kwargs=True))
    model.__dict__[STATE] = state
    return state


def _hook_others(model: nn.Module, state: LilyState) -> None:
    """Hook the adapted layers that no processor calls: feed-forward ones, and all in text encoders."""
    by_processors = {layer for attention in state.attentions for layer in attention.__dict__[STATE].layers.values()}
    groups = [group for adapter in state.adapters.values() for group in adapter.groups]
    adapted = {layer: g.projection for g in groups for layer in g.layers if layer not in by_processors}
    for layer in state.outside.keys() - adapted.keys():
        state.outside.pop(layer)[1].remove()
    for layer in adapted.keys() - state.outside.keys():
        update = functools.partial(_update_outside, state, layer, is_feed_forward(adapted[layer]))
        _hook(model.get_submodule(layer), layer, update, state)
    state.hooked = " ".join(sorted(state.outside))


def _hook(linear: nn.Module, layer: str, update: functools.partial[torch.Tensor], state: LilyState) -> None:
    state.outside[layer] = linear, linear.register_forward_hook(update, with_kwargs=True), update


def _hook_replaced(model: nn.Module, state: LilyState) -> None:
    """Follow layers that were put in the place of others, such as those with a LoRA."""
    for layer, (linear, hook, update) in list(state.outside.items()):
        now = _module_at(model, layer)
        if now is not linear:
            hook.remove()
            _hook(now, layer, update, state)


def _module_at(module: Any, layer: str) -> Any:
    """As `get_submodule`, several times faster: every hooked layer is asked for before each pass."""
    for piece in layer.split("."):
        child = module._modules.get(piece)
        module = getattr(module, piece) if child is None else child
    return module


def _update_outside(
    state: LilyState, layer: str, of_tokens: bool, linear: nn.Module, args: tuple, kwargs: dict, y: torch.Tensor
) -> torch.Tensor:
    """Add the updates where no processor does.

    The rows of a matrix are the tokens of one sample in feed-forward layers, and a vector for each sample in others.
    """
    if len(linear._forward_hooks) > 1:
        y = y.clone()  # another hook may have kept what the layer answered
    x = args[0] if args else next(iter(kwargs.values()))
    if x.ndim == 2 and not of_tokens:
        return state.update(layer, x[:, None], y[:, None])[:, 0]
    return state.update(layer, x, y)


def before_forward(model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
    """Wrap processors that were assigned directly, and read the call's ``{"scale": s}``."""
    state = model.__dict__[STATE]
    for attention in state.attentions:
        if not isinstance(attention.processor, LilyAttnProcessor):
            if torch.compiler.is_compiling():
                raise RuntimeError(
                    "An attention processor of the compiled model was replaced directly, which would silently drop its "
                    "adapters: call lily_diffusion.refresh(model) after it, or use set_processor."
                )
            wrap_processor(attention)
    if not torch.compiler.is_compiling():
        _hook_replaced(model, state)
        if state.clock is not None:
            state.clock.watch()
    options: dict[str, Any] = next((kwargs[k] for k in kwargs if k.endswith("attention_kwargs") and kwargs[k]), {})
    state.call_scale = options.get("scale", 1.0)
