"""Adapters from files into pipelines and back, with the names that diffusers gives its own functions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from .adapter import LilyAdapter
from .attach import attach, check_fits, detach, home
from .components import (
    adapters_of,
    as_in_files,
    as_in_model,
    denoiser,
    dtype_of,
    groups_in_model,
    one_name,
    parts,
    public_name,
)
from .header import SAFETENSORS_NAME, LilyHeader, make_header, parse_header
from .hot_swap import check_swap, declare_rank, occupant, slot_for, swap
from .interchange.peft import CONFIG_NAME, WEIGHTS_NAME, read_peft
from .save_and_load import WEIGHT_NAME, adapter_state_dict, build_adapters, read_file, write_file
from .sharing import TEXT_ENCODERS
from .state import get_state, unknown_adapter


def load_lily_weights(
    pipe_or_model: Any,
    pretrained_model_name_or_path_or_dict: str | os.PathLike[str] | Mapping[str, torch.Tensor],
    adapter_name: str | None = None,
    *,
    hotswap: bool = False,
    weight_name: str | None = None,
    metadata: Mapping[str, str] | None = None,
    subfolder: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> str:
    """Load an adapter, with all its parts, and make it active at weight 1, beside those that are loaded already.

    Args:
        pipe_or_model: a diffusers pipeline, or its UNet or transformer; or some of its models by their names in it. A
            file with parts for text encoders needs them.
        pretrained_model_name_or_path_or_dict: a .safetensors file; a folder or Hub id that has one; a folder that PEFT
            saved (its routing stays "batch"); or tensors by name, with the header's strings as `metadata`.
        adapter_name: its name from now on; None takes the first free of default_0, default_1, ...
        hotswap: replace the adapter of this name, in its own tensors and at its own weight: a compiled model is not
            compiled anew. `enable_lily_hotswap` makes room for other ranks.
        weight_name: the file's name in the folder or on the Hub.
        subfolder, revision, token, cache_dir, force_download, local_files_only: as in diffusers, for the Hub.

    Returns:
        The adapter's name.

    Raises:
        ValueError: the name is taken, or the file is not a sound Lily file for this model. Nothing has changed then.
        FileNotFoundError: there is no such file.
    """
    models, taken = parts(pipe_or_model), adapters_of(pipe_or_model)
    if adapter_name is None:
        adapter_name = next(f"default_{i}" for i in range(len(taken) + 1) if f"default_{i}" not in taken)
    if hotswap and adapter_name not in taken:
        raise ValueError(f"{unknown_adapter(adapter_name, list(taken))} hotswap replaces one that is loaded.")
    if adapter_name in taken and not hotswap:
        raise ValueError(f"An adapter named {adapter_name!r} is loaded already; delete it or choose another name.")
    hub = {"revision": revision, "token": token, "cache_dir": cache_dir, "force_download": force_download}
    where = {"weight_name": weight_name, "subfolder": subfolder, "local_files_only": local_files_only, **hub}
    adapters = {
        component: adapter.to(home(models[component]), dtype_of(models[component])).requires_grad_(False).eval()
        for component, adapter in _read_adapters(
            pretrained_model_name_or_path_or_dict, pipe_or_model, metadata, where
        ).items()
    }
    if hotswap:
        _swap_all(models, adapters, adapter_name, list(taken[adapter_name]))
    else:
        _attach_all(models, adapters, adapter_name)
    return adapter_name


def enable_lily_hotswap(pipe_or_model: Any, target_rank: int = 128) -> None:
    """Make room for adapters of any rank up to `target_rank` in those that are loaded from now on.

    Call it before the first load, and before compiling; then ``load_lily_weights(..., adapter_name, hotswap=True)``
    puts another adapter into the place of one, with nothing compiled anew. Adapters must agree in num_B and routing.

    Raises:
        ValueError: `target_rank` is not a whole number of at least 1, or adapters are loaded already.
    """
    if known := adapters_of(pipe_or_model):
        raise ValueError(f"enable_lily_hotswap comes before the first adapter, and {next(iter(known))!r} is loaded.")
    for model in parts(pipe_or_model).values():
        declare_rank(model, target_rank)


def save_lily_weights(
    pipe_or_model: Any,
    save_directory: str | os.PathLike[str],
    adapter_name: str | None = None,
    weight_name: str = WEIGHT_NAME,
    *,
    trigger_words: Sequence[str] = (),
    base_model: str | None = None,
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Save one adapter, with all its parts, as a single .safetensors file, each tensor once.

    Args:
        pipe_or_model: a pipeline with the adapter attached; some of its models by their names in it, such as
            ``{"unet": unet, "text_encoder": text_encoder}``; or one model, to save its part alone.
        save_directory: made if it is not there.
        adapter_name: which adapter; None when there is only one.
        weight_name: the file's name; must end in .safetensors.
        trigger_words: words that call the subject, kept in the header.
        base_model: id of the base, or its folder (only the name is kept); None asks the model.
        metadata: more strings for the header, such as training facts.
        dtype: type of the stored tensors; None keeps the adapter's.

    Returns:
        The file's path. It was written under another name and renamed, so there is never half a file.

    Raises:
        ValueError: there is no such adapter, or several and none is named; a bad file name; tensors not finite.
    """
    models = parts(pipe_or_model)
    adapters = {
        component: as_in_files(occupant(adapter), models[component])
        for component, adapter in one_name(pipe_or_model, adapter_name)[1].items()
    }
    if Path(weight_name).name != weight_name or not weight_name.endswith(".safetensors"):
        raise ValueError(f"weight_name must be a plain file name that ends in .safetensors, not {weight_name!r}.")
    directory = Path(save_directory)
    if directory.is_file():
        raise ValueError(f"save_directory must be a folder, and {directory} is a file.")
    tensors = {
        key: t.to(dtype or t.dtype)
        for component, adapter in adapters.items()
        for key, t in adapter_state_dict(adapter, component).items()
    }
    bad = [key for key, t in tensors.items() if not torch.isfinite(t).all()]
    if bad:
        raise ValueError(f"{len(bad)} tensors of the adapter are not finite, first {bad[0]}; it is not saved.")
    words = tuple(trigger_words)
    source = next(iter(models.values())) if isinstance(pipe_or_model, Mapping) else pipe_or_model
    base_model = public_name(base_model or getattr(getattr(source, "config", None), "_name_or_path", None))
    (component, (adapter, kind)), *further = (
        (component, (adapter, type(models[component]).__name__)) for component, adapter in adapters.items()
    )
    header = make_header(adapter, tensors, component, kind, base_model, words, metadata or {}, dict(further))
    write_file(directory / weight_name, tensors, header)
    return directory / weight_name


