"""The file: one .safetensors, every tensor once, with the whole config and the explicit map of groups in its header.

Reading is strict: a file is exactly what its header says and fits the model, or there is one error and no change.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file

from .adapter import LilyAdapter
from .config import LilyConfig
from .sharing import Group

WEIGHT_NAME = "pytorch_lily_weights.safetensors"
FORMAT_VERSION = "1"
METADATA_KEY = "lily_adapter_metadata"
MAX_HEADER = 16 * 2**20  # bytes
SAFETENSORS_NAME = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class LilyHeader:
    """What a Lily file says of itself, read without its tensors."""

    config: LilyConfig
    groups: tuple[Group, ...]
    component: str  # "unet" or "transformer"
    model_class: str  # such as "UNet2DConditionModel"
    base_model: str | None  # id or path of the base that it was trained on
    fingerprint: str  # of the names and shapes of the adapted projections
    trigger_words: tuple[str, ...]
    content_hash: str  # sha256 of the tensors
    dtype: str  # of the tensors, such as "float32"
    metadata: dict[str, str]  # the whole header

    @property
    def num_parameters(self) -> int:
        return sum(g.num_parameters(self.config) for g in self.groups)


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


def adapter_state_dict(adapter: LilyAdapter, component: str) -> dict[str, torch.Tensor]:
    """Every tensor of the adapter once, by its key in the file."""
    return {key: parameter.detach() for key, parameter in _named(adapter, component)}


def make_header(
    adapter: LilyAdapter,
    tensors: Mapping[str, torch.Tensor],
    component: str,
    model_class: str,
    base_model: str | None,
    trigger_words: tuple[str, ...],
    extra: Mapping[str, str],
) -> dict[str, str]:
    """The header's strings: ours as JSON, and the fields of the ModelSpec standard for other tools."""
    digest = content_hash(tensors)
    ours = {
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
        "base_model": base_model,
        "fingerprint": fingerprint(model_class, adapter.groups),
        "trigger_words": list(trigger_words),
        "content_hash": digest,
    }
    return {
        "format": "pt",
        "lily_format_version": FORMAT_VERSION,
        METADATA_KEY: json.dumps(ours, sort_keys=True),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{model_class}/lily",
        "modelspec.implementation": "https://arxiv.org/abs/2407.09946",
        "modelspec.title": "Lily adapter",
        "modelspec.date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "modelspec.hash_sha256": f"0x{digest}",
        **({"modelspec.trigger_phrase": ", ".join(trigger_words)} if trigger_words else {}),
        **extra,
    }


def write_file(path: Path, tensors: Mapping[str, torch.Tensor], header: dict[str, str]) -> None:
    """Write under a temporary name beside `path`, then rename: there is never half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.writing")
    try:
        save_tensors(temporary, {k: t.cpu().contiguous() for k, t in tensors.items()}, header)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_tensors(path: Path, tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
    """Write a new safetensors file with the mode that the umask gives any file; the library's own is for its owner."""
    path.unlink(missing_ok=True)
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path, metadata=header)
    path.chmod(mode)


def read_lily_header(path: str | os.PathLike[str]) -> LilyHeader:
    """Read and check a file's header; no tensor is loaded.

    Raises:
        ValueError: the file is not a sound Lily file; the sentence says why.
        FileNotFoundError: there is no such file.
    """
    path = Path(path)
    entries = _raw_header(path)
    metadata = entries.pop("__metadata__", {})
    return parse_header(metadata, {k: v.get("dtype", "") for k, v in entries.items()}, path.name)


def parse_header(metadata: Mapping[str, str], dtypes: Mapping[str, str], name: str) -> LilyHeader:
    """Make sense of a header's strings. `dtypes`: key -> safetensors dtype; `name`: the file's name for the errors."""
    if METADATA_KEY not in metadata:
        raise ValueError(_foreign(dtypes, name))
    if metadata.get("lily_format_version") != FORMAT_VERSION:
        version = metadata.get("lily_format_version")
        raise ValueError(f"{name} has format version {version!r} and this library reads {FORMAT_VERSION}; update it.")
    unknown = sorted(set(dtypes.values()) - DTYPES.keys())
    if unknown or not dtypes:
        raise ValueError(f"{name} holds {'tensors of type ' + ', '.join(unknown) if unknown else 'no tensors'}.")
    try:
        ours = json.loads(metadata[METADATA_KEY])
        groups = tuple(
            Group(g["projection"], g["in_features"], g["out_features"], tuple(g["layers"]), tuple(g["A_of_layer"]))
            for g in ours["groups"]
        )
        header = LilyHeader(
            config=LilyConfig.from_dict(ours["config"]),
            groups=groups,
            component=ours["component"],
            model_class=ours["model_class"],
            base_model=ours["base_model"],
            fingerprint=ours["fingerprint"],
            trigger_words=tuple(ours["trigger_words"]),
            content_hash=ours["content_hash"],
            dtype=DTYPES[max(dtypes.values())],
            metadata=dict(metadata),
        )
        sound = _sound(header)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"The header of {name} is damaged ({type(error).__name__}: {error}).") from None
    if not sound or header.fingerprint != fingerprint(header.model_class, groups):
        raise ValueError(f"The header of {name} is damaged: its map of groups contradicts itself.")
    return header


