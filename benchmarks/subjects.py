"""Does an adapter learn a new subject from five pictures? 15 emoji that the base model has never seen.

    python -m benchmarks.subjects
    python -m benchmarks.subjects --model embedded-dit
    python -m benchmarks.subjects --subjects "robot face" owl --max_train_steps 300 --results_dir outputs/tried

For each subject: five pictures in known colours and poses, training as ``train_dreambooth_lily.py`` does it, then
twelve prompts, one a colour, from the same noise before and after. Likeness is the mean cosine, by the features of
EfficientNet-Lite0, to true pictures in poses that were not learnt from, on the colour asked for. A subject whose
result is there already, with the same settings and the same base, is not run again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from benchmarks.measures import (
    RESULTS,
    as_images,
    as_tensor,
    background_colours,
    conditions,
    percent,
    results_name,
    write_json,
    write_results,
)
from lily_diffusion import base_model
from lily_diffusion.base_model.likeness import Likeness
from lily_diffusion.base_model.pictures import COLOURS, HELD_OUT, describe, draw, load_emoji, random_scene
from lily_diffusion.grid import labelled_grid
from lily_diffusion.loaders import load_lily_weights
from lily_diffusion.sharing import KINDS
from lily_diffusion.switches import unload_lily_weights
from lily_diffusion.training import parse_args as parse_training_args
from lily_diffusion.training import train

CLASSES = {
    "teddy bear": "bear", "robot face": "robot", "ghost": "ghost", "owl": "owl", "rocket": "rocket",
    "snowman": "snowman", "school satchel": "bag", "dragon face": "dragon", "cactus": "cactus", "octopus": "octopus",
    "guitar": "guitar", "t-rex": "dinosaur", "hamburger": "burger", "tophat": "hat", "violin": "violin",
}  # fmt: skip
PICTURES = 5  # that a subject is learnt from
POSES = 4  # true pictures, on each colour, that likeness is measured to
SHOWN = ("red", "teal", "yellow", "white")  # colours on the sheet
STEPS, GUIDANCE, SEED = 25, 3.0, 1000  # of drawing; each prompt takes the next seed


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--subjects", nargs="+", choices=CLASSES, default=list(CLASSES), metavar="NAME", help="only these")
    add("--model", default="embedded", help="'embedded', 'embedded-dit' or a pipeline's folder")
    add("--work_dir", default="outputs/subjects", help="pictures, adapters and what is done so far")
    add("--results_dir", default=str(RESULTS))
    add("--target_modules", nargs="+", default=list(KINDS), metavar="NAME")
    add("--rank", type=int, default=16)
    add("--stride_A", type=int, default=4)
    add("--num_B", type=int, default=4)
    add("--scaling", type=float, default=2.0)
    add("--learning_rate", type=float, default=1.4e-3)
    add("--max_train_steps", type=int, default=200)
    add("--train_batch_size", type=int, default=4)
    add("--mixed_precision", choices=("no", "bf16"), default="no")
    add("--seed", type=int, default=0, help="of training")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    settings = {
        name: value for name, value in vars(args).items() if name not in ("subjects", "work_dir", "results_dir")
    }
    settings["base"] = base_hash(args.model)
    emoji = load_emoji(str(base_model.SUBJECTS), {name: HELD_OUT[name] for name in args.subjects})
    pipe, likeness, results = None, Likeness(), []
    for subject in tqdm(args.subjects, desc="subjects"):
        folder = folder_of(subject, args)
        result = finished(folder, settings)
        if result is None:
            if pipe is None:
                pipe = base_model.load_pipeline(args.model)
                pipe.set_progress_bar_config(disable=True)
            result = {"settings": settings, **learn_and_measure(pipe, subject, emoji, likeness, folder, args)}
            write_json(folder / "result.json", result)
        tqdm.write(f"{subject}: {result['before']:.3f} -> {result['after']:.3f}, colour {result['colour_after']}%")
        results.append(result)
    report(results, settings, args)


def folder_of(subject: str, args: argparse.Namespace) -> Path:
    return Path(args.work_dir) / results_name("", args.model) / subject.replace(" ", "_")


def base_hash(model: str) -> str:
    """The first digits of the sha256 of the denoiser's weights, so that results of another base are told apart."""
    found = Path(base_model.resolve(model)).glob("*/diffusion_pytorch_model.safetensors")
    file = next(file for file in found if file.parent.name in ("unet", "transformer"))
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def finished(folder: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    path = folder / "result.json"
    result = json.loads(path.read_text()) if path.exists() else {}
    return result if result.get("settings") == settings else None


def learn_and_measure(pipe, subject: str, emoji, likeness: Likeness, folder: Path, args) -> dict[str, Any]:
    """One subject from its five pictures to its numbers; `folder` keeps the adapter and every picture."""
    shutil.rmtree(folder, ignore_errors=True)
    write_pictures(subject, emoji, folder / "pictures")
    truths = unseen_features(subject, emoji, likeness)
    before = draw_prompts(pipe, subject, args.model)
    started = time.monotonic()
    trained = train(parse_training_args(training_flags(args, folder)))
    seconds = time.monotonic() - started
    load_lily_weights(pipe, trained.weights, "subject")
    after = draw_prompts(pipe, subject, args.model)
    unload_lily_weights(pipe)
    for name, images in (("before", before), ("after", after)):
        for colour, image in zip(COLOURS, images, strict=True):
            image.save(folder / f"{name}_{colour}.png")
    scores = {name: score(images, truths, likeness) for name, images in (("before", before), ("after", after))}
    return {
        "subject": subject,
        "class": CLASSES[subject],
        "before": scores["before"][0],
        "after": scores["after"][0],
        "rise": round(scores["after"][0] - scores["before"][0], 4),
        "between_true_pictures": round(true_likeness(truths), 4),
        "colour_before": scores["before"][1],
        "colour_after": scores["after"][1],
        "training_seconds": round(seconds, 1),
        "adapter_bytes": trained.weights.stat().st_size,
    }


def write_pictures(subject: str, emoji, folder: Path) -> None:
    """Five pictures on five colours, each with its caption in a .txt file, as a person would prepare them."""
    rng = random.Random(f"learn {subject}")
    colours = rng.sample(list(COLOURS), PICTURES)
    scenes = [random_scene(subject, rng, style="plain", colour=colour) for colour in colours]
    folder.mkdir(parents=True)
    for i, (scene, image) in enumerate(zip(scenes, as_images(draw(scenes, emoji)), strict=True)):
        image.save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(caption(subject, scene.colour) + "\n")


def caption(subject: str, colour: str) -> str:
    return describe(f"sks {CLASSES[subject]}", colour)


def unseen_features(subject: str, emoji, likeness: Likeness) -> torch.Tensor:
    """Features of true pictures in poses of their own: (colours, POSES, 1280)."""
    rng = random.Random(f"measure {subject}")
    scenes = [random_scene(subject, rng, style="plain", colour=colour) for colour in COLOURS for _ in range(POSES)]
    return likeness.features(draw(scenes, emoji)).view(len(COLOURS), POSES, -1)


def draw_prompts(pipe, subject: str, model: str = "embedded") -> list[Image.Image]:
    """One picture a colour, always from the same noise."""
    generators = [torch.Generator().manual_seed(SEED + i) for i in range(len(COLOURS))]
    prompts = [caption(subject, colour) for colour in COLOURS]
    options = {**base_model.CALL_OPTIONS.get(model, {}), "guidance_scale": GUIDANCE}
    return pipe(prompts, num_inference_steps=STEPS, generator=generators, **options).images


def training_flags(args: argparse.Namespace, folder: Path) -> list[str]:
    names = ("rank", "stride_A", "num_B", "scaling", "learning_rate", "max_train_steps", "train_batch_size", "seed")
    length = base_model.CALL_OPTIONS.get(args.model, {}).get("max_sequence_length")
    return [
        *(["--max_sequence_length", str(length)] if length else []),
        *("--pretrained_model_name_or_path", args.model, "--instance_data_dir", str(folder / "pictures")),
        *("--output_dir", str(folder / "adapter"), "--mixed_precision", args.mixed_precision),
        *("--cache_latents", "--checkpointing_steps", "0", "--report_to", "none"),
        *("--target_modules", *args.target_modules),
        *(text for name in names for text in (f"--{name}", str(getattr(args, name)))),
    ]


def score(images: list[Image.Image], truths: torch.Tensor, likeness: Likeness) -> tuple[float, float]:
    """(mean cosine to the true pictures on the same colour, percentage of right backgrounds)."""
    pictures = as_tensor(images)
    cosines = torch.einsum("cd,cpd->cp", likeness.features(pictures), truths)
    seen = background_colours(pictures)
    return round(cosines.mean().item(), 4), percent([a == b for a, b in zip(seen, COLOURS, strict=True)])


def true_likeness(truths: torch.Tensor) -> float:
    """Mean cosine between different true pictures on one colour: what a perfect picture would score."""
    cosines = torch.einsum("cpd,cqd->cpq", truths, truths)
    return cosines[:, ~torch.eye(POSES, dtype=torch.bool)].mean().item()


def report(results: list[dict[str, Any]], settings: dict[str, Any], args: argparse.Namespace) -> None:
    def mean(key: str) -> float:
        return sum(result[key] for result in results) / len(results)

    keys = ("before", "after", "rise", "between_true_pictures", "colour_before", "colour_after", "training_seconds")
    means = {key: round(mean(key), 3) for key in keys}
    lines = [
        "# Learning a subject from five pictures\n",
        f"{len(results)} subjects that the base model has never seen; an adapter takes "
        f"{mean('adapter_bytes') / 1e6:.2f} MB. Settings: {', '.join(f'{k} {v}' for k, v in settings.items())}.\n",
        "| subject | word for it | likeness before | after | rise | between true pictures | background right before "
        "| after | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in [*results, {"subject": "**mean**", "class": "", **means}]:
        likenesses = " | ".join(f"{r[key]:.3f}" for key in keys[:4])
        colours = f"{r['colour_before']:.0f}% | {r['colour_after']:.0f}%"
        lines.append(f"| {r['subject']} | {r['class']} | {likenesses} | {colours} | {r['training_seconds']:.0f} |")
    whole = {"settings": settings, "means": means, "subjects": results, "conditions": conditions()}
    name = results_name("subjects", args.model)
    write_results(name, whole, "\n".join(lines), Path(args.results_dir))
    sheet(results, args).save(Path(args.results_dir) / f"{name}.jpg", quality=90)
    print("\n".join(lines), f"\n\nwritten to {args.results_dir}/{name}.{{json,md,jpg}}")


def sheet(results: list[dict[str, Any]], args: argparse.Namespace) -> Image.Image:
    """One row a subject: a picture that it was learnt from, then prompts before and after."""
    columns = ["learnt from", *(f"{colour}, {when}" for colour in SHOWN for when in ("before", "after"))]
    rows = []
    for result in results:
        folder = folder_of(result["subject"], args)
        files = [folder / f"{when}_{colour}.png" for colour in SHOWN for when in ("before", "after")]
        rows.append([Image.open(file) for file in (folder / "pictures" / "0.png", *files)])
    labels = [f"{r['subject']} {r['before']:.2f} to {r['after']:.2f}" for r in results]
    return labelled_grid(rows, labels, columns, scale=2)


if __name__ == "__main__":
    main()
