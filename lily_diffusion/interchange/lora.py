"""Frozen adapters as plain LoRA files, in diffusers' format and in kohya's, and LoRA files as frozen adapters.

A LoRA adds up down x * alpha / rank to a layer. What is written here has the scaling in the factors.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ..adapter import LilyAdapter
from ..components import CLIP_PREFIX, COMPONENTS, denoiser
from ..frozen import Factors, factors, from_factors
from ..header import METADATA_KEY as LILY_KEY
from ..save_and_load import load_tensors, write_file
from ..sharing import Projection, find_linear_layers
from .kohya_names import kohya_name, kohya_names, kohya_text_name, sd_config
from .lora_header import (
    METADATA_KEY,
    TELLS_HOW,
    Scales,
    common_fields,
    diffusers_fields,
    kohya_fields,
    read_scales,
    usual_rank,
)

FORMATS = ("diffusers", "kohya")
PARTS = {  # how a key ends -> what the tensor is
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
    ".alpha": "alpha",
}
TEXT_ENCODERS = ("text_encoder", "text_encoder_2")  # of which the formats have layers' names, those of CLIP
CLIP_LAYER = re.compile(r"(text_model\.)?encoder\.layers\.\d+\.self_attn\.(q|k|v|out)_proj")


def write_lora(
    adapter: LilyAdapter,
    path: str | os.PathLike[str],
    *,
    component: str,
    format: str = "diffusers",
    model_class: str | None = None,
    base_model: str | None = None,
    trigger_words: Sequence[str] = (),
    unet_config: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
    text_encoders: Mapping[str, LilyAdapter] | None = None,
) -> Path:
    """Write a frozen adapter as a LoRA file that others load; ranks that hold only zeros are left out.

    Args:
        component: "unet" or "transformer".
        format: "diffusers" (``pipe.load_lora_weights``, and ComfyUI for transformers), or "kohya" (A1111, Forge,
            ComfyUI and kohya's scripts; UNets only).
        model_class: such as "UNet2DConditionModel", for the header.
        base_model: id of the base, for the header.
        unet_config: the UNet's config, from which kohya's names are made; not needed for Stable Diffusion 1.x and 2.x.
        metadata: more strings for the header.
        dtype: of the tensors; None takes the adapter's own.
        text_encoders: the adapter's parts for "text_encoder" and "text_encoder_2", which must be CLIPs.

    Raises:
        ValueError: the adapter is not frozen, the format has no names for its layers, or a value is not finite.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"A LoRA file must end in .safetensors, not {path.name!r}.")
    check_format(format, component, text_encoders)
    config = None
    if format == "kohya":
        config = sd_config(adapter.groups) if unet_config is None else unet_config
    adapters = {component: adapter, **(text_encoders or {})}
    pairs = {c: {layer: _trimmed(factors(a, layer)) for layer in a.layers} for c, a in adapters.items()}
    ranks = {c: {layer: down.shape[0] for layer, (down, _) in own.items()} for c, own in pairs.items()}
    if config is None:
        tensors = _cast(_diffusers_tensors(pairs), dtype or next(adapter.parameters()).dtype)
        fields = diffusers_fields(ranks)
    else:
        tensors = _cast(_kohya_tensors(pairs, config), dtype or next(adapter.parameters()).dtype)
        fields = kohya_fields(_flat(ranks), config, path.stem, tensors)
    if trigger_words:
        fields["modelspec.trigger_phrase"] = ", ".join(trigger_words)
    if base_model:
        fields["ss_sd_model_name"] = base_model
    common = common_fields(path.stem, model_class or component, tensors)
    own = {key: value for key, value in (metadata or {}).items() if key not in TELLS_HOW}
    write_file(path, tensors, {**common, **fields, **own})
    return path


