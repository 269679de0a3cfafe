"""The file: one .safetensors, every tensor once, with the whole config and the explicit map of groups in its header.

Reading is strict: a file is exactly what its header says and fits the model, or there is one error and no change.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file

from .adapter import LilyAdapter
from .header import ROUTER_A_LAYER, LilyHeader, content_hash, parse_header

WEIGHT_NAME = "pytorch_lily_weights.safetensors"
MAX_HEADER = 16 * 2**20  # bytes


def adapter_state_dict(adapter: LilyAdapter, component: str) -> dict[str, torch.Tensor]:
    """Every tensor of one part once, by its key in the file; the routers of a group are one tensor."""
    own = adapter.state_dict()
    return {
        key: torch.stack([own[name] for name in names]) if _is_of_routers(key) else own[names[0]]
        for key, names in _places(adapter, component).items()
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
    try:
        save_file(tensors, path, metadata=header)
    except SafetensorError as error:  # whatever the disk says: it is full, or a limit is reached
        raise OSError(f"{path.name} cannot be written: {error}") from error
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
    return parse_header(metadata, {k: v["dtype"] for k, v in entries.items()}, path.name)


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
    """Make the adapter of a file that has one part from exactly these tensors. Raises as `build_adapters` does.

    Raises:
        ValueError: it has several parts, and none is dropped silently.
    """
    if header.further:
        parts = " and ".join(part.component for part in header.parts)
        raise ValueError(f"{name} has parts for {parts}, and only a file with one part can be used here.")
    return build_adapters(header, tensors, name)[header.component]


def build_adapters(header: LilyHeader, tensors: Mapping[str, torch.Tensor], name: str) -> dict[str, LilyAdapter]:
    """Make the adapter of each part, by its component, from exactly these tensors.

    Raises:
        ValueError: a tensor is missing, unexpected, of another shape, not finite, or not what was written.
    """
    with torch.device("meta"):
        adapters = {part.component: LilyAdapter(part.config, part.groups) for part in header.parts}
    wanted: dict[str, torch.Tensor] = {}
    for component, adapter in adapters.items():
        wanted |= adapter_state_dict(adapter, component)
    written = tensors
    if header.metadata["lily_format_version"] in ROUTER_A_LAYER:
        tensors = _with_stacked_routers(header, tensors)
    for problem, keys in (
        ("lacks", [k for k in wanted if k not in tensors]),
        ("has unexpected", [k for k in tensors if k not in wanted]),
        ("has misshapen", [k for k in wanted if k in tensors and tensors[k].shape != wanted[k].shape]),
        ("has not finite", [k for k in wanted if k in tensors and not torch.isfinite(tensors[k]).all()]),
    ):
        if keys:
            raise ValueError(f"{name} {problem} tensors: {len(keys)} of {len(wanted)}, first {keys[0]}.")
    if content_hash(written) != header.content_hash:
        raise ValueError(f"The tensors of {name} are not those that were written: its content hash differs.")
    for component, adapter in adapters.items():
        own: dict[str, torch.Tensor] = {}
        for key, names in _places(adapter, component).items():
            own |= zip(names, tensors[key].unbind() if _is_of_routers(key) else [tensors[key]], strict=True)
        adapter.load_state_dict({place: tensor.clone() for place, tensor in own.items()}, assign=True)
    return adapters


def _places(adapter: LilyAdapter, component: str) -> dict[str, list[str]]:
    """Key in the file -> names of the parameters that its tensor holds."""
    places: dict[str, list[str]] = {}
    for name, _ in adapter.named_parameters():
        stored = name.rpartition(".")[0] if name.startswith("lily_router") else name
        places.setdefault(f"{component}.{stored}", []).append(name)
    return places


def _is_of_routers(key: str) -> bool:
    return ".lily_router." in key


def _with_stacked_routers(header: LilyHeader, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a file of the first versions, where each router is a tensor, as they are stored now."""
    stacked = dict(tensors)
    for part in header.parts:
        for number, group in enumerate(part.groups):
            keys = [f"{part.component}.{layer}.lily_router" for layer in group.layers]
            key = f"{part.component}.lily_router.{number}"
            if key not in stacked and stacked.keys() >= {*keys} and len({stacked[k].shape for k in keys}) == 1:
                stacked[key] = torch.stack([stacked.pop(k) for k in keys])
    return stacked


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
        tensors = [entry for key, entry in entries.items() if key != "__metadata__"]
        ends = [entry["data_offsets"][1] for entry in tensors]
        texts = [entry["dtype"] for entry in tensors] + list(entries.get("__metadata__", {}).values())
        if not all(isinstance(text, str) for text in texts) or not all(isinstance(end, int) for end in ends):
            raise TypeError
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{path.name} is not a safetensors file: its header cannot be read.") from None
    if size != 8 + length + max(ends, default=0):
        raise ValueError(f"{path.name} is cut off or padded: {size} bytes, not {8 + length + max(ends, default=0)}.")
    return entries
