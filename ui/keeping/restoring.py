"""From a recipe back to settings that this page can use now, with notes on what stands in the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ui.keeping.recipe import Recipe
from ui.pipeline import schedulers
from ui.pipeline.adapter_folder import AdapterFile, AdapterFolder
from ui.pipeline.base_models import BaseModel
from ui.pipeline.orders import SessionError, weight_of

Restored = tuple[Recipe, dict[str, float | str], list[str]]


def restore(
    recipe: Recipe, base: BaseModel, adapters: AdapterFolder, reason_of: Callable[[AdapterFile], str | None]
) -> Restored:
    """Return the recipe with what the base takes, ``{adapter id: weight}``, and what stands in the way, for people."""
    weights: dict[str, float | str] = {}
    notes: list[str] = []
    for used in recipe.adapters:
        file = adapters.find(used.content_hash)
        reason = reason_of(file) if file else f"no file with hash {used.content_hash[:12]} is in the folder"
        if not file or reason is not None:
            notes.append(f"The adapter '{used.name}' (weight {used.weight}) is missing: {reason}")
        elif isinstance(used.weight, str):
            try:
                weights[file.id] = weight_of(used.weight, file, base)
            except SessionError as problem:
                weights[file.id] = 1.0
                notes.append(f"{problem} It is on at 1.")
        else:
            weights[file.id] = used.weight
    if recipe.base_model and recipe.base_model != base.label:
        notes.append(f"It was made with the base model '{recipe.base_model}'; now '{base.label}' is loaded.")
    if recipe.scheduler not in schedulers.names(base.pipe):
        notes.append(f"This base model has no scheduler '{recipe.scheduler}': its own is set.")
        recipe = replace(recipe, scheduler="")
    return _fitted(recipe, base, notes), weights, notes


def _fitted(recipe: Recipe, base: BaseModel, notes: list[str]) -> Recipe:
    """The recipe with a size that the base model can draw: the same shape as near as can be."""
    fits = base.defaults
    if max(recipe.width, recipe.height) <= fits.max_edge and not any(
        edge % fits.size_step for edge in (recipe.width, recipe.height)
    ):
        return recipe
    smaller = min(1.0, max(fits.width, fits.height) / max(recipe.width, recipe.height))
    width, height = (
        max(1, round(edge * smaller / fits.size_step)) * fits.size_step for edge in (recipe.width, recipe.height)
    )
    notes.append(f"{recipe.width} by {recipe.height} pixels do not fit this base model: {width} by {height} are set.")
    return replace(recipe, width=width, height=height)
