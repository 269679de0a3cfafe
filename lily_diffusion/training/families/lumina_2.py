"""Lumina-Image 2.0: Gemma 2 behind a system prompt, a DiT that text and picture share, flow matching backwards."""

from __future__ import annotations

from torch import Tensor, nn

from .any_length import by_length
from .base import Condition, unseen
from .flow_matching import FlowMatching
from .masked_text import MaskedText


class Lumina2(MaskedText, FlowMatching):
    """Its time runs from noise at 0 to the picture at 1, and its answer points from the noise to the picture."""

    pipelines = ("Lumina2Pipeline",)
    default_guidance = 4.0
    pipeline_tokens = 512

    @property
    def most_tokens(self) -> int:
        """The picture has the position after the prompt's last one."""
        return min(self.pipeline_tokens, self.denoiser.config.axes_lens[0] - 1)

    def predict(self, model: nn.Module, noisy: Tensor, timesteps: Tensor, prompts: Condition) -> Tensor:
        """The denoiser pads prompt and picture together to the longest of the batch."""
        embeddings, real = prompts["prompt_embeds"], prompts["prompt_attention_mask"]
        times = 1 - timesteps / self.pipe.scheduler.config.num_train_timesteps

        def answer(rows: Tensor) -> Tensor:
            return model(
                hidden_states=noisy[rows],
                timestep=times[rows],
                encoder_hidden_states=embeddings[rows],
                encoder_attention_mask=real[rows],
            )

        return -by_length(real.sum(1), answer)

    def truncated(self, prompt: str) -> str:
        text = f"{self.pipe.system_prompt} <Prompt Start> {prompt}"
        return unseen(self.pipe.tokenizer, prompt, text, self.length)
