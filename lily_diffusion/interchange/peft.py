"""PEFT's Lily folders, read and written without PEFT: there, every layer stores its own copy of what it shares."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from ..adapter import LilyAdapter
from ..attach import check_fits
from ..components import denoiser
from ..config import LilyConfig
from ..header import SAFETENSORS_NAME, content_hash
from ..save_and_load import load_tensors, save_tensors
from ..sharing import Group, Projection, find_linear_layers
from .peft_sharing import owners_in_peft, weight_shapes, wiring

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
PARTS = ("lily_A", "lily_B", "lily_router")
KEY = re.compile(r"(?:base_model\.model\.)?(?:_orig_mod\.)?(?P<layer>.+)\.(?P<part>lily_(?:A|B|router))\.weight")

Tensors = dict[str, torch.Tensor]  # by key, or by part of one layer: A (r, in), B (num_B * r, out), router (num_B, r)


def read_peft(folder: str | os.PathLike[str], model: Any, *, routing: str = "batch") -> LilyAdapter:
    """Read a folder of PEFT's Lily for a model (or its pipeline); what is equal in it is shared from now on.

    Args:
        folder: with adapter_config.json and adapter_model.safetensors.
        model: the UNet or transformer that the adapter was trained on; its names, sizes and order are asked for.
        routing: "batch" is how PEFT runs it; "sample" is the same for one picture at a time.

    Raises:
        ValueError: the folder is not a sound Lily adapter of PEFT, or not one for the layers of this model.
        FileNotFoundError: there is no such folder.
    """
    folder, model = Path(folder), denoiser(model)[1]
    config = read_config(folder)
    if not (folder / WEIGHTS_NAME).is_file():
        if (folder / "adapter_model.bin").exists():
            raise ValueError(
                f"{folder.name} has a pickle, adapter_model.bin, which is never opened: save as safetensors."
            )
        raise ValueError(f"{folder.name} has no {WEIGHTS_NAME}.")
    try:
        tensors = load_tensors(folder / WEIGHTS_NAME)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{WEIGHTS_NAME} cannot be read as safetensors ({error}); it may be cut off.") from None
    try:
        ours = LilyConfig(routing=routing, **{k: config[k] for k in ("r", "stride_A", "num_B", "scaling")})
    except (KeyError, ValueError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{CONFIG_NAME} in {folder.name} cannot be used: {reason}") from None
    layers = by_layer(tensors, model, WEIGHTS_NAME)
    if lacking := missing(layers):
        shapes = weight_shapes(model, {p.name for p in layers})
        try:
            fill(layers, owners_in_peft(shapes, config.get("target_modules"), ours.stride_A))
        except ValueError as error:
            count = f"{len(lacking)} of {3 * len(layers)}, first {lacking[0]}"
            raise ValueError(f"{WEIGHTS_NAME} lacks tensors: {count}; {error}") from None
    return from_layers(layers, ours, WEIGHTS_NAME)


def write_peft(adapter: LilyAdapter, folder: str | os.PathLike[str], model: Any, base_model: str | None = None) -> Path:
    """Write an adapter as a folder that ``PeftModel.from_pretrained(model, folder)`` loads and runs to equal numbers.

    PEFT routes by the mean over the whole batch: an adapter with "sample" routing gives the same for one picture only.
    Its dropout is not written, for PEFT has none.

    Args:
        adapter: with "batch" or "sample" routing.
        folder: made if it is not there; a Lily adapter in it is replaced.
        model: the UNet or transformer (or its pipeline) that the adapter is for; on the meta device is enough.
        base_model: what PEFT shall name as the base.

    Raises:
        ValueError: PEFT cannot express the routing or the sharing, the adapter does not fit the model or is not
            finite, or the folder holds something else.
    """
    folder, model, routing = Path(folder), denoiser(model)[1], adapter.config.routing
    if routing == "static":
        raise ValueError("PEFT's Lily cannot run routing='static'; write a LoRA instead: lily-diffusion bake.")
    if routing == "token":
        raise ValueError("PEFT's Lily mixes its experts once a call, so routing='token' cannot be written for it.")
    _check_target(folder)
    check_fits(adapter.groups, model)
    tensors = _copies(adapter)
    if bad := [key for key, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise ValueError(f"{len(bad)} tensors of the adapter are not finite, first {bad[0]}; it is not written.")
    targets, stride_A = wiring(adapter, model)
    config = {
        "peft_type": "LILY",
        "task_type": None,
        "base_model_name_or_path": base_model,
        "inference_mode": True,
        "r": adapter.config.r,
        "stride_A": stride_A,
        "num_B": adapter.config.num_B,
        "scaling": adapter.config.scaling,
        "target_modules": targets,
    }
    _write_folder(folder, tensors, config)
    return folder


def read_config(folder: Path) -> dict[str, Any]:
    """The adapter_config.json of a folder, which must be one of PEFT's Lily.

    Raises:
        ValueError: there is none, it cannot be read, or it is of another kind of adapter.
        FileNotFoundError: there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
    try:
        config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder.name} is no adapter of PEFT: it has no {CONFIG_NAME}.") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{CONFIG_NAME} in {folder.name} is not readable as JSON.") from None
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LILY":
        raise ValueError(f"{folder.name} holds no Lily adapter: its {CONFIG_NAME} says peft_type {kind!r}.")
    return config


