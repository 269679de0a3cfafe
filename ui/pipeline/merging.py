"""Merging: the adapters of a recipe frozen, and made one adapter that is attached while its pictures are drawn.

A merge follows from the recipe without its seed and from nothing else, so pictures of one recipe are the same bit for
bit, whoever asks and whenever. Nothing here imports gradio.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from lily_diffusion import attach, detach
from lily_diffusion.adapter import LilyAdapter
from lily_diffusion.adapter_weight import parse, split
from lily_diffusion.baking import FROZEN, bake_lily, only
from lily_diffusion.components import parts
from lily_diffusion.frozen import factors, from_factors, projections
from lily_diffusion.interchange.merging import PRUNED, merge_adapters
from lily_diffusion.interchange.rank import largest_error
from lily_diffusion.sharing import DENOISERS
from ui.keeping.recipe import SUM, Recipe
from ui.pipeline import drawing
from ui.pipeline.adapter_folder import AdapterFile
from ui.pipeline.base_models import BaseModel
from ui.pipeline.orders import Weights

DENSITY = 0.5  # the part of the entries that a pruning merge keeps
SEED = 0  # of the pictures that routers are watched on, and of what DARE drops
KEPT_FROZEN, KEPT_MERGED = 8, 4  # of the last adapters and merges, so that other kinds and seeds make nothing anew

Parts = dict[str, LilyAdapter]  # by component
OnPreparing = Callable[[str, int, int], None]  # what is done, steps that are done, steps; what it raises ends all


class Merges:
    """What was made for the last few recipes, and having it active in a pipeline."""

    def __init__(self) -> None:
        self._frozen, self._merged = _Recent(KEPT_FROZEN), _Recent(KEPT_MERGED)

    def forget(self) -> None:
        """The base model is another one now."""
        self._frozen.clear()
        self._merged.clear()

    @contextmanager
    def active(self, base: BaseModel, recipe: Recipe, files: Weights, on_preparing: OnPreparing) -> Iterator[None]:
        """Have the loaded adapters' merge, and it alone, active inside the ``with`` block; a sum stays as it is."""
        if recipe.blend == SUM or not files:
            yield
            return
        key = (replace(recipe, seed=0), tuple(file.stamp for file in files))
        whole = self._merged.get_or_make(key, partial(self._merge, base, recipe, files, on_preparing))
        with standing_in(base.pipe, whole):
            yield

    def _merge(self, base: BaseModel, recipe: Recipe, files: Weights, on_preparing: OnPreparing) -> Parts:
        scene = replace(recipe, seed=0, adapters=(), blend=SUM)  # all that an adapter alone is watched on
        frozen = {}
        for file in files:
            make = partial(_freeze, base, scene, file, on_preparing)
            frozen[file.id] = self._frozen.get_or_make((file.id, file.stamp, scene), make)
        weights = {file.id: weight for file, weight in files.items()}
        return merge(frozen, weights, recipe.blend, on_layer=partial(on_preparing, "Merging the layers"))[0]


class _Recent(OrderedDict[Any, Parts]):
    """At most ``most`` entries: those that were asked for last."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def get_or_make(self, key: Any, make: Callable[[], Parts]) -> Parts:
        if key not in self:
            self[key] = make()
        self.move_to_end(key)
        if len(self) > self.most:
            self.popitem(last=False)
        return self[key]


def merge(
    frozen: Mapping[str, Parts],
    weights: Mapping[str, float | str],
    method: str = "cat",
    rank: int | None = None,
    on_layer: Callable[[int, int], None] | None = None,
) -> tuple[Parts, float]:
    """Make one adapter of frozen ones at their weights; one that differs by layer is taken into the updates before.

    Args:
        frozen: the adapters' parts, by name.
        weights: by name; none may change over the steps.
        method, rank, on_layer: see `merge_adapters`.

    Returns:
        (the parts by component, the largest relative error of a layer that the rank causes)
    """
    whole: Parts = {}
    worst = 0.0
    components = list(dict.fromkeys(component for one in frozen.values() for component in one))
    components.sort(key=lambda component: component not in DENOISERS)  # a file names the denoiser's part first
    density = DENSITY if method in PRUNED else None
    for component in components:
        owners, numbers = {}, []
        for name, one in frozen.items():
            if component in one:
                part = one[component]
                by_layer = split(parse(weights[name]), list(one))[component].by_layer(part.layers)
                alike = set(by_layer.values())
                plain = len(alike) == 1 and alike != {0.0}  # zeros are no votes where signs are elected
                owners[name] = part if plain else _scaled(part, by_layer)
                numbers.append(alike.pop() if plain else 1.0)
        made = merge_adapters(owners, numbers, method, rank=rank, density=density, seed=SEED, on_layer=on_layer)
        whole[component] = made.adapter
        worst = max(worst, largest_error(made.errors)[1])
    return whole, worst


@contextmanager
def standing_in(pipe: Any, whole: Parts) -> Iterator[None]:
    """Have these parts, and no other adapter, active inside the ``with`` block; afterwards all is as it was before."""
    models = parts(pipe)
    with ExitStack() as stack:
        for component, part in whole.items():
            attach(models[component], part, FROZEN)
            stack.callback(detach, models[component], FROZEN)
        stack.enter_context(only(pipe, {FROZEN: 1.0}))
        yield


def _freeze(base: BaseModel, scene: Recipe, file: AdapterFile, on_preparing: OnPreparing) -> Parts:
    """The loaded adapter's frozen stand-in, from what its routers do alone on the scene's own prompt."""

    def step_end(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        on_preparing(f"Watching the routers of '{file.name}'", drawing.steps_done(pipe, scene, step), scene.steps)
        return tensors

    call = {**drawing.call_arguments(base, scene), "callback_on_step_end": step_end}
    prompt = call.pop("prompt")
    if call.get("negative_prompt"):
        call["negative_prompt"] = [call["negative_prompt"]]  # pipelines want both prompts in the same form
    with drawing.noise_from(SEED):
        return bake_lily(base.pipe, [prompt], file.id, seed=SEED, **call).parts


def _scaled(adapter: LilyAdapter, weights: Mapping[str, float]) -> LilyAdapter:
    scaled = {}
    for p in projections(adapter):
        down, up = factors(adapter, p.name)
        scaled[p] = down.cpu(), up.cpu() * weights[p.name]
    return from_factors(scaled)
