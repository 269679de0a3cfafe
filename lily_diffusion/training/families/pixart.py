"""PixArt-alpha and PixArt-Sigma: T5, a DiT that predicts noise and a variance that is not trained, a KL autoencoder."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from .base import Condition
from .masked_text import MaskedText
from .noise_prediction import NoisePrediction


class PixArt(MaskedText, NoisePrediction):
    pipelines = ("PixArtSigmaPipeline", "PixArtAlphaPipeline")
    default_guidance = 4.5
    flags: ClassVar[dict[str, Any]] = {**NoisePrediction.flags, "max_sequence_length": None}

    def predict(self, model: nn.Module, noisy: Tensor, timesteps: Tensor, prompts: Condition) -> Tensor:
        answer = model(
            noisy,
            encoder_hidden_states=prompts["prompt_embeds"],
            encoder_attention_mask=prompts["prompt_attention_mask"],
            timestep=timesteps,
            added_cond_kwargs=self._sizes(noisy),
        )
        channels = noisy.shape[1]
        return answer[:, :channels] if answer.shape[1] == 2 * channels else answer

    def _sizes(self, noisy: Tensor) -> dict[str, Tensor | None]:
        """Only PixArt-alpha at 1024 pixels is told how large the picture is."""
        if not self.denoiser.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        height, width = (edge * self.pipe.vae_scale_factor for edge in noisy.shape[2:])
        sizes = noisy.new_tensor([[height, width, height / width]]).expand(len(noisy), -1)
        return {"resolution": sizes[:, :2], "aspect_ratio": sizes[:, 2:]}
