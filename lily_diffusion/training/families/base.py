"""What a family of pipelines must say so that it can be trained: prompts, latents, noise, target. One file a family.

`Family` has what most share; `noise_prediction`, `flow_matching` and `edm` have the ways to noise latents and to ask
for them back.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .. import losses
from ..errors import TrainingError

FAMILY_FLAGS = (
    "snr_gamma", "noise_offset", "weighting_scheme", "logit_mean", "logit_std", "mode_scale", "guidance_scale",
    "max_sequence_length",
)  # fmt: skip
Condition = dict[str, Tensor]  # what the denoiser gets for one prompt, without a batch dimension, in float32


class Family:
    """A pipeline taken apart for training; text encoders and autoencoder can be freed when their work is done."""

    pipelines: ClassVar[tuple[str, ...]]  # the classes of diffusers that belong to it
    schedulers: ClassVar[tuple[str, ...]] = ()  # only with one of these; empty: with any
    text_parts: ClassVar[tuple[str, ...]] = ("text_encoder", "tokenizer")
    objective: str  # what the denoiser predicts, for people
    default_resolution: ClassVar[int] = 1024  # where the denoiser's own configuration does not say
    default_guidance: ClassVar[float] = 7.5  # of validation pictures
    latents_per_token: ClassVar[int | None] = None  # along an edge, where the pipeline packs them itself
    flags: ClassVar[dict[str, Any]] = {}  # flags that mean something to it -> their defaults
    pipeline_tokens: ClassVar[int | None] = None  # the longest prompt that the pipeline takes, where it says so

    def __init__(self, pipe: Any, args: argparse.Namespace):
        """Take over a pipeline, its autoencoder in float32; nothing in it will ask for gradients."""
        self.pipe = pipe
        self.args = args
        self._fill_in_flags()
        self._check_length()
        self.vae_config = pipe.vae.config  # the autoencoder itself may be freed
        for part in pipe.components.values():
            if isinstance(part, nn.Module):
                part.requires_grad_(False).eval()

    @classmethod
    def check_flags(cls, args: argparse.Namespace) -> None:
        """Raises TrainingError: a flag is given that means nothing to this family."""
        if idle := [name for name in FAMILY_FLAGS if getattr(args, name) is not None and name not in cls.flags]:
            raise TrainingError(f"--{', --'.join(idle)} does nothing for a {cls.pipelines[0]}; leave it out")

    def _fill_in_flags(self) -> None:
        self.check_flags(self.args)
        missing = {name: value for name, value in self.flags.items() if getattr(self.args, name) is None}
        vars(self.args).update(missing)

    def _check_length(self) -> None:
        """Raises TrainingError: --max_sequence_length is more than pipeline, text encoder or denoiser take."""
        length = self.args.max_sequence_length
        most = self.most_tokens if length is not None else None
        if most is not None and length > most:
            kind = type(self.pipe).__name__
            raise TrainingError(f"--max_sequence_length {length} is more than this {kind} takes; give {most} or less")

    @property
    def denoiser(self) -> Any:
        return getattr(self.pipe, "transformer", None) or self.pipe.unet

    # ------------------------------------------------------------ pictures

    @property
    def pixels_per_latent(self) -> int:
        """Pixels along the edge of what must not be cut: a latent, or a patch of them."""
        return self.pipe.vae_scale_factor * (self.latents_per_token or self.denoiser.config.get("patch_size") or 1)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """The (C, h, w) of the latent of a picture of this many pixels.

        Raises:
            TrainingError: the pixels do not go into whole latents.
        """
        step = self.pixels_per_latent
        for edge in (height, width):
            if edge % step:
                near = max(1, round(edge / step)) * step
                raise TrainingError(f"--resolution {edge} is not a multiple of {step}, a latent's edge; take {near}")
        return (self.latent_channels, height // self.pipe.vae_scale_factor, width // self.pipe.vae_scale_factor)

    @property
    def native_resolution(self) -> int:
        """Edge in pixels of the pictures that the base model was made for."""
        size = self.denoiser.config.get("sample_size")
        return size * self.pipe.vae_scale_factor if isinstance(size, int) else self.default_resolution

    @property
    def latent_channels(self) -> int:
        return self.vae_config.latent_channels

    @torch.no_grad()
    def posterior(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the autoencoder's posterior: (B, 3, H, W) in [-1, 1] -> (B, C, h, w) twice."""
        with torch.autocast(pixels.device.type, enabled=False):
            distribution = self.pipe.vae.encode(pixels.to(self.pipe.vae.dtype)).latent_dist
        return distribution.mean.float(), distribution.std.float()

    def latents(self, mean: Tensor, std: Tensor, noise: Tensor) -> Tensor:
        """A sample from the posterior, shifted and scaled as the denoiser wants it."""
        shift = self.vae_config.get("shift_factor") or 0.0
        return (mean + std * noise - shift) * self.vae_config.scaling_factor

    def free_autoencoder(self) -> None:
        self.pipe.register_modules(vae=None)
        release()

    # ------------------------------------------------------------ prompts

    def encode(self, prompt: str, device: torch.device) -> Condition:
        """What the denoiser gets for one prompt, made by the pipeline's own method."""
        raise NotImplementedError

    def text_encoders(self) -> dict[str, nn.Module]:
        """The text encoders that the pipeline has, by the names of its parts."""
        parts = {name: getattr(self.pipe, name, None) for name in self.text_parts}
        return {name: part for name, part in parts.items() if isinstance(part, nn.Module)}

    def place_text_encoders(self, device: torch.device) -> None:
        for encoder in self.text_encoders().values():
            encoder.to(device)

    @torch.no_grad()
    def encode_prompts(self, prompts: Iterable[str], device: torch.device) -> dict[str, Condition]:
        """Encode each different prompt once."""
        self.place_text_encoders(device)
        encoded = {prompt: self.encode(prompt, device) for prompt in dict.fromkeys(prompts)}
        for prompt, condition in encoded.items():
            if not all(tensor.isfinite().all() for tensor in condition.values()):
                raise TrainingError(
                    f"the text encoder's numbers for {prompt!r} are not finite: it overflows in half precision; take "
                    "--mixed_precision bf16"
                )
        return encoded

    def batch(self, conditions: Sequence[Condition]) -> Condition:
        """Conditions side by side, each tensor with a batch dimension."""
        return {name: torch.stack([condition[name] for condition in conditions]) for name in conditions[0]}

    @property
    def most_tokens(self) -> int | None:
        """The largest --max_sequence_length that there are positions for; None: any is possible."""
        if self.pipeline_tokens is not None:
            return self.pipeline_tokens
        return getattr(self.pipe.text_encoder.config.get_text_config(), "max_position_embeddings", None)

    def tokenizers(self) -> list[tuple[Any, int]]:
        """The tokenizers of all text encoders, each with how many of its tokens are seen."""
        found = [getattr(self.pipe, name, None) for name in ("tokenizer", "tokenizer_2")]
        return [(tokenizer, tokenizer.model_max_length) for tokenizer in found if tokenizer is not None]

    def truncated(self, prompt: str) -> str:
        """The end of a prompt that no text encoder will see; empty if one sees everything."""
        # the last token that is seen is not of the prompt
        return min((unseen(tokenizer, prompt, prompt, seen - 1) for tokenizer, seen in self.tokenizers()), key=len)

    def trainable_text_encoders(self) -> dict[str, nn.Module]:
        """Those that may have an adapter of their own.

        Raises:
            TrainingError: there is none.
        """
        found = {name: part for name, part in self.text_encoders().items() if "CLIPText" in type(part).__name__}
        if not found:
            kinds = ", ".join(type(part).__name__ for part in self.text_encoders().values())
            raise TrainingError(
                f"--train_text_encoder adapts CLIP text encoders, and this base has {kinds}; leave it out"
            )
        return found

    def free_text_encoder(self) -> None:
        self.pipe.register_modules(**dict.fromkeys(self.text_parts))
        release()

    def call_arguments(self, prompt: Condition, empty: Condition, count: int, guidance_scale: float) -> dict[str, Any]:
        """The pipeline's arguments for `count` pictures of an encoded prompt, guided away from the empty one."""
        away = {f"negative_{name}": tensor for name, tensor in self.batch([empty] * count).items()}
        return {**self.batch([prompt] * count), **away, "guidance_scale": guidance_scale}

    # ------------------------------------------------------------ training

    def timesteps(self, u: Tensor) -> Tensor:
        """Timesteps from uniform numbers in [0, 1), both of shape (B,)."""
        raise NotImplementedError

    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Noisy latents and the target for the denoiser, both (B, C, h, w), and the weight of each sample's loss."""
        raise NotImplementedError

    def predict(self, model: nn.Module, noisy: Tensor, timesteps: Tensor, prompts: Condition) -> Tensor:
        """The denoiser's answer, comparable with the target; `model` takes its arguments and returns its tensor."""
        raise NotImplementedError

    def ask(self, model: nn.Module, noisy: Tensor, timesteps: Tensor, prompts: Condition) -> Tensor:
        """`predict`, with everything in the denoiser's type."""
        dtype = self.denoiser.dtype
        prompts = {name: t.to(dtype) if t.is_floating_point() else t for name, t in prompts.items()}
        return self.predict(model, noisy.to(dtype), timesteps, prompts)

    def losses(
        self,
        model: nn.Module,
        latents: Tensor,
        noise: Tensor,
        timesteps: Tensor,
        prompts: Condition,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The loss of each sample, shape (B,)."""
        noisy, target, weights = self.noised(latents, noise, timesteps)
        return losses.denoising_loss(self.ask(model, noisy, timesteps, prompts), target, weights, mask)


def unseen(tokenizer: Any, prompt: str, text: str, length: int) -> str:
    """The end of a prompt that lies beyond the first `length` tokens of the `text` into which it was written."""
    encoded = tokenizer(text, truncation=False, verbose=False, return_offsets_mapping=True)
    start = max([stop for _, stop in encoded.offset_mapping[:length]], default=0)
    end = text.rfind(prompt.strip()) + len(prompt.strip())
    return text[start:end].strip()


def as_chat(tokenizer: Any, prompt: str, **options: Any) -> str:
    """A prompt as a user says it to a chat model that is about to answer."""
    chat = [{"role": "user", "content": prompt}]
    return tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, **options)


def release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
