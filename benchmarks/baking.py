"""What is lost when an adapter's routers are frozen, so that it can be a plain LoRA?

    python -m benchmarks.subjects      # makes the adapters that this looks at
    python -m benchmarks.baking

Five subjects. The routers are watched on calibration prompts, and each layer's mixture is replaced by one matrix of the
same rank, in several ways. Then the twelve prompts of ``benchmarks.subjects`` are drawn from the same noise, with the
adapter and with each stand-in: likeness to true pictures, distance between the pictures, error of the updates. No
calibration prompt, and no seed of one, is among those that are measured on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops
from tqdm import tqdm

from benchmarks.measures import RESULTS, as_tensor, conditions, write_json, write_results
from benchmarks.subjects import CLASSES, COLOURS, base_hash, draw_prompts, finished, score, unseen_features
from lily_diffusion import attach, base_model, detach, load_lily_weights, unload_lily_weights
from lily_diffusion.baking import bake_lily, distance
from lily_diffusion.base_model.likeness import Likeness
from lily_diffusion.base_model.pictures import HELD_OUT, load_emoji
from lily_diffusion.grid import labelled_grid
from lily_diffusion.interchange.rank import reduce_rank
from lily_diffusion.state import one_adapter

SUBJECTS = ("teddy bear", "robot face", "owl", "rocket", "cactus")
CALL: dict[str, Any] = {"num_inference_steps": 25, "guidance_scale": 3.0}
SEED = 500  # of calibration
SHOWN = ("red", "teal", "yellow")


def calibration_prompts(subject: str) -> list[str]:
    """Eight prompts that share no wording with the measured ones: no colour, or another style."""
    thing = f"sks {CLASSES[subject]}"
    return [
        f"a {thing}",
        f"a small {thing}",
        f"two {thing}",
        f"a pencil sketch of a {thing}",
        f"pixel art of a {thing}",
        f"a small {thing} on a pink background",
        f"two {thing} on a grey background",
        f"a {thing} and a cat",
    ]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subjects", nargs="+", choices=CLASSES, default=list(SUBJECTS), metavar="NAME")
    parser.add_argument("--adapters_dir", default="outputs/subjects", help="what benchmarks.subjects made")
    parser.add_argument("--work_dir", default="outputs/baking")
    parser.add_argument("--results_dir", default=str(RESULTS))
    args = parser.parse_args(argv)
    emoji = load_emoji(str(base_model.SUBJECTS), {name: HELD_OUT[name] for name in args.subjects})
    pipe, likeness, results = base_model.load_pipeline(), Likeness(), []
    pipe.set_progress_bar_config(disable=True)
    for subject in tqdm(args.subjects, desc="subjects"):
        folder = Path(args.work_dir) / subject.replace(" ", "_")
        adapter = Path(args.adapters_dir) / folder.name / "adapter" / "pytorch_lily_weights.safetensors"
        settings = {"base": base_hash("embedded"), "adapter_bytes": adapter.stat().st_size, **CALL}
        result = finished(folder, settings)
        if result is None:
            load_lily_weights(pipe, adapter, "routed")
            truths = unseen_features(subject, emoji, likeness)
            result = {"settings": settings, "subject": subject, **measure(pipe, subject, truths, likeness, folder)}
            unload_lily_weights(pipe)
            write_json(folder / "result.json", result)
        results.append(result)
    report(results, args)


def measure(pipe: Any, subject: str, truths: Any, likeness: Likeness, folder: Path) -> dict[str, Any]:
    """Likeness and distance of the adapter and of each of its stand-ins; every picture is kept in `folder`."""
    routed = draw_prompts(pipe, subject)
    rows = {"routed": {"likeness": score(routed, truths, likeness)[0]}}
    save(routed, folder, "routed")
    for name, adapter, error in stand_ins(pipe, subject):
        detached = one_adapter(pipe.unet, "routed")[1]
        detach(pipe.unet, "routed")
        attach(pipe.unet, adapter, "frozen")
        images = draw_prompts(pipe, subject)
        detach(pipe.unet, "frozen")
        attach(pipe.unet, detached, "routed")
        save(images, folder, name)
        alike = (likeness.features(as_tensor(images)) * likeness.features(as_tensor(routed))).sum(1).mean().item()
        rows[name] = {
            "likeness": score(images, truths, likeness)[0],
            "to_routed": round(alike, 4),
            "distance": round(distance(images, routed), 4),
            "update_error": error,
        }
    return {"rows": rows}


def stand_ins(pipe: Any, subject: str):
    """(name, frozen adapter, mean relative error of its updates on the calibration prompts)."""
    prompts = calibration_prompts(subject)
    fit = bake_lily(pipe, prompts, "routed", seed=SEED, **CALL)
    yield "fit, 8 prompts", fit.adapter, fit.report["error"]
    yield "the same at rank 8", reduce_rank(fit.adapter, rank=8).adapter, None
    one = bake_lily(pipe, prompts[:1], "routed", seed=SEED, **CALL)
    yield "fit, 1 prompt", one.adapter, one.report["error"]
    mean = bake_lily(pipe, prompts, "routed", seed=SEED, method="mean", **CALL)
    yield "mean, 8 prompts", mean.adapter, mean.report["error"]


def save(images: list[Image.Image], folder: Path, name: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for colour, image in zip(COLOURS, images, strict=True):
        image.save(folder / f"{name}_{colour}.png")


def report(results: list[dict[str, Any]], args: argparse.Namespace) -> None:
    kinds = list(results[0]["rows"])

    def mean(kind: str, key: str) -> float | None:
        values = [r["rows"][kind].get(key) for r in results]
        return None if None in values else round(sum(values) / len(values), 4)

    keys = ("likeness", "to_routed", "distance", "update_error")
    means = {kind: {key: mean(kind, key) for key in keys} for kind in kinds}
    routed = means["routed"]["likeness"] or 0.0
    lines = [
        "# Freezing the routers\n",
        f"{len(results)} subjects ({', '.join(r['subject'] for r in results)}), twelve pictures each.\n",
        "| | likeness to the subject | lost | cosine to the routed adapter's pictures | pixel distance to them "
        "| error of the updates on the calibration prompts |",
        "|---|---|---|---|---|---|",
    ]
    for kind, values in means.items():
        lost = "" if kind == "routed" else f"{routed - (values['likeness'] or 0):+.3f}"
        rest = " | ".join("" if values[key] is None else f"{values[key]:.3f}" for key in keys[1:])
        lines.append(f"| {kind} | {values['likeness']:.3f} | {lost} | {rest} |")
    lines += ["", "| subject | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
    lines += [
        f"| {r['subject']} | " + " | ".join(f"{r['rows'][kind]['likeness']:.3f}" for kind in kinds) + " |"
        for r in results
    ]
    whole = {"means": means, "subjects": results, "conditions": conditions()}
    write_results("baking", whole, "\n".join(lines), Path(args.results_dir))
    sheet(results, Path(args.work_dir)).save(Path(args.results_dir) / "baking.jpg", quality=90)
    print("\n".join(lines))


def sheet(results: list[dict[str, Any]], work_dir: Path) -> Image.Image:
    """One row a subject; for some colours the adapter's picture, the stand-in's, and where they differ."""
    columns = [f"{colour}, {what}" for colour in SHOWN for what in ("routed", "frozen", "difference")]
    rows = []
    for result in results:
        folder, row = work_dir / result["subject"].replace(" ", "_"), []
        for colour in SHOWN:
            pair = [Image.open(folder / f"{name}_{colour}.png").convert("RGB") for name in ("routed", "fit, 8 prompts")]
            row += [*pair, ImageChops.difference(*pair)]
        rows.append(row)
    return labelled_grid(rows, [r["subject"] for r in results], columns, scale=2)


if __name__ == "__main__":
    main()
