"""Which layers share an A and which share the B experts (section 3 of the paper). Names and sizes only, no weights.

A group is made of all adapted projections of one name and one shape, in forward order: it owns one bank of B experts,
and runs of `stride_A` neighbours in it share an A.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from .config import LilyConfig
from .forward_order import walk

DENOISERS = ("unet", "transformer")  # the models of a pipeline that an adapter may change, by their names in it
TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3", "text_encoder_4")

# A fused projection -> the projections that it stands for when they exist beside it (its rows, in this order).
FUSED = {
    "to_qkv": ("to_q", "to_k", "to_v"),
    "to_kv": ("to_k", "to_v"),
    "to_added_qkv": ("add_q_proj", "add_k_proj", "add_v_proj"),
    "to_added_kv": ("add_k_proj", "add_v_proj"),
}
# What the attention modules of transformers' models call their projections: CLIP; Llama, Gemma, Qwen and others; T5.
IN_TRANSFORMERS = (
    ("q_proj", "k_proj", "v_proj", "out_proj"),
    ("q_proj", "k_proj", "v_proj", "o_proj"),
    ("q", "k", "v", "o"),
)
VISION = {"visual", "vision_tower", "vision_model"}  # in a text encoder that could see
# What models call feed-forward layers in the block around attention; the experts that see some tokens are left out.
FEED_FORWARD = re.compile(
    r"(?!adaln)(\w+_)?(ff|ffn|feed_forward|mlp)(_\w+)?(\.(?!experts\.).*)?"
    r"|(layer\.\d\.)?DenseReluDense\..*|(gate|up|down)_proj"
)
KINDS = ("attention", "feed-forward")  # the targets that stand for all layers of a kind


@dataclass(frozen=True)
class Projection:
    """One linear layer that can be adapted."""

    name: str  # full name, such as "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"
    attribute: str  # its name inside the attention module, "to_out.0", or in the block around that, "ff.net.2"
    in_features: int
    out_features: int


@dataclass(frozen=True)
class Group:
    """Layers that share one bank of experts; ``A_of_layer[i]`` is the A that ``layers[i]`` reads."""

    projection: str  # such as "to_q"
    in_features: int
    out_features: int
    layers: tuple[str, ...]  # in forward order
    A_of_layer: tuple[int, ...]

    @property
    def num_A(self) -> int:
        return max(self.A_of_layer) + 1

    @property
    def name(self) -> str:
        return f"{self.projection} {self.in_features}->{self.out_features}"

    def num_parameters(self, config: LilyConfig) -> int:
        """Unique parameters: the As, the experts and one router a layer."""
        experts = config.num_B * config.r * self.out_features
        router = config.num_B * (1 if config.routing == "static" else config.r)
        return self.num_A * config.r * self.in_features + experts + len(self.layers) * router


def plain(model: Any) -> nn.Module:
    """The model itself, where ``torch.compile(model)`` has wrapped it."""
    return getattr(model, "_orig_mod", model)


def is_text_encoder(model: Any) -> bool:
    """Whether a model is one of transformers, whose attention has no processors."""
    return any(base.__module__.partition(".")[0] == "transformers" for base in type(plain(model)).__mro__)


def attention_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every attention module, in forward order: in diffusers' models those with a processor."""
    return _attention_modules(model, walk(plain(model)))


def _attention_modules(model: nn.Module, modules: Iterable[tuple[str, nn.Module]]) -> Iterator[tuple[str, nn.Module]]:
    is_attention = _in_transformers if is_text_encoder(model) else _processor
    seen = set()
    for name, module in modules:
        if module not in seen and is_attention(module) is not None and not _is_out_of_reach(name):
            seen.add(module)
            yield name, module


