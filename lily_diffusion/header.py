"""The header of a Lily file: config and explicit map of groups of each part, and what identifies the file.

An adapter has one part for each model of the pipeline that it changes: the denoiser's, and those of text encoders.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .adapter import LilyAdapter
from .config import LilyConfig
from .sharing import TEXT_ENCODERS, Group

METADATA_KEY = "lily_adapter_metadata"
SAFETENSORS_NAME = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
VERSION = "3"  # lily_format_version
ROUTER_A_LAYER = ("1", "2")  # versions whose routers are a tensor each


@dataclass(frozen=True)
class LilyPart:
    """What an adapter is on one model of the pipeline."""

    component: str  # "unet", "transformer", "text_encoder", "text_encoder_2", ...
    model_class: str  # such as "UNet2DConditionModel"
    config: LilyConfig
    groups: tuple[Group, ...]
    fingerprint: str  # of the names and shapes of the adapted projections

    @property
    def num_parameters(self) -> int:
        return sum(g.num_parameters(self.config) for g in self.groups)


@dataclass(frozen=True)
class LilyHeader:
    """What a Lily file says of itself, read without its tensors: of its first part, the denoiser's, and of the rest."""

    config: LilyConfig
    groups: tuple[Group, ...]
    component: str  # "unet" or "transformer"; a text encoder's name where there is no part for the denoiser
    model_class: str  # such as "UNet2DConditionModel"
    base_model: str | None  # id or path of the base that it was trained on
    fingerprint: str  # of the names and shapes of the adapted projections
    trigger_words: tuple[str, ...]
    content_hash: str  # sha256 of the tensors
    dtype: str  # of the tensors, such as "float32"
    metadata: dict[str, str]  # the whole header
    further: tuple[LilyPart, ...] = ()  # the parts for text encoders beside the first

    @property
    def parts(self) -> tuple[LilyPart, ...]:
        """All parts, the denoiser's first."""
        return (
            LilyPart(self.component, self.model_class, self.config, self.groups, self.fingerprint),
            *self.further,
        )

    @property
    def num_parameters(self) -> int:
        return sum(part.num_parameters for part in self.parts)


def fingerprint(model_class: str, groups: tuple[Group, ...]) -> str:
    """sha256 over the model's class and the names and shapes of its adapted projections."""
    lines = sorted(f"{layer} {g.in_features} {g.out_features}" for g in groups for layer in g.layers)
    return hashlib.sha256("\n".join([model_class, *lines]).encode()).hexdigest()


def content_hash(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 over names, dtypes, shapes and bytes of the tensors."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        tensor = tensors[key].detach().cpu().contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def make_header(
    adapter: LilyAdapter,
    tensors: Mapping[str, torch.Tensor],
    component: str,
    model_class: str,
    base_model: str | None,
    trigger_words: tuple[str, ...],
    extra: Mapping[str, str],
    further: Mapping[str, tuple[LilyAdapter, str]] | None = None,
) -> dict[str, str]:
    """The header's strings: ours as JSON, and the fields of the ModelSpec standard for other tools.

    Args:
        adapter, component, model_class: the first part, the denoiser's if there is one.
        tensors: of all parts.
        further: component -> (adapter, model class) of the text encoders beside it.
    """
    digest, others = content_hash(tensors), further or {}
    ours = {
        **_part(adapter, component, model_class),
        "base_model": base_model,
        "trigger_words": list(trigger_words),
        "content_hash": digest,
        **({"further_parts": [_part(part, name, kind) for name, (part, kind) in others.items()]} if others else {}),
    }
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{model_class}/lily",
        "modelspec.implementation": "https://arxiv.org/abs/2407.09946",
        "modelspec.title": "Lily adapter",
        "modelspec.date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        **({"modelspec.trigger_phrase": ", ".join(trigger_words)} if trigger_words else {}),
        **extra,  # which may be another file's header, whose account of its tensors is not of these
        "format": "pt",
        "lily_format_version": VERSION,
        METADATA_KEY: json.dumps(ours, sort_keys=True, separators=(",", ":")),
        "modelspec.hash_sha256": f"0x{digest}",
    }


