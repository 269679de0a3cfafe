"""What the header of a LoRA file says: how each layer is scaled, for which base it is, and by what hash it is known."""

from __future__ import annotations

import collections
import datetime
import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import safetensors.torch
import torch

from ..header import METADATA_KEY as LILY_KEY
from .kohya_names import is_sdxl

METADATA_KEY = "lora_adapter_metadata"  # diffusers' own


class Scales(NamedTuple):
    """What a header says of alpha, by the end of a layer's name, the first that fits; None: nothing."""

    alpha: float | None = None
    by_layer: tuple[tuple[str, float], ...] = ()
    rank_stabilised: bool = False

    def of(self, layer: str, rank: int) -> float | None:
        """What the layer's update is multiplied by: alpha / rank, or alpha / sqrt(rank)."""
        alpha = next((a for end, a in self.by_layer if f".{layer}".endswith(f".{end}")), self.alpha)
        return None if alpha is None else alpha / (math.sqrt(rank) if self.rank_stabilised else rank)


def read_scales(text: str | None, component: str, name: str) -> Scales:
    """Read the LoraConfig in the header of the file `name`. A pattern in it is taken as the end of layers' names.

    Raises:
        ValueError: it is damaged, or a pattern is a real regular expression.
    """
    if text is None:
        return Scales()
    try:
        config = dict(json.loads(text))
        ours = {k.removeprefix(f"{component}."): v for k, v in config.items() if k.startswith(f"{component}.")}
        config = ours or config
        if "lora_alpha" not in config:
            return Scales()
        patterns = {k.removeprefix("^").replace("\\.", "."): v for k, v in (config.get("alpha_pattern") or {}).items()}
        by_layer = tuple((k, float(v)) for k, v in patterns.items())
        scales = Scales(float(config["lora_alpha"]), by_layer, bool(config.get("use_rslora")))
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise ValueError(f"The {METADATA_KEY} in the header of {name} is damaged ({error}).") from None
    if not all(math.isfinite(alpha) for alpha in (config["lora_alpha"], *(alpha for _, alpha in by_layer))):
        raise ValueError(f"The {METADATA_KEY} in the header of {name} is damaged (an alpha is not finite).")
    if odd := [k for k, _ in by_layer if not re.fullmatch(r"[\w.]+", k)]:
        raise ValueError(f"The {METADATA_KEY} in the header of {name} has a pattern that is not read: {odd[0]}.")
    return scales


def read_trigger_words(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """The words that call the subject, from a header's ModelSpec field."""
    return tuple(word for word in metadata.get("modelspec.trigger_phrase", "").split(", ") if word)


def usual_rank(ranks: Mapping[str, int]) -> int:
    """The rank that most layers have."""
    return collections.Counter(ranks.values()).most_common(1)[0][0]


TELLS_HOW = {
    "format", METADATA_KEY, LILY_KEY, "lily_format_version", "ss_network_module", "ss_network_dim", "ss_network_alpha",
    "sshs_model_hash", "modelspec.hash_sha256",
}  # fields by which a file is read, so that those of another file must not take their place  # fmt: skip


def diffusers_fields(ranks: Mapping[str, Mapping[str, int]]) -> dict[str, str]:
    """The LoraConfigs that diffusers makes from the header, by component: alpha is the rank in every layer.

    Only what every version of PEFT knows is in them, since an unknown key would make the file unreadable there. CLIP's
    layers are named from "encoder" on, which every version of transformers has as the end of their names.
    """
    fields: dict[str, Any] = {}
    for component, own in ranks.items():
        start = "" if component.startswith("text_encoder") else "^"
        own = {layer.removeprefix("text_model."): rank for layer, rank in own.items()}
        r = usual_rank(own)
        other = {start + layer: rank for layer, rank in own.items() if rank != r}
        config = {"r": r, "lora_alpha": r, "rank_pattern": other, "alpha_pattern": other, "target_modules": list(own)}
        fields |= {f"{component}.{key}": value for key, value in config.items()}
    return {METADATA_KEY: json.dumps(fields, sort_keys=True)}


def kohya_fields(
    ranks: Mapping[str, int], unet_config: Mapping[str, Any], name: str, tensors: Mapping[str, torch.Tensor]
) -> dict[str, str]:
    """kohya's fields, and ModelSpec's name of the base where the UNet tells it; "Dynamic" is for ranks that differ."""
    return {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(usual_rank(ranks)) if len(set(ranks.values())) == 1 else "Dynamic",
        "ss_network_alpha": str(usual_rank(ranks)),
        "ss_output_name": name,
        "sshs_model_hash": data_hash(tensors),
        **_base(unet_config),
    }


def common_fields(title: str, architecture: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """The fields of the ModelSpec standard."""
    return {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{architecture}/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": title,
        "modelspec.date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "modelspec.hash_sha256": f"0x{data_hash(tensors)}",
    }


def data_hash(tensors: Mapping[str, torch.Tensor]) -> str:
    """sha256 of what follows the header in the file, by which A1111 and Civitai know a LoRA again."""
    data = safetensors.torch.save({key: tensor.cpu().contiguous() for key, tensor in tensors.items()})
    return hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()


def _base(unet_config: Mapping[str, Any]) -> dict[str, str]:
    width = unet_config.get("cross_attention_dim")
    if is_sdxl(unet_config) and width == 2048:
        return {
            "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
            "ss_base_model_version": "sdxl_base_v1-0",
        }
    if not is_sdxl(unet_config) and width == 768:
        return {"modelspec.architecture": "stable-diffusion-v1/lora", "ss_base_model_version": "sd_v1"}
    if not is_sdxl(unet_config) and width == 1024:  # sd_v2 or sd_v2_v: the UNet does not say what it predicts
        return {"ss_v2": "True"}
    return {}
