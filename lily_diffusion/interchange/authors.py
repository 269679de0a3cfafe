"""The authors' own files, ``lily_layers.pt`` of github.com/yibozhong/lily (subject-driven-generation), read only.

A pickle of ``named_parameters()``: lp (our A), hp (our B experts) and routers, each once, under its first layer.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..adapter import LilyAdapter
from ..components import denoiser
from ..config import LilyConfig
from ..sharing import Projection
from .peft import Tensors, by_layer, fill, from_layers, missing
from .peft_sharing import weight_shapes

PARTS = {"lily_lp": "lily_A", "lily_hp": "lily_B", "lily_router": "lily_router"}


def read_authors(
    path: str | os.PathLike[str], model: Any, *, scaling: float = 1.0, routing: str = "batch"
) -> LilyAdapter:
    """Read a file of the authors' diffusion code for a model (or its pipeline).

    Args:
        path: the .pt file. It is opened with ``weights_only=True``: no code in it can run.
        model: the UNet or transformer that it was trained on; its names, sizes and order tell who shares what.
        scaling: their lily_s, which the file does not hold; their scripts leave it at 1.
        routing: "batch" is how their code runs it; "sample" is the same for one picture at a time.

    Raises:
        ValueError: the file is not such a file, or not one for the layers of this model.
        FileNotFoundError: there is no such file.
    """
    path, model = Path(path), denoiser(model)[1]
    layers = by_layer(_as_in_peft(_load(path), path.name), model, path.name)
    router = next((parts["lily_router"] for parts in layers.values() if "lily_router" in parts), torch.empty(0))
    if router.ndim != 2:
        raise ValueError(f"{path.name} has no routers of two dimensions, so it is not a Lily file of the authors.")
    stride = 1
    if lacking := missing(layers):
        families = _families(layers, model)
        try:
            owners, stride = _owners(families, {p.name for p, parts in layers.items() if "lily_A" in parts})
            fill(layers, owners)
        except ValueError as error:
            count = f"{len(lacking)} of {3 * len(layers)}, first {lacking[0]}"
            raise ValueError(f"{path.name} lacks tensors: {count}; {error}") from None
    num_B, r = router.shape
    if num_B == 1:  # one expert always counts 1, whatever the router says
        routing = "static"
        for parts in layers.values():
            parts["lily_router"] = router.new_zeros(1)
    return from_layers(layers, LilyConfig(r, stride, num_B=num_B, scaling=scaling, routing=routing), path.name)


def _load(path: Path) -> dict[str, torch.Tensor]:
    """The tensors in a file of torch.save, without running anything that a pickle may ask for."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    with open(path, "rb") as file:
        start = file.read(2)
    if not start.startswith((b"PK", b"\x80")):
        raise ValueError(f"{path.name} is no file of torch.save, so it is not a Lily file of the authors.")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever is wrong with a file that anyone may have made
        raise ValueError(
            f"{path.name} is refused: it is damaged, or asks for more than tensors ({type(error).__name__})."
        ) from None
    plain = isinstance(found, dict) and all(
        isinstance(key, str) and isinstance(value, torch.Tensor) and value.layout == torch.strided
        for key, value in found.items()
    )
    if not plain or not found:
        raise ValueError(f"{path.name} does not map names to tensors, so it is not a Lily file of the authors.")
    return {key: tensor.detach() for key, tensor in found.items()}


def _as_in_peft(tensors: Mapping[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """The same tensors with PEFT's words for the parts."""
    renamed = {
        re.sub(r"\.(lily_lp|lily_hp)\.weight$", lambda m: f".{PARTS[m[1]]}.weight", k): t for k, t in tensors.items()
    }
    if not any("lily_lp" in key for key in tensors) or len(renamed) < len(tensors):
        raise ValueError(f"{name} has no lily_lp (first: {next(iter(tensors))}): it is not a Lily file of the authors.")
    return renamed


def _families(layers: Mapping[Projection, Tensors], model: Any) -> list[list[str]]:
    """Layers of one target and one shape, in the order of ``named_modules``, in which they are trained."""
    attribute = {p.name: p.attribute for p in layers}
    families: dict[Any, list[str]] = {}
    for layer, shape in weight_shapes(model, attribute).items():
        families.setdefault((attribute[layer], shape), []).append(layer)
    return list(families.values())


def _owners(families: list[list[str]], have_A: set[str]) -> tuple[dict[str, tuple[str, str]], int]:
    """Who has the A and the B of each layer, and the widest stride.

    In the authors' code a family of N layers starts a new lp every N // ne_1 layers, for one ne_1, and has one bank.
    """
    fewest = min(map(len, families))
    for ne_1 in range(1, fewest + 1):
        owners: dict[str, tuple[str, str]] = {}
        for family in families:
            stride = len(family) // ne_1
            owners |= {layer: (family[i - i % stride], family[0]) for i, layer in enumerate(family)}
        if {A for A, _ in owners.values()} == have_A:
            return owners, max(map(len, families)) // ne_1
    raise ValueError("no ne_1 explains it for the targets to_q, to_k, to_v and to_out.0.")