def parse_header(metadata: Mapping[str, str], dtypes: Mapping[str, str], name: str) -> LilyHeader:
    """Make sense of a header's strings. `dtypes`: key -> safetensors dtype; `name`: the file's name for the errors."""
    if METADATA_KEY not in metadata:
        raise ValueError(_foreign(dtypes, name))
    version = metadata.get("lily_format_version")
    if version not in (*ROUTER_A_LAYER, VERSION):
        raise ValueError(f"{name} has format version {version!r} and this library reads 1 to {VERSION}; update it.")
    unknown = sorted(set(dtypes.values()) - DTYPES.keys())
    if unknown or not dtypes:
        raise ValueError(f"{name} holds {'tensors of type ' + ', '.join(unknown) if unknown else 'no tensors'}.")
    try:
        ours = json.loads(metadata[METADATA_KEY])
        first, *further = (_read_part(part) for part in (ours, *ours.get("further_parts", ())))
        header = LilyHeader(
            config=first.config,
            groups=first.groups,
            component=first.component,
            model_class=first.model_class,
            base_model=ours["base_model"],
            fingerprint=first.fingerprint,
            trigger_words=tuple(ours["trigger_words"]),
            content_hash=ours["content_hash"],
            dtype=DTYPES[max(dtypes.values())],
            metadata=dict(metadata),
            further=tuple(further),
        )
        sound = _sound(header)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"The header of {name} is damaged ({type(error).__name__}: {error}).") from None
    if not sound or any(part.fingerprint != fingerprint(part.model_class, part.groups) for part in header.parts):
        raise ValueError(f"The header of {name} is damaged: its map of groups contradicts itself.")
    return header


def check_denoiser_only(header: LilyHeader, name: str, action: str) -> None:
    """Raise ValueError where `action` would drop the parts of the file `name` that are for text encoders."""
    others = [part.component for part in header.parts if part.component in TEXT_ENCODERS]
    if others:
        raise ValueError(
            f"{name} has a part for {' and '.join(others)}, which {action}; to go on with the denoiser's part alone, "
            "load the file into the pipeline and save that part by itself: save_lily_weights(pipe.unet, ...)."
        )


def _part(adapter: LilyAdapter, component: str, model_class: str) -> dict[str, Any]:
    """One part as JSON has it."""
    return {
        "config": adapter.config.to_dict(),
        "groups": [
            {
                "projection": g.projection,
                "in_features": g.in_features,
                "out_features": g.out_features,
                "layers": list(g.layers),
                "A_of_layer": list(g.A_of_layer),
            }
            for g in adapter.groups
        ],
        "component": component,
        "model_class": model_class,
        "fingerprint": fingerprint(model_class, adapter.groups),
    }


def _read_part(values: Mapping[str, Any]) -> LilyPart:
    groups = tuple(
        Group(g["projection"], g["in_features"], g["out_features"], tuple(g["layers"]), tuple(g["A_of_layer"]))
        for g in values["groups"]
    )
    config = LilyConfig.from_dict(values["config"])
    return LilyPart(values["component"], values["model_class"], config, groups, values["fingerprint"])


def _sound(header: LilyHeader) -> bool:
    """Whether every part can be built, and all but the first are for text encoders, each for another."""
    components = [part.component for part in header.parts]
    texts = [header.content_hash, *header.trigger_words]
    return (
        all(isinstance(text, str) for text in texts)
        and (header.base_model is None or isinstance(header.base_model, str))
        and all(map(_sound_part, header.parts))
        and len(set(components)) == len(components)
        and set(components[1:]) <= set(TEXT_ENCODERS)
    )


def _sound_part(part: LilyPart) -> bool:
    """Whether the map of groups can be built: sizes are positive, every layer and every A is there once."""
    layers = [layer for g in part.groups for layer in g.layers]
    texts = [part.component, part.model_class, part.fingerprint, *(g.projection for g in part.groups)]
    return (
        bool(layers)
        and part.config.num_B <= 2**16
        and len(set(layers)) == len(layers)
        and all(isinstance(text, str) for text in [*layers, *texts])
        and all(
            len(g.layers) == len(g.A_of_layer) > 0
            and all(isinstance(n, int) for n in (g.in_features, g.out_features, *g.A_of_layer))
            and 0 < min(g.in_features, g.out_features) <= max(g.in_features, g.out_features) <= 2**20
            and set(g.A_of_layer) == set(range(len(set(g.A_of_layer))))
            for g in part.groups
        )
        and part.config.r <= max(min(g.in_features, g.out_features) for g in part.groups)
    )


def _foreign(keys: Mapping[str, str], name: str) -> str:
    """Say what a file without our header is."""
    if any("lily_A" in key or "lily_lp" in key for key in keys):
        return (
            f"{name} is a Lily file of another program (PEFT or the authors'), without {METADATA_KEY} in its header: "
            "load its folder, or convert it (lily-diffusion convert)."
        )
    if any("lora" in key.lower() for key in keys):
        return f"{name} is a LoRA file, not a Lily adapter: use pipe.load_lora_weights, or lily-diffusion convert."
    first = next(iter(keys), "no tensors")
    return f"{name} is not a Lily adapter: it has no {METADATA_KEY} in its header (first key: {first})."
