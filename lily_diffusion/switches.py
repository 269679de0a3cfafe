"""Which adapters of a pipeline take part, and how much: the names are those that diffusers gives its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .adapter_weight import WeightSpec
from .attach import detach
from .blend import get_weights, set_enabled, set_weights
from .components import denoiser
from .fusing import check_not_fused, fuse, fused_adapters, unfuse
from .state import get_adapters, get_state, unknown_adapter


def set_adapters(
    pipe_or_model: Any,
    adapter_names: str | Sequence[str],
    adapter_weights: WeightSpec | Sequence[WeightSpec | None] | None = None,
) -> None:
    """Make exactly these adapters active; their updates are summed, each times its weight (1 where None).

    A weight is a number; or numbers by block, attention kind or projection, ``{"down": 0.5, "up.1": 0, "attn2": 0.8}``;
    or by step, ``"1@0,0.2@0.6"``: 1 at first, falling to 0.2 until 0.6 of the steps are done (``"1@0,0@0.5,held"``
    keeps each until the next). As text both together: ``"0.8,up.1=1@0,0@0.5"``. A layer's weight is the product of
    all that name it; what is not named counts 1. Ranges: ``"transformer_blocks.0-9"``, ``"transformer_blocks.10-"``.

    Raises:
        ValueError: a name is unknown or given twice, the counts differ, a weight is not a finite number, or a block
            is unknown (the known ones are listed). Nothing has changed then.
    """
    names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
    weights = adapter_weights
    if isinstance(weights, str) or not isinstance(weights, Sequence):
        weights = [weights] * len(names)
    component, model = denoiser(pipe_or_model)
    given = [1.0 if weight is None else _of_component(weight, component) for weight in weights]
    set_weights(model, names, given, pipe_or_model if hasattr(pipe_or_model, "scheduler") else None)


def get_active_adapters(pipe_or_model: Any) -> list[str]:
    """Names of the adapters that take part; empty while `disable_lily` is in force."""
    model = denoiser(pipe_or_model)[1]
    state = get_state(model)
    return list(get_weights(model)) if state is not None and state.enabled else []


def get_adapter_weights(pipe_or_model: Any) -> dict[str, float | str]:
    """Active adapters and their weights: numbers, or text where blocks or steps differ."""
    return get_weights(denoiser(pipe_or_model)[1])


def get_list_adapters(pipe_or_model: Any) -> dict[str, list[str]]:
    """All loaded adapters by component, such as ``{"unet": ["cat", "toy"]}``."""
    component, model = denoiser(pipe_or_model)
    names = list(get_adapters(model))
    return {component: names} if names else {}


def delete_adapters(pipe_or_model: Any, adapter_names: str | Sequence[str]) -> None:
    """Remove adapters and free their memory; the last one leaves the model as it was before any.

    Raises:
        ValueError: a name is unknown, or an adapter is fused; nothing is removed then.
    """
    model = denoiser(pipe_or_model)[1]
    names = [adapter_names] if isinstance(adapter_names, str) else list(dict.fromkeys(adapter_names))
    known = get_adapters(model)
    for name in names:
        if name not in known:
            raise ValueError(unknown_adapter(name, list(known)))
        check_not_fused(model, name)
    for name in names:
        detach(model, name)


def disable_lily(pipe_or_model: Any) -> None:
    """Switch all adapters off; they stay loaded and keep their weights.

    Raises:
        ValueError: an adapter is fused into the weights.
    """
    set_enabled(denoiser(pipe_or_model)[1], False)


def enable_lily(pipe_or_model: Any) -> None:
    """Switch the adapters on again after `disable_lily`."""
    set_enabled(denoiser(pipe_or_model)[1], True)


def fuse_lily(pipe_or_model: Any, *, lily_scale: float = 1.0, adapter_names: str | Sequence[str] | None = None) -> None:
    """Add frozen adapters into the model's weights: no cost per step is left. `unfuse_lily` undoes it bit by bit.

    Args:
        pipe_or_model: a pipeline or its denoiser.
        lily_scale: multiplies the adapters' weights.
        adapter_names: which of the active adapters; None takes all of them.

    Raises:
        ValueError: as `fusing.fuse`; a routed adapter must be baked first. Nothing has changed then.
    """
    names = [adapter_names] if isinstance(adapter_names, str) else adapter_names
    fuse(denoiser(pipe_or_model)[1], names, lily_scale)


def unfuse_lily(pipe_or_model: Any) -> None:
    """Undo `fuse_lily`: every weight is what it was before, and the adapters run again beside the model.

    Raises:
        ValueError: the model was quantised or offloaded after fusing. Nothing has changed then.
    """
    unfuse(denoiser(pipe_or_model)[1])


def get_fused_adapters(pipe_or_model: Any) -> list[str]:
    """Names of the adapters that are in the model's weights now; the active ones are others."""
    return fused_adapters(denoiser(pipe_or_model)[1])


def unload_lily_weights(pipe_or_model: Any) -> None:
    """Remove all adapters, fused ones too; the model is then as it was before any."""
    detach(denoiser(pipe_or_model)[1])


def _of_component(weight: WeightSpec, component: str) -> WeightSpec:
    """Diffusers' spelling ``{"unet": {...}}`` without its outermost name."""
    return weight[component] if isinstance(weight, Mapping) and set(weight) == {component} else weight
