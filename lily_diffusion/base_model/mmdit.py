"""How ``embedded-dit`` is made: a small MMDiT in the manner of Stable Diffusion 3, trained by flow matching.

It learns from the same latents and captions as the UNet of ``embedded``, and shares its autoencoder and its first text
encoder (https://arxiv.org/abs/2403.03206).
"""

from __future__ import annotations

import argparse
import math
import random
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import Tensor
from tqdm.auto import tqdm
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from .architecture import all_captions
from .fitting import atomically, fit

T5_TOKENS = 256  # the pipeline puts so many zeros in the place of the absent T5's tokens


def new_transformer() -> SD3Transformer2DModel:
    """Six layers, 256 wide, on 2x2 patches of 16x16 latents."""
    return SD3Transformer2DModel(
        sample_size=16,
        patch_size=2,
        in_channels=8,
        out_channels=8,
        num_layers=6,
        attention_head_dim=64,
        num_attention_heads=4,
        joint_attention_dim=512,
        caption_projection_dim=256,
        pooled_projection_dim=512,
        pos_embed_max_size=8,
        qk_norm="rms_norm",
    )


def with_projection(folder: Path) -> CLIPTextModelWithProjection:
    """A text encoder of ours in the class that the pipeline wants; its projection changes nothing."""
    plain = CLIPTextModel.from_pretrained(folder, dtype=torch.float32)
    model = CLIPTextModelWithProjection(plain.config)
    weights = {f"text_model.{name.removeprefix('text_model.')}": t for name, t in plain.state_dict().items()}
    model.load_state_dict({**weights, "text_projection.weight": torch.eye(plain.config.hidden_size)})
    return model.eval()


@torch.no_grad()
def text_cache(args: argparse.Namespace) -> dict[str, Tensor]:
    """For every caption and the empty one, what both text encoders say: hidden (N, 24, 512) and pooled (N, 512)."""
    out = Path(args.output_dir)
    path = out / "text.pt"
    if path.exists():
        return torch.load(path, weights_only=True)
    tokenizer = CLIPTokenizer.from_pretrained(out / "tokenizer")
    tokens = tokenizer([*all_captions(), ""], padding="max_length", truncation=True, return_tensors="pt").input_ids
    encoders = [with_projection(out / name) for name in ("text_encoder", "text_encoder_2")]
    hidden, pooled = [], []
    for part in tqdm(tokens.split(256), desc="captions"):
        told = [encoder(part, output_hidden_states=True) for encoder in encoders]
        hidden.append(torch.cat([answer.hidden_states[-2] for answer in told], -1).bfloat16())
        pooled.append(torch.cat([answer.text_embeds for answer in told], -1).bfloat16())
    cache = {"hidden": torch.cat(hidden), "pooled": torch.cat(pooled)}
    atomically(path, lambda temporary: torch.save(cache, temporary))
    return cache


class OneForMany:
    """SD3's joint attention in which the last text token stands for `many` equal ones, at the price of one.

    Equal tokens stay equal from layer to layer, and n equal keys weigh as one whose logit is raised by log n.
    """

    many = T5_TOKENS

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        batch, patches = hidden_states.shape[:2]

        def heads(x: Tensor) -> Tensor:
            return x.view(batch, x.shape[1], attn.heads, -1).transpose(1, 2)

        pictures = [heads(f(hidden_states)) for f in (attn.to_q, attn.to_k, attn.to_v)]
        text = [heads(f(encoder_hidden_states)) for f in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)]
        q = torch.cat([attn.norm_q(pictures[0]), attn.norm_added_q(text[0])], 2)
        k = torch.cat([attn.norm_k(pictures[1]), attn.norm_added_k(text[1])], 2)
        v = torch.cat([pictures[2], text[2]], 2)
        logits = (q @ k.transpose(2, 3)) * q.shape[-1] ** -0.5
        raised = F.pad(logits.new_full((1,), math.log(self.many)), (k.shape[2] - 1, 0))
        mixed = ((logits + raised).softmax(-1).to(v.dtype) @ v).transpose(1, 2).flatten(2).to(q.dtype)
        answer, text_answer = mixed[:, :patches], mixed[:, patches:]
        if not attn.context_pre_only:
            text_answer = attn.to_add_out(text_answer)
        return attn.to_out[1](attn.to_out[0](answer)), text_answer


def train_transformer(args: argparse.Namespace, latents: dict[str, Tensor]) -> None:
    """Flow matching on cached latents; one caption in ten is empty (for guidance), one in ten names no colour.

    `latents` are those of the UNet's training, with the numbers of their captions in `all_captions`.

    The number of zero tokens is drawn too, so that the model draws with any --max_sequence_length.
    """
    text = text_cache(args)
    torch.manual_seed(args.seed)
    model, attention = new_transformer(), OneForMany()
    model.set_attn_processor(attention)
    empty, count = len(text["hidden"]) - 1, 32

    def loss(rng: random.Random) -> Tensor:
        chosen = torch.tensor([rng.randrange(len(latents["latents"])) for _ in range(count)])
        x, noise = latents["latents"][chosen].float(), torch.randn(count, 8, 16, 16)
        draws = torch.rand(count)
        caption = torch.where(draws < 0.1, latents["bare"][chosen], latents["full"][chosen])
        caption = torch.where(draws > 0.9, empty, caption)
        u = (torch.arange(count) + torch.rand(count)) / count  # one noise level in each of 32 parts
        sigma = torch.sigmoid(0.4 + 1.2 * torch.special.ndtri(u.clamp(1e-4, 1 - 1e-4))).view(-1, 1, 1, 1)
        drawn = round(math.exp(rng.uniform(0, math.log(T5_TOKENS))))
        attention.many = T5_TOKENS if rng.random() < 0.6 else drawn
        with torch.autocast("cpu", torch.bfloat16):
            flow = model(
                (1 - sigma) * x + sigma * noise,
                encoder_hidden_states=F.pad(text["hidden"][caption].float(), (0, 0, 0, 1)),
                pooled_projections=text["pooled"][caption].float(),
                timestep=1000 * sigma.flatten(),
            ).sample
        return F.mse_loss(flow.float(), noise - x)

    fit("transformer", model, loss, args.transformer_steps, args.transformer_lr, args, ema=0.999, decay=0.5)


def make_pipeline(args: argparse.Namespace) -> tuple[StableDiffusion3Pipeline, dict[str, Any]]:
    """The whole pipeline with the averaged weights, and the state of their training."""
    out = Path(args.output_dir)
    transformer, state = new_transformer(), torch.load(out / "transformer.pt", weights_only=True)
    for parameter, average in zip(transformer.parameters(), state["average"], strict=True):
        parameter.data.copy_(average)
    tokenizer, vae = CLIPTokenizer.from_pretrained(out / "tokenizer"), AutoencoderKL.from_pretrained(out / "vae")
    vae.register_to_config(shift_factor=0.0)  # the pipeline adds it without asking
    pipe = StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=with_projection(out / "text_encoder"),
        tokenizer=tokenizer,
        text_encoder_2=with_projection(out / "text_encoder_2"),
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )
    return pipe, state
