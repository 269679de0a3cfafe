"""Lumina-Image 2.0: Gemma 2 behind a system prompt, a DiT that text and picture share, flow matching backwards."""

from __future__ import annotations

from torch import Tensor, nn

from .base import Condition, unseen
from .flow_matching import FlowMatching
from .masked_text import MaskedText


class Lumina2(MaskedText, FlowMatching):
    """Its time runs from noise at 0 to the picture at 1, and its answer points from the noise to the picture."""

    pipelines = ("Lumina2Pipeline",)
    default_guidance = 4.0

    def predict(self, model: nn.Module, noisy: Tensor, timesteps: Tensor, prompts: Condition) -> Tensor:
        return -model(
            hidden_states=noisy,
            timestep=1 - timesteps / self.pipe.scheduler.config.num_train_timesteps,
            encoder_hidden_states=prompts["prompt_embeds"],
            encoder_attention_mask=prompts["prompt_attention_mask"],
        )

    def truncated(self, prompt: str) -> str:
        text = f"{self.pipe.system_prompt} <Prompt Start> {prompt}"
        return unseen(self.pipe.tokenizer, prompt, text, self.length)