def projections_of(name: str, attention: nn.Module) -> list[Projection]:
    """The linear layers of one attention module that belong to it alone, fused aliases left out."""
    found: list[tuple[str, Any]] = []
    for attribute, child in attention.named_children():
        if attribute == "processor":
            continue
        if isinstance(child, nn.ModuleList):
            inner = [(f"{attribute}.{i}", layer) for i, layer in enumerate(child)]
        else:
            inner = [(attribute, child)]
        found += [(path, layer) for path, layer in inner if _is_linear(layer)]
    if _processor(attention) is None:
        there = dict(found)
        found = [(path, there[path]) for path in _in_transformers(attention) or ()]
    names = {path for path, _ in found}
    return [
        Projection(f"{name}.{path}" if name else path, path, layer.in_features, layer.out_features)
        for path, layer in found
        if not set(FUSED.get(path, ("",))) <= names
    ]


def find_projections(model: nn.Module) -> list[Projection]:
    """Every attention projection, in forward order."""
    return [p for name, attention in attention_modules(model) for p in projections_of(name, attention)]


def find_linear_layers(model: nn.Module) -> list[Projection]:
    """Every linear layer that can be adapted, attention projections and others, in forward order.

    The attribute of one outside attention is its name in the smallest module that has attention too: "ff.net.2" in a
    transformer block.
    """
    modules: list[tuple[str, Any]] = list(walk(plain(model)))
    attentions = dict(_attention_modules(model, modules))
    blocks = {block for name in attentions for block in _around(name)}
    found: list[Projection] = []
    seen: set[Any] = set()
    for name, module in modules:
        if name in attentions:
            found += projections_of(name, module)
        elif module in seen or _is_out_of_reach(name):
            continue
        elif _is_linear(module):
            inside = next((name.removeprefix(block) for block in _around(name) if block in blocks), name)
            attribute = re.sub(r"^(\d+\.)+", "", inside)  # the number of a block that has no attention
            found.append(Projection(name, attribute, module.in_features, module.out_features))
        else:
            continue
        seen.update(module.modules())  # what is inside, such as another tool's adapter, is its own
    return found


def _around(name: str) -> Iterator[str]:
    """How the names of all in each module around this one begin, from the innermost to the model itself."""
    while name:
        name = name.rpartition(".")[0]
        yield f"{name}." if name else ""


def _is_linear(module: Any) -> bool:
    """Whether a module is a linear layer; one that holds another, as PEFT's do, is what that is."""
    inner = module
    while hasattr(inner, "base_layer"):
        inner = inner.base_layer
    return hasattr(inner, "in_features") and hasattr(module, "weight")


def _is_out_of_reach(name: str) -> bool:
    """Whether a module is of an IP-Adapter, or of the eyes of a text encoder, which no prompt ever runs."""
    return name.startswith("encoder_hid_proj") or not VISION.isdisjoint(name.split("."))


def _processor(module: nn.Module) -> Any:
    return getattr(module, "processor", None)


def _in_transformers(module: nn.Module) -> tuple[str, ...] | None:
    """The names of the projections of a transformers attention module; None for any other module."""
    linear = {name for name, child in module.named_children() if hasattr(child, "in_features")}
    return next((names for names in IN_TRANSFORMERS if linear.issuperset(names)), None)


def select(model: nn.Module, target_modules: tuple[str, ...] | None) -> list[Projection]:
    """The layers that the targets name, in forward order; for None, the attention projections.

    A target is one of `KINDS`, the end of layers' names, or a full name.

    Raises:
        ValueError: the model has no attention at all, or a target names no layer (near misses are listed). Beside other
            targets "feed-forward" may name none, since some models have convolutions instead.
    """
    projections = find_projections(model)
    if not projections:
        raise ValueError(
            "The model has no attention processors, and no attention as in the text encoders of transformers, so there "
            "is nothing that Lily can adapt."
        )
    if target_modules is None:
        return projections
    layers = find_linear_layers(model)
    attention = {p.name for p in projections}
    others = [p for p in layers if p.name not in attention]
    kinds = {"attention": attention, "feed-forward": _feed_forward(plain(model), others)}
    chosen: set[str] = set()
    for target in target_modules:
        hits = kinds.get(target) or {p.name for p in layers if p.name == target or p.name.endswith(f".{target}")}
        if not hits and (target not in kinds or len(target_modules) == 1):
            raise ValueError(_unknown_target(target, layers))
        chosen |= hits
    return [p for p in layers if p.name in chosen]