def by_layer(tensors: Mapping[str, torch.Tensor], model: nn.Module, name: str) -> dict[Projection, Tensors]:
    """Sort tensors named as PEFT names them (with or without a prefix) by projection, in forward order.

    Raises:
        ValueError: a tensor is none of Lily's, belongs to no linear layer of the model, or is there twice.
    """
    known = {p.name: p for p in find_linear_layers(model)}
    found: dict[str, Tensors] = {}
    for key, tensor in tensors.items():
        match = KEY.fullmatch(key)
        if match is None:
            raise ValueError(f"{name} holds tensors that are not Lily's, such as {key}.")
        layer, part = match["layer"], match["part"]
        if layer not in known and layer.startswith(("unet.", "transformer.")):
            layer = layer.partition(".")[2]
        if part in found.setdefault(layer, {}):
            raise ValueError(f"{name} has {layer}.{part} twice.")
        found[layer][part] = tensor
    if not found:
        raise ValueError(f"{name} holds no tensors.")
    if foreign := [layer for layer in found if layer not in known]:
        raise ValueError(
            f"{len(foreign)} of the {len(found)} layers in {name} are no linear layers of this "
            f"{type(model).__name__}, first {', '.join(foreign[:3])}: the adapter is for another base."
        )
    return {p: found[p.name] for p in known.values() if p.name in found}


def missing(layers: Mapping[Projection, Tensors]) -> list[str]:
    """Names of the tensors that layers lack."""
    return [f"{p.name}.{part}.weight" for p, parts in layers.items() for part in PARTS if part not in parts]


def fill(layers: Mapping[Projection, Tensors], owners: Mapping[str, tuple[str, str]]) -> None:
    """Give each layer the A and the B of their owners, in a file that stores every tensor once.

    Raises:
        ValueError: the file stores other tensors than those of the owners.
    """
    by_name = {p.name: parts for p, parts in layers.items()}
    for part, its_owners in (
        ("lily_router", {layer: layer for layer in owners}),
        ("lily_A", {layer: A for layer, (A, _) in owners.items()}),
        ("lily_B", {layer: B for layer, (_, B) in owners.items()}),
    ):
        there, wanted = {n for n in by_name if part in by_name[n]}, set(its_owners.values())
        if there != wanted:
            odd = min(there ^ wanted)
            what = "has one of its own" if odd in there else "should have it and has not"
            raise ValueError(f"sharing does not account for it: of the {part}s, {odd} {what}.")
        for layer, owner in its_owners.items():
            by_name[layer][part] = by_name[owner][part]


