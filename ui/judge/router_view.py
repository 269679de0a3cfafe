"""The router view: which expert answers in which layer at which denoising step of one picture, drawn and in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from lily_diffusion.adapter import LilyAdapter
from lily_diffusion.components import denoiser
from lily_diffusion.heat_map import Layer, Panel, places_of, routing_map
from lily_diffusion.inspection import LayerRouting, RoutingRecorder, record_routing, routing_by_step
from lily_diffusion.sharing import DENOISERS
from lily_diffusion.state import one_adapter
from ui.keeping.recipe import SUM, Recipe
from ui.messages import Order
from ui.pipeline import drawing
from ui.pipeline.jobs import Drawn, Job, first_adapter, seeded
from ui.pipeline.orders import SessionError

EVEN = 0.01  # decided less than this, routers hardly choose
MAX_CAPTION = 120  # characters of the prompt


@dataclass(frozen=True)
class Routed:
    """What the routers did: the picture that was drawn meanwhile, the saved map, and a summary for people."""

    drawn: Drawn
    map: Image.Image
    path: Path
    sentence: str


def view(job: Job, order: Order) -> None:
    """Tell `Routed` for the adapter that the order names first; or a sentence where there is nothing to route.

    Raises:
        SessionError, AdapterFolderError: the order cannot be met, or the adapter changes no denoiser.
    """
    order = replace(seeded(order), blend=SUM)  # a merge has no routers
    adapter_id = first_adapter(order)
    file = job.session.adapters.get(adapter_id)
    header = file.header
    if header is not None and header.component not in DENOISERS:
        raise SessionError(f"The adapter '{file.name}' changes only the text encoder, whose routers are not shown.")
    if header is not None and header.config.routing == "static":
        job.tell(
            f"The routing of '{file.name}' is static: the same mixture of experts answers at every step of every "
            "prompt, so there is nothing to watch."
        )
        return
    if not order.weights or not order.weights[adapter_id]:
        raise SessionError(f"The adapter '{file.name}' has the weight 0. Give it another one to watch its routers.")
    with job.session.using(order) as (pipe, recipe):
        model = denoiser(pipe)[1]
        adapter = one_adapter(model, adapter_id)[1]
        rounds: list[int] = []  # some schedulers call the model more often than they are asked for steps
        with record_routing(model, adapter_id) as recorder:
            image = job.picture(recipe, rounds.append)
        guided = bool(getattr(pipe, "do_classifier_free_guidance", recipe.guidance_scale > 1))
    layers = by_step(recorder, len(rounds), guided)
    title = f"Which experts of '{file.name}' answer, and how decidedly"
    sheet = routing_map([panel(recipe.prompt, adapter, layers)], title=title, note=_note(recipe, guided))
    drawn = Drawn(image, recipe, drawing.save(image, recipe, job.session.output_dir))
    path = drawing.save(sheet, recipe, job.session.output_dir)
    job.tell(Routed(drawn, sheet, path, sentence(adapter, layers)))


def by_step(recorder: RoutingRecorder, rounds: int, guided: bool) -> dict[str, LayerRouting]:
    """Layer -> its routing at each round of the denoising; of guided pictures, of the side that reads the prompt.

    Raises:
        SessionError: no layer was heard.
    """
    if not recorder.layers or not rounds:
        raise SessionError("None of the adapter's layers took part in this picture. Its weight may be 0 everywhere.")
    samples = recorder.entropies(recorder.layers[0]).shape[1]
    return routing_by_step(recorder, rounds, 1 if guided and samples % 2 == 0 else None)


def panel(prompt: str, adapter: LilyAdapter, layers: Mapping[str, LayerRouting]) -> Panel:
    """The heat map's rows, in the order in which the model ran the layers."""
    groups = {layer: (group, number) for number, group in enumerate(adapter.groups) for layer in group.layers}
    places = places_of({name: groups[name][0].projection for name in layers})
    rows = []
    for name, routing in layers.items():
        group, number = groups[name]
        usage, entropy = routing.usage.tolist(), routing.entropy.tolist()
        rows.append(Layer(group.projection, *places[name], f"{number} {group.name}", usage, entropy))
    shown = prompt if len(prompt) <= MAX_CAPTION else f"{prompt[:MAX_CAPTION]} ..."
    return Panel(f'"{shown}"', rows)


def sentence(adapter: LilyAdapter, layers: Mapping[str, LayerRouting]) -> str:
    """What the map shows, in words and numbers."""
    decided = {name: 1 - routing.entropy.mean().item() for name, routing in layers.items()}
    mean = sum(decided.values()) / len(decided)
    if mean < EVEN:
        return (
            f"The routers hardly choose: they are {mean:.1%} decided on average, where 0% means that all "
            f"{adapter.config.num_B} experts count equally. One fixed mixture would draw nearly the same picture."
        )
    name = max(decided, key=decided.__getitem__)
    projections = {layer: group.projection for group in adapter.groups for layer in group.layers}
    section, block, number = places_of({layer: projections[layer] for layer in layers})[name]
    place = f"{projections[name]} of {section} in {' '.join(filter(None, [block, number]))}"
    usage = layers[name].usage.mean(0)
    expert = int(usage.argmax())
    turned = sum(int(r.usage[0].argmax() != r.usage[-1].argmax()) for r in layers.values())
    if turned:
        turning = f"In {turned} of {len(layers)} layers another expert leads at the last step than at the first."
    else:
        turning = f"In none of the {len(layers)} layers the leading expert changes from the first step to the last."
    return (
        f"The routers are {mean:.0%} decided on average (0%: all {adapter.config.num_B} experts count equally, 100%: "
        f"one does everything). Most decided is {place}, where expert {expert + 1} has {usage[expert]:.0%} of the "
        f"say. {turning}"
    )


def _note(recipe: Recipe, guided: bool) -> str:
    side = ", the side of the guidance that reads the prompt" if guided else ""
    return f"{recipe.base_model}: {recipe.steps} steps, guidance {recipe.guidance_scale:g}, seed {recipe.seed}{side}"
