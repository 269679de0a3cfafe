"""Does the embedded base model draw what it is asked for? 200 prompts over all names and colours.

    python -m benchmarks.base_model_quality --emoji_dir package/assets
    python -m benchmarks.base_model_quality --emoji_dir package/assets --model embedded-dit
    python -m benchmarks.base_model_quality --emoji_dir package/assets --model outputs/base_model/pipeline --limit 24

The emoji come from ``npm pack @lobehub/fluent-emoji-3d@1.1.0`` (unpack the file). What was drawn counts as the name
whose clean picture, on the colour asked for, is nearest by the features of EfficientNet-Lite0.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.measures import (
    RESULTS,
    as_images,
    as_tensor,
    background_colours,
    conditions,
    percent,
    results_name,
    write_results,
)
from lily_diffusion import base_model
from lily_diffusion.base_model.likeness import Likeness
from lily_diffusion.base_model.pictures import COLOURS, NAMES, Scene, draw, load_emoji, random_scene
from lily_diffusion.grid import contact_sheet

SHOWN = 60  # pictures on the contact sheet


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emoji_dir", required=True, help="folder of the emoji's .webp files")
    parser.add_argument("--model", default="embedded", help="'embedded', 'embedded-dit' or a pipeline's folder")
    parser.add_argument("--limit", type=int, default=200, help="number of prompts")
    parser.add_argument("--steps", type=int, default=25, help="denoising steps")
    parser.add_argument("--guidance_scale", type=float, default=3.0)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="of the first picture; each next one takes the next seed")
    parser.add_argument("--output_dir", default=str(RESULTS))
    return parser.parse_args(argv)


def scenes(count: int) -> list[Scene]:
    """The prompts' list: every name in turn, and the colours in shuffled rounds, so that both are covered evenly."""
    rng = random.Random(0)
    colours: list[str] = []
    while len(colours) < count:
        colours += rng.sample(list(COLOURS), len(COLOURS))
    names = [name for _ in range(1 + count // len(NAMES)) for name in rng.sample(list(NAMES), len(NAMES))]
    return [Scene(name, colour) for name, colour in zip(names[:count], colours[:count], strict=True)]


class Names:
    """Tells which of NAMES a picture is most like, among clean renders of all of them on one colour."""

    def __init__(self, emoji: dict[str, torch.Tensor], colours: set[str]):
        self.likeness, self.references = Likeness(), {}
        for colour in tqdm(sorted(colours), desc="clean renders"):
            clean = draw([Scene(name, colour) for name in NAMES], emoji)
            self.references[colour] = self.likeness.features(clean)

    def score(self, pictures: torch.Tensor, asked: list[Scene]) -> dict[str, float]:
        """Percentages of the pictures whose first name, or one of whose first five, and whose colour are as asked."""
        names, ranks, cosines = list(NAMES), [], []
        for feature, scene in zip(self.likeness.features(pictures), asked, strict=True):
            similarity = self.references[scene.colour] @ feature  # (names,)
            wanted = similarity[names.index(scene.name)]
            ranks.append(int((similarity > wanted).sum()))
            cosines.append(wanted.item())
        seen = background_colours(pictures)
        return {
            "top1": percent([rank < 1 for rank in ranks]),
            "top5": percent([rank < 5 for rank in ranks]),
            "colour": percent([colour == scene.colour for colour, scene in zip(seen, asked, strict=True)]),
            "cosine": round(sum(cosines) / len(cosines), 3),
        }


@torch.no_grad()
def through_vae(pipe, pictures: torch.Tensor) -> torch.Tensor:
    """What is left of true pictures after the autoencoder: no picture that the model draws can be clearer."""
    parts = [pipe.vae.decode(pipe.vae.encode(part).latent_dist.mode()).sample for part in pictures.split(32)]
    return as_tensor(as_images(torch.cat(parts)))


def generate(pipe, prompts: list[str], args: argparse.Namespace) -> torch.Tensor:
    images, progress = [], tqdm(total=len(prompts), desc="pictures")
    for start in range(0, len(prompts), args.batch_size):
        part = prompts[start : start + args.batch_size]
        images += pipe(
            part,
            num_inference_steps=args.steps,
            **{**base_model.CALL_OPTIONS.get(args.model, {}), "guidance_scale": args.guidance_scale},
            generator=[torch.Generator().manual_seed(args.seed + start + i) for i in range(len(part))],
        ).images
        progress.update(len(part))
    return as_tensor(images)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    pipe = base_model.load_pipeline(args.model)
    pipe.set_progress_bar_config(disable=True)
    emoji, asked = load_emoji(args.emoji_dir, NAMES), scenes(args.limit)
    prompts = [scene.caption for scene in asked]

    started = time.monotonic()
    drawn = generate(pipe, prompts, args)
    seconds = (time.monotonic() - started) / len(prompts)

    rng = random.Random(1)
    true = draw([random_scene(s.name, rng, style="plain", colour=s.colour) for s in asked], emoji)
    names = Names(emoji, {scene.colour for scene in asked})
    rows = {
        "drawn by the model": names.score(drawn, asked),
        "true pictures through its autoencoder (the ceiling)": names.score(through_vae(pipe, true), asked),
        "true pictures": names.score(true, asked),
    }
    result = {
        "model": args.model,
        "prompts": len(prompts),
        "steps": args.steps,
        "guidance_scale": args.guidance_scale,
        "seconds_a_picture": round(seconds, 2),
        "scores": rows,
        "conditions": conditions(),
    }
    text = [
        "# What the base model draws\n",
        f'{len(prompts)} prompts such as "{prompts[0]}", {args.steps} steps, guidance {args.guidance_scale:g}; among '
        f"{len(NAMES)} names. Cosine: to the clean picture of the name asked for.\n",
        "| pictures | name first | name in the first five | background colour | cosine |",
        "|---|---|---|---|---|",
        *(f"| {row} | {s['top1']}% | {s['top5']}% | {s['colour']}% | {s['cosine']} |" for row, s in rows.items()),
    ]
    name = results_name("base_model_quality", args.model)
    write_results(name, result, "\n".join(text), Path(args.output_dir))
    sheet = contact_sheet(as_images(drawn[:SHOWN]), prompts[:SHOWN], columns=10, scale=4)
    sheet.save(Path(args.output_dir) / f"{name}.jpg", quality=90)
    print("\n".join(text), f"\n\nwritten to {args.output_dir}/{name}.{{json,md,jpg}}")


if __name__ == "__main__":
    main()
