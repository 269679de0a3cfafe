"""Encoded prompts: each once and kept, or anew in every step while text encoders are trained."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from .disk_cache import DiskCache, module_fingerprint, prompt_key
from .families import Condition, Family


class Prompts:
    """Gives the condition of a prompt, as `prompts[text]`."""

    def __init__(
        self,
        family: Family,
        texts: Iterable[str],
        device: torch.device,
        disk: DiskCache | None = None,
        trained: bool = False,
    ):
        """Encode the texts now; if the encoders are `trained`, whenever they are asked for, with gradients."""
        self.family = family
        self.device = device
        self.trained = trained
        self._kept: dict[str, Condition] = {}
        if trained:
            family.place_text_encoders(device)
        elif disk is None:
            encoded = family.encode_prompts(texts, device)
            self._kept = {text: _moved(condition, torch.device("cpu")) for text, condition in encoded.items()}
        else:
            self._kept = self._read_or_encode(texts, disk)

    def __getitem__(self, text: str) -> Condition:
        if not self.trained:
            return _moved(self._kept[text], self.device)
        with torch.autocast(self.device.type, enabled=False):  # the same in training, validation and beside the base
            return self.family.encode(text, self.device)

    def _read_or_encode(self, texts: Iterable[str], disk: DiskCache) -> dict[str, Condition]:
        family = self.family
        maker = module_fingerprint({name: getattr(family.pipe, name, None) for name in family.text_parts})
        plain = {k: v for k, v in family.pipe.config.items() if isinstance(v, str | int | float | bool) and k[0] != "_"}
        options = {**plain, "max_sequence_length": family.args.max_sequence_length}

        def read(text: str) -> Condition:
            key = prompt_key(maker, type(family.pipe).__name__, options, text)
            return disk.get(key, lambda: family.encode_prompts([text], self.device)[text])

        return {text: read(text) for text in dict.fromkeys(texts)}


def _moved(condition: Condition, device: torch.device) -> Condition:
    return {name: tensor.to(device) for name, tensor in condition.items()}