def check_format(format: str, component: str, text_encoders: Mapping[str, Any] | None = None) -> None:
    """Raise ValueError for a format or component that is unknown, and for layers that the format has no names for.

    Args:
        text_encoders: further parts, adapters or what else has `groups`, by component.
    """
    if component in TEXT_ENCODERS:
        raise ValueError("The adapter has no part for the denoiser; a LoRA of text encoders alone is not written.")
    if component not in COMPONENTS:
        raise ValueError(f"component must be one of {', '.join(COMPONENTS)}, not {component!r}.")
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, not {format!r}.")
    if format == "kohya" and component != "unet":
        raise ValueError(
            "kohya's format has no common names for a transformer's layers: take the format 'diffusers', which ComfyUI "
            "and others read for transformers."
        )

    for name, part in (text_encoders or {}).items():
        layers = [layer for group in part.groups for layer in group.layers]
        odd = [layer for layer in layers if name not in TEXT_ENCODERS or not CLIP_LAYER.fullmatch(layer)]
        if odd:
            raise ValueError(
                f"LoRA formats name the layers of CLIP in {' and '.join(TEXT_ENCODERS)} only, and the adapter has "
                f"{name}.{odd[0]}: save the denoiser's part alone with save_lily_weights(pipe.unet, ...) and bake that."
            )