def lily_state_dict(path: str | os.PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a Lily file into (tensors, metadata), in the form that `load_lily_weights` takes as a dict.

    Raises:
        ValueError: the file is not a sound Lily file.
    """
    header, tensors = read_file(Path(path))
    return tensors, header.metadata


def check_compatible(header: LilyHeader, pipe_or_model: Any) -> None:
    """Raise ValueError, with the reason, when a file is for another base than this pipeline or model."""
    models = parts(pipe_or_model)
    for part in header.parts:
        model = models.get(part.component)
        if model is None and part.component in TEXT_ENCODERS and next(iter(models)) not in TEXT_ENCODERS:
            raise ValueError(
                f"The adapter has a part for the {part.component} ({part.model_class}) too: load it into a pipeline "
                f"that has one, which {_described(pipe_or_model)} has not."
            )
        if model is None:
            component, model = next(iter(models.items()))
            raise ValueError(
                f"The adapter is for another base: it was made for a {part.component} ({part.model_class}) "
                f"and this is a {component} ({type(model).__name__})."
            )
        check_fits(groups_in_model(part.groups, model), model)


def _described(pipe_or_model: Any) -> str:
    if isinstance(pipe_or_model, Mapping):
        return f"this mapping of {' and '.join(pipe_or_model)}"
    alone = " alone" if isinstance(pipe_or_model, torch.nn.Module) else ""
    return f"this {type(pipe_or_model).__name__}{alone}"


def _attach_all(models: Mapping[str, Any], adapters: Mapping[str, LilyAdapter], adapter_name: str) -> None:
    """Attach every part, or none; the new ones are switched off where the others are."""
    slots = {component: slot_for(models[component], adapter) for component, adapter in adapters.items()}
    enabled = all(state.enabled for state in map(get_state, models.values()) if state is not None)
    attached: list[Any] = []
    try:
        for component, adapter in slots.items():
            attach(models[component], adapter, adapter_name)
            attached.append(models[component])
    except Exception:
        for model in attached:
            detach(model, adapter_name)
        raise
    for model in attached:
        state: Any = get_state(model)
        state.enabled = enabled


def _swap_all(
    models: Mapping[str, Any], adapters: Mapping[str, LilyAdapter], adapter_name: str, components: list[str]
) -> None:
    """Swap every part, or none."""
    if set(components) != set(adapters):
        raise ValueError(
            f"The adapter has parts for {' and '.join(adapters)} and the one in its place for "
            f"{' and '.join(components)}: load it under another name."
        )
    for component, adapter in adapters.items():
        check_swap(models[component], adapter_name, adapter)
    for component, adapter in adapters.items():
        swap(models[component], adapter_name, adapter)


def _read_adapters(
    source: Any, pipe_or_model: Any, metadata: Mapping[str, str] | None, where: dict[str, Any]
) -> dict[str, LilyAdapter]:
    """The parts of a file, a folder, a Hub repository or a state dict, if they are for these models."""
    if isinstance(source, Mapping):
        name, tensors = "The state dict", dict(source)
        odd = [key for key, t in tensors.items() if not isinstance(t, torch.Tensor)]
        if odd or not tensors:
            raise ValueError(f"The state dict must map names to tensors, and {odd[0] if odd else 'it'} does not.")
        dtypes = {key: SAFETENSORS_NAME.get(t.dtype, str(t.dtype)) for key, t in tensors.items()}
        header = parse_header(metadata or {}, dtypes, name)
    elif _is_peft(folder := Path(source) / (where["subfolder"] or ""), where["weight_name"]):
        return {denoiser(pipe_or_model)[0]: read_peft(folder, pipe_or_model)}
    else:
        path = _find_file(source, **where)
        name = path.name
        header, tensors = read_file(path)
    check_compatible(header, pipe_or_model)
    models = parts(pipe_or_model)
    return {c: as_in_model(adapter, models[c]) for c, adapter in build_adapters(header, tensors, name).items()}


def _is_peft(folder: Path, weight_name: str | None) -> bool:
    """Whether a folder's adapter, or the one of this name, is PEFT's."""
    if not (folder / CONFIG_NAME).is_file() or weight_name not in (None, WEIGHTS_NAME):
        return False
    if weight_name is None and (folder / WEIGHT_NAME).is_file():
        raise ValueError(
            f"Cannot tell which file in {folder} is the adapter: it has {WEIGHT_NAME} and PEFT's {WEIGHTS_NAME}; "
            "pass weight_name."
        )
    return True


def _find_file(source: str | os.PathLike[str], weight_name: str | None, *, subfolder: str | None, **hub: Any) -> Path:
    """The file that is meant; a Hub id is downloaded."""
    path = Path(source)
    if path.is_file():
        return path
    if path.is_dir():
        folder = path / subfolder if subfolder else path
        if weight_name is None:
            files = sorted(file.name for file in folder.glob("*.safetensors"))
            if WEIGHT_NAME not in files and len(files) != 1:
                found = f"it has {', '.join(files)}; pass weight_name" if files else "it has no .safetensors file"
                raise ValueError(f"Cannot tell which file in {folder} is the adapter: {found}.")
            weight_name = WEIGHT_NAME if WEIGHT_NAME in files else files[0]
        if not (folder / weight_name).is_file():
            raise FileNotFoundError(f"There is no file {weight_name} in {folder}.")
        return folder / weight_name
    name = os.fspath(source)
    if name.endswith((".safetensors", ".bin", ".pt", ".ckpt")) or name.count("/") != 1 or name.startswith((".", "/")):
        raise FileNotFoundError(f"There is no file or folder {name}.")
    if weight_name is not None and not weight_name.endswith(".safetensors"):
        raise ValueError(f"Only .safetensors files are read, not {weight_name}.")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(name, weight_name or WEIGHT_NAME, subfolder=subfolder, **hub))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise FileNotFoundError(
            f"There is no file or folder {name}, and the Hub repository of this name does not give "
            f"{weight_name or WEIGHT_NAME} ({type(error).__name__})."
        ) from error
