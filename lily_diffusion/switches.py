"""Which adapters of a pipeline take part, and how much: the names are those that diffusers gives its own.

An adapter may have a part on the denoiser and parts on text encoders; all of them go by its one name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .adapter_weight import AdapterWeight, WeightSpec, joined, parse, split
from .attach import detach
from .blend import check_names, check_weights, set_enabled, set_weights
from .components import adapters_of, parts
from .fusing import check_can_unfuse, check_not_fused, fuse, fused_adapters, unfuse
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

    A plain number is the weight of all parts of an adapter, ``{"text_encoder": 0.5}`` or ``"0.8,text_encoder=0.5"``
    that of one part, and blocks and steps are the denoiser's: the text is encoded before the first step.

    Raises:
        ValueError: a name is unknown or given twice, the counts differ, a weight is not a finite number, or a block
            or part is unknown (the known ones are listed). Nothing has changed then.
    """
    names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
    weights = adapter_weights
    if isinstance(weights, str) or not isinstance(weights, Sequence):
        weights = [weights] * len(names)
    models, known = parts(pipe_or_model), adapters_of(pipe_or_model)
    check_names(names, weights, list(known))
    wanted: dict[str, dict[str, AdapterWeight]] = {component: {} for component in models}
    for name, weight in zip(names, weights, strict=True):
        for component, own in _split(name, weight, list(known[name])).items():
            wanted[component][name] = own
    per_model: list[tuple[Any, list[str], list[Any]]] = [
        (models[component], list(own), list(own.values())) for component, own in wanted.items()
    ]
    for model, own_names, own_weights in per_model:
        check_weights(model, own_names, own_weights)
    pipe = pipe_or_model if hasattr(pipe_or_model, "scheduler") else None
    for model, own_names, own_weights in per_model:  # the denoiser first: only its clock can fail
        set_weights(model, own_names, own_weights, pipe)


def get_active_adapters(pipe_or_model: Any) -> list[str]:
    """Names of the adapters that take part; empty while `disable_lily` is in force."""
    states = [state for state in map(get_state, parts(pipe_or_model).values()) if state is not None and state.enabled]
    return list(dict.fromkeys(name for state in states for name in state.weights))


def get_adapter_weights(pipe_or_model: Any) -> dict[str, float | str]:
    """Active adapters and their weights: numbers, or text where parts, blocks or steps differ."""
    found: dict[str, dict[str, AdapterWeight]] = {}
    for component, model in parts(pipe_or_model).items():
        state = get_state(model)
        for name, weight in state.weights.items() if state is not None else ():
            found.setdefault(name, {})[component] = weight
    return {name: joined(weights).plain for name, weights in found.items()}


def get_list_adapters(pipe_or_model: Any) -> dict[str, list[str]]:
    """All loaded adapters by component, such as ``{"unet": ["cat", "toy"], "text_encoder": ["toy"]}``."""
    by_component = {component: list(get_adapters(model)) for component, model in parts(pipe_or_model).items()}
    return {component: names for component, names in by_component.items() if names}


def delete_adapters(pipe_or_model: Any, adapter_names: str | Sequence[str]) -> None:
    """Remove adapters with all their parts and free their memory; the last one leaves no trace.

    Raises:
        ValueError: a name is unknown, or an adapter is fused; nothing is removed then.
    """
    models, known = parts(pipe_or_model), adapters_of(pipe_or_model)
    names = [adapter_names] if isinstance(adapter_names, str) else list(dict.fromkeys(adapter_names))
    for name in names:
        if name not in known:
            raise ValueError(unknown_adapter(name, list(known)))
        for component in known[name]:
            check_not_fused(models[component], name)
    for name in names:
        for component in known[name]:
            detach(models[component], name)


def disable_lily(pipe_or_model: Any) -> None:
    """Switch all adapters off; they stay loaded and keep their weights.

    Raises:
        ValueError: an adapter is fused into the weights; nothing is switched off then.
    """
    models = parts(pipe_or_model).values()
    for model in models:
        for name in fused_adapters(model):
            check_not_fused(model, name)
    for model in models:
        set_enabled(model, False)


def enable_lily(pipe_or_model: Any) -> None:
    """Switch the adapters on again after `disable_lily`."""
    for model in parts(pipe_or_model).values():
        set_enabled(model, True)


def fuse_lily(pipe_or_model: Any, *, lily_scale: float = 1.0, adapter_names: str | Sequence[str] | None = None) -> None:
    """Add frozen adapters into the models' weights: no cost per step is left. `unfuse_lily` undoes it, bit for bit.

    Args:
        pipe_or_model: a pipeline or its denoiser.
        lily_scale: multiplies the adapters' weights.
        adapter_names: which of the active adapters, with all their parts; None takes all of them.

    Raises:
        ValueError: as `fusing.fuse`; a routed adapter must be baked first. Nothing has changed then.
    """
    models = list(parts(pipe_or_model).values())
    names = [adapter_names] if isinstance(adapter_names, str) else adapter_names
    fused = [name for model in models for name in fused_adapters(model)]
    if fused:
        raise ValueError(f"{', '.join(map(repr, dict.fromkeys(fused)))} is fused already; call unfuse_lily first.")
    active = list(dict.fromkeys(name for state in map(get_state, models) if state for name in state.weights))
    for name in active if names is None else names:
        if name not in active:
            raise ValueError(f"{unknown_adapter(name, active)} Only active adapters are fused.")
    wanted = active if names is None else list(names)
    if not wanted:
        raise ValueError("There is no active adapter to fuse.")
    done: list[Any] = []
    try:
        for model in models:
            state = get_state(model)
            if own := [name for name in wanted if state is not None and name in state.weights]:
                fuse(model, own, lily_scale)
                done.append(model)
    except Exception:
        for model in done:
            unfuse(model)
        raise


def unfuse_lily(pipe_or_model: Any) -> None:
    """Undo `fuse_lily`: every weight is what it was before, and the adapters run again beside the models.

    Raises:
        ValueError: a model was quantised or offloaded after fusing. Nothing has changed then.
    """
    models = list(parts(pipe_or_model).values())
    for model in models:
        check_can_unfuse(model)
    for model in models:
        unfuse(model)


def get_fused_adapters(pipe_or_model: Any) -> list[str]:
    """Names of the adapters that are in the models' weights now; the active ones are others."""
    return list(dict.fromkeys(name for model in parts(pipe_or_model).values() for name in fused_adapters(model)))


def unload_lily_weights(pipe_or_model: Any) -> None:
    """Remove all adapters, fused ones too; the pipeline is then as it was before any."""
    models = list(parts(pipe_or_model).values())
    for model in models:
        check_can_unfuse(model)
    for model in models:
        detach(model)


def _split(name: str, weight: WeightSpec | None, components: list[str]) -> dict[str, AdapterWeight]:
    try:
        return split(parse(1.0 if weight is None else weight), components)
    except ValueError as error:
        raise ValueError(f"The weight of adapter {name!r}: {error}") from None
