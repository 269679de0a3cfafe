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
            self._kept = family.encode_prompts(texts, device)
        else:
            self._kept = self._read_or_encode(texts, disk)

    def __getitem__(self, text: str) -> Condition:
        return self.family.encode(text, self.device) if self.trained else self._kept[text]

    def _read_or_encode(self, texts: Iterable[str], disk: DiskCache) -> dict[str, Condition]:
        family = self.family
        maker = module_fingerprint({name: getattr(family.pipe, name, None) for name in family.text_parts})
        options = {"max_sequence_length": family.args.max_sequence_length}

        def read(text: str) -> Condition:
            key = prompt_key(maker, type(family).__name__, options, text)
            kept = disk.get(key, lambda: family.encode_prompts([text], self.device)[text])
            return {name: tensor.to(self.device) for name, tensor in kept.items()}

        return {text: read(text) for text in dict.fromkeys(texts)}