def _feed_forward(model: nn.Module, layers: list[Projection]) -> set[str]:
    """Names of the feed-forward layers; `proj_out` is one where it takes what `proj_mlp` gave, as in FLUX.1."""
    found = {p.name for p in layers if is_feed_forward(p.attribute) and not _deals_out_tokens(model, p.name)}
    return found | {p.name for p in layers if p.name.removesuffix("proj_out") + "proj_mlp" in found}


def _deals_out_tokens(model: nn.Module, layer: str) -> bool:
    """Whether a layer is the gate that sends tokens to experts."""
    parent, _, name = layer.rpartition(".")
    return name == "gate" and hasattr(model.get_submodule(parent), "experts")


def is_feed_forward(attribute: str) -> bool:
    """Whether this is what a block calls a layer of its feed-forward module."""
    return FEED_FORWARD.fullmatch(attribute) is not None


def in_feed_forward(layer: str) -> str:
    """The end of a layer's full name that begins with that of a feed-forward module, such as "ff.net.2"; else ""."""
    pieces = layer.split(".")
    start = next((i for i, piece in enumerate(pieces) if is_feed_forward(piece)), len(pieces))
    return ".".join(pieces[start:])


def plan_groups(projections: list[Projection], config: LilyConfig) -> tuple[Group, ...]:
    """Group projections, given in forward order, by name and shape, and deal out the As.

    Raises:
        ValueError: r is larger than the widest projection, so that no layer could use all of it.
    """
    widest = max(projections, key=lambda p: min(p.in_features, p.out_features))
    if config.r > (most := min(widest.in_features, widest.out_features)):
        raise ValueError(
            f"r={config.r} is more than any projection is wide; the widest, {widest.name}, is "
            f"{widest.in_features}->{widest.out_features}. Use r of at most {most}."
        )
    families: dict[tuple[str, int, int], list[str]] = {}
    for p in projections:
        families.setdefault((p.attribute, p.in_features, p.out_features), []).append(p.name)
    groups = []
    for (attribute, n_in, n_out), layers in families.items():
        count = len(layers)
        if config.num_A is None:
            A_of_layer = tuple(i // config.stride_A for i in range(count))
        else:
            num_A = min(config.num_A, count)
            A_of_layer = tuple(i * num_A // count for i in range(count))
        groups.append(Group(attribute, n_in, n_out, tuple(layers), A_of_layer))
    return tuple(groups)


class HasGroups(Protocol):
    """A LilyAdapter or a LilyHeader."""

    @property
    def groups(self) -> tuple[Group, ...]: ...

    @property
    def config(self) -> LilyConfig: ...


def group_table(adapter: HasGroups) -> str:
    """A table for people: one line a group, with its layers, As, experts and parameters."""
    groups, config = adapter.groups, adapter.config
    rows = [("projection", "layers", "A", "B", "parameters", "first layer")]
    for g in groups:
        count = f"{g.num_parameters(config):,}"
        rows.append((g.name, str(len(g.layers)), str(g.num_A), str(config.num_B), count, g.layers[0]))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = ["  ".join([r[0].ljust(widths[0]), *(r[i].rjust(widths[i]) for i in range(1, 5)), r[5]]) for r in rows]
    total = sum(g.num_parameters(config) for g in groups)
    layers = sum(len(g.layers) for g in groups)
    return "\n".join([*lines, f"{layers} layers in {len(groups)} groups, {total:,} parameters"])


def _unknown_target(target: str, layers: list[Projection]) -> str:
    known = sorted({p.attribute for p in layers})
    names = [*known, *(p.name for p in layers), *{".".join(p.name.split(".")[-2:]) for p in layers}]
    near = difflib.get_close_matches(target, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "none is similar."
    return f"{target!r} names no linear layer: {hint} Known: {', '.join(known)}."