def from_layers(layers: Mapping[Projection, Tensors], config: LilyConfig, name: str) -> LilyAdapter:
    """Build an adapter in which equal tensors are one: layers of one name and shape with equal Bs make a group.

    Raises:
        ValueError: a tensor has another shape than `config` says, or is not finite.
    """
    _check(layers, config, name)
    families: dict[tuple[str, int, int, str], dict[str, str]] = {}  # by name, shape and B: the A of each layer
    for p, parts in layers.items():
        A, B = (content_hash({"": parts[part]}) for part in PARTS[:2])
        families.setdefault((p.attribute, p.in_features, p.out_features, B), {})[p.name] = A
    groups, state, by_name = [], {}, {p.name: parts for p, parts in layers.items()}
    for i, ((attribute, n_in, n_out, _), A_of) in enumerate(families.items()):
        As = list(dict.fromkeys(A_of.values()))
        groups.append(Group(attribute, n_in, n_out, tuple(A_of), tuple(As.index(A) for A in A_of.values())))
        for n, (layer, A) in enumerate(A_of.items()):
            state[f"lily_A.{i}.{As.index(A)}"] = by_name[layer]["lily_A"]
            state[f"lily_B.{i}"] = by_name[layer]["lily_B"].reshape(config.num_B, config.r, n_out)
            state[f"lily_router.{i}.{n}"] = by_name[layer]["lily_router"]
    with torch.device("meta"):
        adapter = LilyAdapter(config, tuple(groups))
    adapter.load_state_dict({k: t.detach().clone() for k, t in state.items()}, assign=True)
    return adapter.requires_grad_(False).eval()


def _check(layers: Mapping[Projection, Tensors], config: LilyConfig, name: str) -> None:
    router = (config.num_B,) if config.routing == "static" else (config.num_B, config.r)
    wanted = {
        (p, part): shape
        for p in layers
        for part, shape in (
            ("lily_A", (config.r, p.in_features)),
            ("lily_B", (config.num_B * config.r, p.out_features)),
            ("lily_router", router),
        )
    }
    for (p, part), shape in wanted.items():
        tensor, what = layers[p][part], f"{p.name}.{part}.weight"
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} has {what} of shape {tuple(tensor.shape)}, and {shape} is wanted.")
        if tensor.dtype not in SAFETENSORS_NAME or not torch.isfinite(tensor).all():
            raise ValueError(f"{name} has {what} of type {tensor.dtype} or with values that are not finite.")
    most = max(min(p.in_features, p.out_features) for p in layers)
    if config.r > most:
        raise ValueError(f"{name} has r={config.r}, more than any of its projections is wide ({most}).")


def _copies(adapter: LilyAdapter) -> Tensors:
    """The tensors of each layer, as PEFT names and shapes them."""
    copies = {}
    for layer in adapter.layers:
        A, B, router = (tensor.detach().cpu() for tensor in adapter.tensors(layer))
        for part, tensor in zip(PARTS, (A, B.flatten(0, 1), router), strict=True):
            copies[f"base_model.model.{layer}.{part}.weight"] = tensor.clone().contiguous()
    return copies


def _check_target(folder: Path) -> None:
    if folder.is_file():
        raise ValueError(f"{folder} is a file; a PEFT adapter is a folder.")
    if folder.is_dir() and any(folder.iterdir()):
        try:
            read_config(folder)
        except ValueError as error:
            raise ValueError(f"{folder} is not empty, and nothing in it is overwritten: {error}") from None


def _write_folder(folder: Path, tensors: Tensors, config: dict[str, Any]) -> None:
    """Write both files under temporary names, then rename them: there is never half a file."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = {name: folder / f".{name}.{os.getpid()}.writing" for name in (WEIGHTS_NAME, CONFIG_NAME)}
    try:
        save_tensors(temporary[WEIGHTS_NAME], tensors, {"format": "pt"})
        temporary[CONFIG_NAME].write_text(json.dumps(config, indent=2), encoding="utf-8")
        for name, path in temporary.items():
            os.replace(path, folder / name)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)
