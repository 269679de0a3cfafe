"""Who shares what in PEFT's Lily: layers of one shape whose names end alike share B, runs of `stride_A` of them an A.

PEFT works that out again from target_modules each time it loads a folder, in the order of ``model.named_modules()``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from torch import nn

from ..adapter import LilyAdapter

CONDENSED = 20  # PEFT shortens a list of so many names or more to common ends, and shares by what is left of them
Targets: TypeAlias = "str | list[str] | dict[str, None]"  # as target_modules stands in adapter_config.json


def groups_in_peft(shapes: Mapping[str, tuple[int, ...]], targets: Targets) -> dict[Any, list[str]]:
    """Layers that share a B, by what they have in common.

    Args:
        shapes: weight shape of each layer, in the order of ``named_modules``.
        targets: a regular expression (one for all), or ends of names; of an object's keys the last that fits counts.

    Returns:
        The groups. Under None: layers that no end fits, or that several ends of a list fit, for PEFT makes a set of it
        and takes whichever comes last.
    """
    groups: dict[Any, list[str]] = {}
    for layer, shape in shapes.items():
        fits = [targets] if isinstance(targets, str) else [end for end in targets if layer.endswith(end)]
        sure = len(fits) == 1 or (bool(fits) and isinstance(targets, dict))
        groups.setdefault((fits[-1], shape) if sure else None, []).append(layer)
    return groups


def owners_in_peft(shapes: Mapping[str, tuple[int, ...]], targets: Any, stride_A: int) -> dict[str, tuple[str, str]]:
    """For each layer the first layer that has its A, and the first that has its B; `shapes` as for `groups_in_peft`.

    Raises:
        ValueError: the targets are no targets, or do not tell it for a layer.
    """
    if not isinstance(targets, (str, list, dict)) or not all(isinstance(end, str) for end in targets):
        raise ValueError(f"target_modules is {targets!r}, which does not tell who shares what.")
    groups = groups_in_peft(shapes, targets)
    if None in groups:
        raise ValueError(f"target_modules fit {groups[None][0]} not at all or in more than one way.")
    return {layer: (group[i - i % stride_A], group[0]) for group in groups.values() for i, layer in enumerate(group)}


def wiring(adapter: LilyAdapter, model: nn.Module) -> tuple[list[str] | dict[str, None], int]:
    """The target_modules and stride_A with which PEFT shares no tensor between layers that have different ones here.

    Each layer is named by the shortest end of its name that selects no layer outside the adapter and, among layers of
    one shape, fits none outside its group. The names are a list where PEFT reads it as it stands. Where PEFT would
    condense it, or would choose by chance between two names that fit, they are the keys of a JSON object, the longest
    last: PEFT goes through them as they stand, and the last that fits counts.

    Raises:
        ValueError: PEFT would adapt a layer that the adapter leaves alone.
    """
    modules = [name for name, _ in model.named_modules()]
    group_of = {layer: i for i, group in enumerate(adapter.groups) for layer in group.layers}
    A_of = {layer: A for group in adapter.groups for layer, A in zip(group.layers, group.A_of_layer, strict=True)}
    shapes = weight_shapes(model, group_of)
    verdicts: dict[str, bool] = {}

    def safe(end: str) -> bool:
        if end not in verdicts:
            fitted = {(shapes[layer], group_of[layer]) for layer in shapes if layer.endswith(end)}
            one_group = len(fitted) == len({shape for shape, _ in fitted})
            verdicts[end] = one_group and all(name in group_of for name in _selected(modules, [end]))
        return verdicts[end]

    names = {next(filter(safe, _ends(layer)), layer) for layer in shapes}
    ordered = sorted(names, key=lambda name: (len(name), name))
    as_list = len(ordered) < CONDENSED and all(sum(map(layer.endswith, ordered)) == 1 for layer in shapes)
    targets: list[str] | dict[str, None] = ordered if as_list else dict.fromkeys(ordered)
    if stray := [name for name in _selected(modules, ordered) if name not in group_of]:
        raise ValueError(f"PEFT chooses layers by the ends of their names: it would adapt {stray[0]} with the others.")
    groups = groups_in_peft(shapes, targets).values()
    for stride_A in (adapter.config.stride_A, *range(max(map(len, groups)), 1, -1)):
        blocks = [group[i : i + stride_A] for group in groups for i in range(0, len(group), stride_A)]
        if all(len({A_of[layer] for layer in block}) == 1 for block in blocks):
            return targets, stride_A
    return targets, 1


def weight_shapes(model: nn.Module, layers: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """The weight shapes of some layers, in the order of ``named_modules``."""
    wanted, modules = set(layers), dict[str, Any](model.named_modules())
    return {name: tuple(module.weight.shape) for name, module in modules.items() if name in wanted}


def _ends(name: str) -> list[str]:
    """The ends of a dotted name, shortest first."""
    parts = name.split(".")
    return [".".join(parts[i:]) for i in reversed(range(len(parts)))]


def _selected(names: Iterable[str], targets: Iterable[str]) -> list[str]:
    """The modules that PEFT adapts: those that a target names in full, or by the last of their parts."""
    ends = tuple(f".{end}" for end in targets)
    return [name for name in names if f".{name}".endswith(ends)]
