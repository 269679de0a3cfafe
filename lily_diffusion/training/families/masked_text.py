"""What families share whose prompts come from one text encoder, with a mask that says which tokens are padding."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from .base import Condition, Family, unseen


class MaskedText(Family):
    """Prompts are encoded as the pipeline's own call would, with the options that it takes when nobody gives any."""

    def encode(self, prompt: str, device: torch.device) -> Condition:
        """The empty prompt is encoded as what pictures are guided away from, without the words put before prompts."""
        empty = not prompt
        encoded = self.pipe.encode_prompt(
            prompt, do_classifier_free_guidance=empty, device=device, **self.text_options()
        )
        embeddings, mask = encoded[2:] if empty else encoded[:2]
        return {"prompt_embeds": embeddings[0].float(), "prompt_attention_mask": mask[0]}

    def text_options(self) -> dict[str, Any]:
        """What the pipeline's call hands on to `encode_prompt`."""
        names = ("max_sequence_length", "clean_caption", "complex_human_instruction")
        options = {name: default for name, default in self._call_defaults().items() if name in names}
        if self.args.max_sequence_length is not None:
            options["max_sequence_length"] = self.args.max_sequence_length
        return options

    def truncated(self, prompt: str) -> str:
        """The last token that is kept is </s>, or lost to the instruction before the prompt."""
        return unseen(self.pipe.tokenizer, prompt, prompt, self.text_options()["max_sequence_length"] - 1)

    def call_arguments(self, prompt: Condition, empty: Condition, count: int, guidance_scale: float) -> dict[str, Any]:
        arguments = {**super().call_arguments(prompt, empty, count, guidance_scale), "negative_prompt": None}
        if "use_resolution_binning" in self._call_defaults():
            arguments["use_resolution_binning"] = False  # draw at the size that is trained, not at one of the model's
        return arguments

    def _call_defaults(self) -> dict[str, Any]:
        call = inspect.signature(type(self.pipe).__call__)
        return {name: parameter.default for name, parameter in call.parameters.items()}
