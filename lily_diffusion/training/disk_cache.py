"""Encoded pictures and prompts kept on disk under the hash of everything they were made from.

A key is made from content alone - pixels, words, the weights that encode them - so that what is found under it cannot
belong to anything else.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from safetensors.torch import load, save_file
from torch import Tensor, nn

from .errors import TrainingError

# Part of every key: how prompts and pictures are encoded is also a matter of the code that does it.
MADE_WITH = ["1", diffusers.__version__, transformers.__version__]
THREADS = 8  # hashing leaves the interpreter to others


class DiskCache:
    """A folder of small .safetensors files; any number of processes may read and write it at once."""

    def __init__(self, folder: Path | str):
        """Make the folder if need be.

        Raises:
            TrainingError: it cannot be made.
        """
        self.folder = Path(folder)
        self.notes: list[str] = []
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"--disk_cache_dir {folder} cannot be made ({error.strerror}); name another") from error

    def get(self, key: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """What is kept under a key, else what `make` gives, which is kept from now on; on the CPU in either case.

        A file that is damaged or not from here is made again, and one that cannot be written is not; `notes` says so.
        """
        path = self.folder / key[:2] / f"{key}.safetensors"
        try:
            return _read(path, key)
        except FileNotFoundError:
            pass
        except Exception as error:  # damaged files fail in many ways, and all mean the same here
            self.notes.append(f"{path} is damaged and was made again ({error})")
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in make().items()}
        try:
            _write(path, key, tensors)
        except Exception as error:  # as above: a full disk, a folder that is read only
            self.notes.append(f"{path} could not be written ({error})")
        return tensors


def module_fingerprint(modules: Any) -> str:
    """A hash of models and tokenizers: their configurations and the bytes of every tensor or vocabulary.

    Args:
        modules: one, or a sequence or mapping of them; a part may be None.
    """
    if isinstance(modules, nn.Module):
        return _module_hash(modules)
    if isinstance(modules, Mapping):
        return _combined(part for name in sorted(modules) for part in (name, module_fingerprint(modules[name])))
    if hasattr(modules, "save_pretrained"):
        return _combined([type(modules).__name__, *_files_of(modules)])
    return _combined(module_fingerprint(module) for module in modules) if modules is not None else "none"


def latent_key(vae_fingerprint: str, pixels: Tensor) -> str:
    """The key of one encoded picture: of its exact pixels, after crop and flip, and of the autoencoder."""
    return _combined(["latents", *MADE_WITH, vae_fingerprint, _tensor_hash(pixels)])


def prompt_key(text_fingerprint: str, family_name: str, options: Mapping[str, Any], prompt: str) -> str:
    """The key of one encoded prompt: of its words, of what encodes them, and of how.

    Args:
        text_fingerprint: of the text encoders and tokenizers.
        family_name: whose method encodes.
        options: what else it goes by, such as max_sequence_length; plain values.
        prompt: the exact text.
    """
    how = json.dumps(dict(options), sort_keys=True)
    return _combined(["prompt", *MADE_WITH, text_fingerprint, family_name, how, prompt])


def _read(path: Path, key: str) -> dict[str, Tensor]:
    content = path.read_bytes()  # at once: the next moment another process may replace or remove the file
    tensors = load(content)
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start]).get("__metadata__", {})
    if header.get("key") != key:
        raise ValueError("it was written for something else")
    if header.get("hash") != _content(tensors):
        raise ValueError("its tensors are not those that were written")
    return tensors


def _write(path: Path, key: str, tensors: dict[str, Tensor]) -> None:
    """Under a name of its own first: others may be writing the same."""
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_name(f".{key}.{secrets.token_hex(4)}.writing")
    try:
        distinct = {name: tensor.clone() for name, tensor in tensors.items()}  # the format wants no shared memory
        save_file(distinct, temporary, metadata={"key": key, "hash": _content(tensors)})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _content(tensors: Mapping[str, Tensor]) -> str:
    return _combined(part for name in sorted(tensors) for part in (name, _tensor_hash(tensors[name])))


def _tensor_hash(tensor: Tensor) -> str:
    tensor = tensor.detach().cpu().contiguous()
    digest = hashlib.blake2b(f"{tensor.dtype} {tuple(tensor.shape)} ".encode(), digest_size=20)
    digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _module_hash(module: nn.Module) -> str:
    tensors = {name: tensor for name, tensor in module.state_dict().items() if isinstance(tensor, Tensor)}
    with ThreadPoolExecutor(THREADS) as pool:
        hashes = list(pool.map(_tensor_hash, tensors.values()))
    return _combined([type(module).__name__, _configuration(module), *tensors, *hashes])


def _configuration(module: nn.Module) -> str:
    config: Any = getattr(module, "config", {})
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    # Names with an underscore say where a model came from and what wrote it.
    return json.dumps({k: v for k, v in values.items() if not k.startswith("_")}, sort_keys=True, default=str)


def _files_of(tokenizer: Any) -> list[str]:
    """The names and contents of the files that a tokenizer or processor would save."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return [part for path in paths for part in (path.relative_to(folder).as_posix(), _file_hash(path))]


def _file_hash(path: Path) -> str:
    content = path.read_bytes()
    if path.name == "tokenizer.json":  # it remembers how it was called last
        content = json.dumps({**json.loads(content), "truncation": None, "padding": None}, sort_keys=True).encode()
    return hashlib.blake2b(content, digest_size=20).hexdigest()


def _combined(parts: Iterable[str]) -> str:
    """A hash of texts in their order; no other list of texts has it."""
    return hashlib.blake2b(json.dumps(list(parts)).encode(), digest_size=20).hexdigest()