def read_file(path: Path) -> tuple[LilyHeader, dict[str, torch.Tensor]]:
    """Read a whole Lily file. Raises as `read_lily_header` does, also for a file that was cut off."""
    header = read_lily_header(path)
    try:
        return header, load_tensors(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path.name} cannot be read as safetensors ({error}); it may be cut off.") from None


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file, by name in alphabetical order.

    Read as bytes, because `safetensors.torch.load_file` (0.8) keeps some kilobytes for every call.
    """
    return dict(sorted(load(path.read_bytes()).items()))


def build_adapter(header: LilyHeader, tensors: Mapping[str, torch.Tensor], name: str) -> LilyAdapter:
    """Make the adapter from exactly these tensors.

    Raises:
        ValueError: a tensor is missing, unexpected, of another shape, not finite, or not what was written.
    """
    with torch.device("meta"):
        adapter = LilyAdapter(header.config, header.groups)
    wanted = dict(_named(adapter, header.component))
    for problem, keys in (
        ("lacks", [k for k in wanted if k not in tensors]),
        ("has unexpected", [k for k in tensors if k not in wanted]),
        ("has misshapen", [k for k in wanted if k in tensors and tensors[k].shape != wanted[k].shape]),
        ("has not finite", [k for k in wanted if k in tensors and not torch.isfinite(tensors[k]).all()]),
    ):
        if keys:
            raise ValueError(f"{name} {problem} tensors: {len(keys)} of {len(wanted)}, first {keys[0]}.")
    if content_hash(tensors) != header.content_hash:
        raise ValueError(f"The tensors of {name} are not those that were written: its content hash differs.")
    by_place = dict(zip(wanted, (n for n, _ in adapter.named_parameters()), strict=True))
    adapter.load_state_dict({by_place[key]: tensors[key].clone() for key in wanted}, assign=True)
    return adapter


def _named(adapter: LilyAdapter, component: str) -> list[tuple[str, torch.nn.Parameter]]:
    """(key in the file, parameter) in the order of ``adapter.named_parameters()``."""
    layers = iter(adapter.layers)  # group by group, as the routers are
    return [
        (
            f"{component}.{next(layers)}.lily_router" if name.startswith("lily_router") else f"{component}.{name}",
            parameter,
        )
        for name, parameter in adapter.named_parameters()
    ]


def _sound(header: LilyHeader) -> bool:
    """Whether the map of groups can be built: sizes are positive, every layer and every A is there once."""
    layers = [layer for g in header.groups for layer in g.layers]
    texts = [header.component, header.model_class, header.fingerprint, header.content_hash, *header.trigger_words]
    return (
        bool(layers)
        and len(set(layers)) == len(layers)
        and all(isinstance(text, str) for text in [*layers, *texts])
        and (header.base_model is None or isinstance(header.base_model, str))
        and all(
            len(g.layers) == len(g.A_of_layer) > 0
            and all(isinstance(n, int) for n in (g.in_features, g.out_features, *g.A_of_layer))
            and 0 < min(g.in_features, g.out_features) <= max(g.in_features, g.out_features) <= 2**20
            and set(g.A_of_layer) == set(range(len(set(g.A_of_layer))))
            for g in header.groups
        )
        and header.config.r <= max(min(g.in_features, g.out_features) for g in header.groups)
    )


def _raw_header(path: Path) -> dict[str, Any]:
    """The JSON at the start of a safetensors file, with every plain mistake told apart."""
    if path.is_dir():
        raise ValueError(f"{path.name} is a folder; name the .safetensors file in it.")
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(8)
        if start[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            raise ValueError(f"{path.name} is a pickle or zip checkpoint, which is never opened; use .safetensors.")
        if len(start) < 8:
            raise ValueError(f"{path.name} is empty or cut off: {size} bytes.")
        (length,) = struct.unpack("<Q", start)
        if length > MAX_HEADER:
            raise ValueError(f"{path.name} is not a safetensors file, or its header is larger than {MAX_HEADER} bytes.")
        text = file.read(length)
    if len(text) < length:
        raise ValueError(f"{path.name} is cut off: its header should have {length} bytes and has {len(text)}.")
    try:
        entries = json.loads(text)
        ends = [entry["data_offsets"][1] for key, entry in entries.items() if key != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{path.name} is not a safetensors file: its header cannot be read.") from None
    if size != 8 + length + max(ends, default=0):
        raise ValueError(f"{path.name} is cut off or padded: {size} bytes, not {8 + length + max(ends, default=0)}.")
    return entries


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
