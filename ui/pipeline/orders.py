"""Checking an order: every number within its bounds, every adapter known and fit, before anything is run."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from lily_diffusion import LilyHeader
from lily_diffusion.adapter_weight import parse, split
from lily_diffusion.components import groups_in_model, parts
from lily_diffusion.interchange.merging import PRUNED, peft_function
from ui.keeping.recipe import (
    BLENDS,
    MAX_ADAPTERS,
    MAX_GUIDANCE,
    MAX_PROMPT,
    MAX_SEED,
    MAX_STEPS,
    MAX_WEIGHT,
    MAX_WEIGHT_PARTS,
    MAX_WEIGHT_TEXT,
    SUM,
    Recipe,
    UsedAdapter,
    clean_text,
)
from ui.messages import Order
from ui.pipeline import schedulers
from ui.pipeline.adapter_folder import AdapterFile, AdapterFolder
from ui.pipeline.base_models import BaseModel

MAX_COUNT = 16  # pictures in one run
Weights = dict[AdapterFile, float | str]
OTHER_BASE = "Another base model was loaded meanwhile. Look at the settings and try again."


class SessionError(ValueError):
    """A request that cannot be met; the message is for the user and has no paths in it."""


def recipe_of(
    order: Order, base: BaseModel, adapters: AdapterFolder, reason_of: Callable[[AdapterFile], str | None]
) -> tuple[Recipe, Weights]:
    """Return the recipe of the first picture and the adapters with weights other than 0, in a fixed order.

    ``reason_of`` says why a file cannot be used with the base, or None.

    Raises:
        SessionError, AdapterFolderError: a value is out of bounds, or an adapter cannot be used.
    """
    if order.base_model not in ("", base.label):
        raise SessionError(OTHER_BASE)
    _check_numbers(order, base)
    chosen: Weights = {}
    for file_id, given in (order.weights or {}).items():
        if not isinstance(given, str):
            within("weight of an adapter", given, -MAX_WEIGHT, MAX_WEIGHT)
        file = adapters.get(file_id)
        if reason := reason_of(file):
            raise SessionError(f"The adapter '{file.name}' cannot be used: {reason}")
        weight = weight_of(given, file, base) if isinstance(given, str) else float(given)
        if weight:
            chosen[file] = weight
    if len(chosen) > MAX_ADAPTERS:
        raise SessionError(f"{len(chosen)} adapters are on; at most {MAX_ADAPTERS} can be mixed.")
    _check_blend(order.blend, chosen)
    files = dict(sorted(chosen.items(), key=lambda item: item[0].content_hash))
    recipe = Recipe(
        prompt=clean_text(order.prompt, MAX_PROMPT),
        negative_prompt=clean_text(order.negative_prompt, MAX_PROMPT),
        steps=int(order.steps),
        guidance_scale=float(order.guidance_scale),
        width=int(order.width),
        height=int(order.height),
        seed=secrets.randbelow(2**31) if order.seed < 0 else int(order.seed),
        base_model=base.label,
        adapters=tuple(UsedAdapter(f.name, f.content_hash, weight) for f, weight in files.items()),
        scheduler=order.scheduler,
        blend=order.blend,
    )
    return recipe, files


def weight_of(text: str, file: AdapterFile, base: BaseModel) -> float | str:
    """Return the weight that a text says: a number where it is only that.

    Raises:
        SessionError: it cannot be read, names what the adapter has not, or has a number out of bounds.
    """
    if len(text) > MAX_WEIGHT_TEXT:
        raise SessionError(f"The weight of '{file.name}' is longer than {MAX_WEIGHT_TEXT} characters.")
    try:
        weight = parse(text)
        numbers = [number for _, frames in weight.parts for _, number in frames.points]
        if max(map(abs, numbers)) > MAX_WEIGHT or len(weight.parts) > MAX_WEIGHT_PARTS:
            raise ValueError(f"At most {MAX_WEIGHT_PARTS} blocks, each from {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}.")
        layers = layers_of(file.header, base) if file.header else {}
        for component, own in split(weight, list(layers)).items():
            own.check(layers[component])
    except ValueError as error:
        raise SessionError(f"The weight of '{file.name}': {error}"[:400]) from None
    return weight.plain


def layers_of(header: LilyHeader, base: BaseModel) -> dict[str, list[str]]:
    """Component -> the layers that the adapter changes there, as the base model names them."""
    models = parts(base.pipe)
    return {
        part.component: [layer for g in groups_in_model(part.groups, models[part.component]) for layer in g.layers]
        for part in header.parts
    }


def within(name: str, value: object, low: float, high: float) -> None:
    """Raise SessionError when the value is no number from low to high."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
        raise SessionError(f"The {name} must be a number from {low:g} to {high:g}.")


def _check_blend(kind: str, chosen: Weights) -> None:
    if kind not in BLENDS:
        raise SessionError(f"There is no blend '{str(kind)[:40]}'; there is {', '.join(BLENDS)}.")
    if kind == SUM or not chosen:
        return
    for file, weight in chosen.items():
        if parse(weight).is_stepped:
            raise SessionError(
                f"The weight of '{file.name}' changes over the steps, which '{kind}' cannot merge. Give it one weight, "
                f"or choose the blend '{SUM}'."
            )
    if kind in PRUNED:
        try:
            peft_function(kind)
        except ImportError as error:
            raise SessionError(str(error)) from None


def _check_numbers(order: Order, base: BaseModel) -> None:
    fits = base.defaults
    whole = {
        "steps": (order.steps, 1, MAX_STEPS),
        "number of pictures": (order.count, 1, MAX_COUNT),
        "seed": (order.seed, -1, MAX_SEED),
        "preview": (order.preview, 0, MAX_STEPS),
        "width": (order.width, fits.size_step, fits.max_edge),
        "height": (order.height, fits.size_step, fits.max_edge),
    }
    for name, (value, low, high) in whole.items():
        within(name, value, low, high)
        if value != int(value):
            raise SessionError(f"The {name} must be a whole number.")
    within("guidance", order.guidance_scale, 0, MAX_GUIDANCE)
    for name in ("width", "height"):
        if whole[name][0] % fits.size_step:
            raise SessionError(f"The {name} must be a multiple of {fits.size_step} pixels for this base model.")
    for name, text in (("prompt", order.prompt), ("negative prompt", order.negative_prompt)):
        if not isinstance(text, str) or len(text) > MAX_PROMPT:
            raise SessionError(f"The {name} must be a text of at most {MAX_PROMPT} characters.")
    known = schedulers.names(base.pipe)
    if order.scheduler not in known:
        raise SessionError(f"This base model has no scheduler of that name; there is {', '.join(known[1:])}.")