def read_lora(path: str | os.PathLike[str], model: Any, *, skip_others: bool = False) -> LilyAdapter:
    """Read a LoRA file, in diffusers' format or kohya's, as a frozen adapter in float32.

    Args:
        path: a .safetensors file.
        model: the pipeline, UNet or transformer that it is for; only the names and sizes of its layers are read.
        skip_others: leave out what is no linear layer of the model (convolutions, a text encoder's layers) instead of
            refusing the file.

    Raises:
        ValueError: the file is no plain LoRA, it has layers that are no linear ones of the model's, or tensors
            that are misshapen, not finite, or without their partner.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    component, model = denoiser(model)
    metadata = read_metadata(path)
    layers = _by_layer(load_tensors(path), path.name)
    scales = read_scales(metadata.get(METADATA_KEY), component, path.name)
    known = _spellings(component, model)
    others = [layer for layer in layers if layer not in known]
    if others and not (skip_others and len(others) < len(layers)):
        raise ValueError(
            f"{path.name}: {len(others)} of its {len(layers)} layers are no linear layers of this "
            f"{type(model).__name__}, first {others[0]}"
            + ("." if len(others) == len(layers) else "; skip_others leaves them out.")
        )
    found: dict[Projection, Factors] = {}
    for layer, p in ((layer, known[layer]) for layer in layers if layer in known):
        if p in found:
            raise ValueError(f"{path.name} has the layer {p.name} twice, under two names.")
        found[p] = _pair(layer, p, layers[layer], scales, path.name)
    return from_factors({p: found[p] for p in find_linear_layers(model) if p in found})


def is_lora(path: str | os.PathLike[str]) -> bool:
    """Whether a file is some LoRA by its keys, and no Lily file; what cannot be read as safetensors is none."""
    try:
        with safe_open(path, "pt") as file:
            metadata, keys = file.metadata() or {}, file.keys()
    except (SafetensorError, OSError):
        return False
    return LILY_KEY not in metadata and any("lora" in key.lower() for key in keys)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The strings in a safetensors file's header.

    Raises:
        ValueError: it is no safetensors file.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path.name} cannot be read as safetensors ({error}).") from None


def _trimmed(pair: Factors) -> Factors:
    """Without the ranks that add nothing; one always stays."""
    down, up = pair
    used = (down != 0).any(1) & (up != 0).any(0)
    used[0] |= ~used.any()
    return down[used], up[:, used]


def _cast(tensors: dict[str, torch.Tensor], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """The matrices in this dtype; alphas stay in float32, since a rank need not be a number of a shorter one."""
    tensors = {key: tensor.to(dtype) if tensor.ndim else tensor for key, tensor in tensors.items()}
    bad = [key for key, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise ValueError(f"{len(bad)} tensors of the LoRA are not finite in {dtype}, first {bad[0]}; not written.")
    return tensors


def _flat(by_component: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{c}.{layer}": value for c, own in by_component.items() for layer, value in own.items()}


def _diffusers_tensors(pairs: Mapping[str, Mapping[str, Factors]]) -> dict[str, torch.Tensor]:
    tensors = {}
    for component, own in pairs.items():
        prefix = f"{component}.{CLIP_PREFIX if component in TEXT_ENCODERS else ''}"
        for layer, (down, up) in own.items():
            tensors[f"{prefix}{layer.removeprefix(CLIP_PREFIX)}.lora_A.weight"] = down
            tensors[f"{prefix}{layer.removeprefix(CLIP_PREFIX)}.lora_B.weight"] = up
    return tensors


def _kohya_tensors(pairs: Mapping[str, Mapping[str, Factors]], config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """One alpha, the usual rank, for all layers; where the rank is another, rank / alpha goes into up.

    With an alpha of its own for each layer, diffusers (0.42) would take the most frequent one for all.
    """
    tensors = {}
    alpha = usual_rank({name: down.shape[0] for name, (down, _) in _flat(pairs).items()})
    for component, own in pairs.items():
        for layer, (down, up) in own.items():
            text = component in TEXT_ENCODERS
            name = kohya_text_name(layer, component, config) if text else kohya_name(layer, config)
            tensors[f"{name}.lora_down.weight"] = down
            tensors[f"{name}.lora_up.weight"] = up * (down.shape[0] / alpha)
            tensors[f"{name}.alpha"] = torch.tensor(float(alpha))
    return tensors


def _spellings(component: str, model: nn.Module) -> dict[str, Projection]:
    """Every name that a file may use for a projection: diffusers' new and old ones, and kohya's."""
    config = getattr(model, "config", None)
    names: dict[str, Projection] = {}
    for p in find_linear_layers(model):
        attention = p.name.removesuffix(p.attribute)
        spellings = [p.name, f"{attention}processor.{p.attribute.removesuffix('.0')}"]
        spellings += [f"{component}.{name}" for name in spellings]
        if component == "unet" and isinstance(config, Mapping):
            spellings += kohya_names(p.name, config)
        names |= dict.fromkeys(spellings, p)
    return names


def _by_layer(tensors: Mapping[str, torch.Tensor], name: str) -> dict[str, dict[str, torch.Tensor]]:
    """The tensors sorted into {layer: {"down", "up", "alpha"}}."""
    layers: dict[str, dict[str, torch.Tensor]] = {}
    odd = []
    for key, tensor in tensors.items():
        end = next((end for end in PARTS if key.endswith(end)), None)
        if end is None:
            odd.append(key)
        else:
            layers.setdefault(key.removesuffix(end), {})[PARTS[end]] = tensor
    if odd or not layers:
        what = f"{len(odd)} of its {len(tensors)} tensors are something else, first {odd[0]}" if odd else "it is empty"
        raise ValueError(f"{name} is no plain LoRA file: {what}.")
    return layers


def _pair(layer: str, p: Projection, parts: Mapping[str, torch.Tensor], scales: Scales, name: str) -> Factors:
    """Check one layer's tensors, and put its scale into the factors."""
    if missing := [part for part in ("down", "up") if part not in parts]:
        raise ValueError(f"{name} has only a part of {layer}: its {missing[0]} matrix is missing.")
    down, up = parts["down"].float(), parts["up"].float()
    rank = len(down) if down.ndim else 0
    if (down.shape, up.shape) != ((rank, p.in_features), (p.out_features, rank)) or rank == 0:
        raise ValueError(
            f"{name} has misshapen tensors for {layer}: down {tuple(down.shape)} and up {tuple(up.shape)}, where the "
            f"model's layer is {p.in_features}->{p.out_features}."
        )
    alpha = parts.get("alpha")
    if not all(torch.isfinite(t.float()).all() for t in parts.values()) or (alpha is not None and alpha.numel() != 1):
        raise ValueError(f"{name} has values for {layer} that are not finite, or an alpha that is no number.")
    scale = scales.of(p.name, rank)
    if alpha is not None and scale is not None and not math.isclose(scale, alpha.item() / rank, rel_tol=1e-3):
        raise ValueError(f"{name} contradicts itself: its header and its alpha tensor scale {layer} differently.")
    if scale is None:
        scale = 1.0 if alpha is None else alpha.item() / rank
    return down, up * scale
