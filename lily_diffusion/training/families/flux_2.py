"""FLUX.2 dev: klein's larger sister, with a Mistral text encoder, told how strong guidance shall be."""

from __future__ import annotations

from typing import Any, ClassVar

from diffusers.pipelines.flux2.pipeline_flux2 import format_input

from .base import Condition
from .flux_2_klein import Flux2Klein


class Flux2(Flux2Klein):
    pipelines = ("Flux2Pipeline",)
    flags: ClassVar[dict[str, Any]] = {**Flux2Klein.flags, "guidance_scale": 1.0}

    def truncated(self, prompt: str) -> str:
        chats = format_input([prompt], self.pipe.system_message)
        ids = self.pipe.tokenizer.apply_chat_template(chats, tokenize=True, return_dict=True)["input_ids"][0]
        rest = self.pipe.tokenizer.decode(ids[self.length :], skip_special_tokens=True).strip()
        return rest[-len(prompt) :]  # the system's words come before it

    def call_arguments(self, prompt: Condition, empty: Condition, count: int, guidance_scale: float) -> dict[str, Any]:
        return {**self.batch([prompt] * count), "guidance_scale": guidance_scale}  # distilled: no empty prompt
