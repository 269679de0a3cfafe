"""PEFT's comparison of image generation, with this library's trainer: FLUX.2 klein learns a toy cat from 14 photos.

    python -m benchmarks.peft_image_gen
    python -m benchmarks.peft_image_gen --rank 64 --scaling 4 --learning_rate 3e-4 --output_dir outputs/tried

It needs a GPU of about 12 GB, `pip install datasets`, and the Hub for the model (after you agreed to its terms), the
photos and DINOv2. Settings, prompts, split and measures are PEFT's, read from the file that `--params` names. Two
things differ: latents are drawn from the autoencoder's posterior where PEFT takes its mode, and prompts are encoded
from the layers that the pipeline takes by itself. Nothing of it has run on a GPU; on the CPU a tiny pipeline has.
"""

from __future__ import annotations

import argparse
import json
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from benchmarks.measures import conditions, write_json
from lily_diffusion import disable_lily, enable_lily, load_lily_weights
from lily_diffusion.sharing import KINDS
from lily_diffusion.training import parse_args as parse_training_args
from lily_diffusion.training import train

PARAMS = (
    "https://raw.githubusercontent.com/huggingface/peft/5d602fdbff04c33c1c4de55cda9d4ae1d7cb7e40"
    "/method_comparison/image-gen/default_training_params.json"
)
REPEATS = 3  # of the test pictures
SEED, DRIFT_SEED = 100_000, 100_000_000  # added to the run's own seed

Photo = tuple[Image.Image, str]  # with its prompt
Features = Callable[[list[Image.Image]], Tensor]  # rows of length 1


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--params", default=PARAMS, help="file or address of PEFT's default_training_params.json")
    add("--target_modules", nargs="+", default=list(KINDS), metavar="NAME")
    add("--rank", type=int, default=16)
    add("--stride_A", type=int, default=4)
    add("--num_B", type=int, default=4)
    add("--scaling", type=float, default=2.0)
    add("--learning_rate", type=float, help="(default: PEFT's, that all methods were given)")
    add("--max_train_steps", type=int, help="(default: PEFT's)")
    add("--output_dir", default="outputs/peft_image_gen")
    return parser.parse_args(argv)


def read_params(source: str) -> dict[str, Any]:
    if not source.startswith("https://"):
        return json.loads(Path(source).read_text())
    with urllib.request.urlopen(source, timeout=60) as answer:
        return json.load(answer)


def photos(params: dict[str, Any]) -> list[Photo]:
    """Every photo with its prompt."""
    from datasets import load_dataset

    rows = load_dataset(params["dataset_id"], split=params["dataset_split"])
    images = [ImageOps.exif_transpose(image.convert("RGB")) for image in rows[params["image_column"]]]
    return list(zip(images, params["instance_prompts"], strict=True))


def split(given: list[Photo], params: dict[str, Any]) -> tuple[list[Photo], list[Photo]]:
    """Those to learn from and those to test on; PEFT's validation photos are in neither."""
    order = np.random.RandomState(0).permutation(len(given))
    learnt = len(given) - params["valid_size"] - params["test_size"]
    return [given[i] for i in order[:learnt]], [given[i] for i in order[len(given) - params["test_size"] :]]


def write_photos(given: list[Photo], folder: Path, edge: int) -> None:
    """Squares without a crop, as PEFT makes them, each with its prompt in a .txt file."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, (image, prompt) in enumerate(given):
        image.resize((edge, edge), Image.Resampling.BILINEAR).save(folder / f"{i:02d}.png")
        (folder / f"{i:02d}.txt").write_text(prompt + "\n")


def training_flags(args: argparse.Namespace, params: dict[str, Any], folder: Path) -> list[str]:
    rate = args.learning_rate or params["optimizer_kwargs"]["lr"]
    values = {
        "pretrained_model_name_or_path": params["model_id"], "instance_data_dir": folder / "photos",
        "output_dir": folder / "adapter", "resolution": params["resolution"], "train_batch_size": params["batch_size"],
        "max_train_steps": args.max_train_steps or params["max_steps"], "learning_rate": rate,
        "adam_weight_decay": params["optimizer_kwargs"]["weight_decay"], "max_grad_norm": params["grad_norm_clip"],
        "weighting_scheme": params["weighting_scheme"], "max_sequence_length": params["max_sequence_length"],
        "seed": params["seed"], "rank": args.rank, "stride_A": args.stride_A, "num_B": args.num_B,
        "scaling": args.scaling, "checkpointing_steps": 0, "report_to": "none",
    }  # fmt: skip
    flags = ["--cache_latents", *(["--gradient_checkpointing"] if params["use_gc"] else [])]
    flags += ["--mixed_precision", "bf16" if params["dtype"] == "bfloat16" else "no"]
    flags += ["--target_modules", *args.target_modules]
    return flags + [text for name, value in values.items() for text in (f"--{name}", str(value))]


def drawn(pipe: Any, prompts: list[str], params: dict[str, Any], seed: int) -> list[Image.Image]:
    """One picture a prompt from one stream of noise."""
    generator = torch.Generator(pipe._execution_device).manual_seed(params["seed"] + seed)
    options = {name: params[name] for name in ("num_inference_steps", "guidance_scale", "max_sequence_length")}
    edge = params["resolution"]
    return [pipe(prompt=p, height=edge, width=edge, generator=generator, **options).images[0] for p in prompts]


def measure(pipe: Any, tested: list[Photo], params: dict[str, Any], features: Features) -> dict[str, float]:
    """Similarity to photos that were not learnt from, and drift on unrelated prompts, with the loaded adapter."""
    images, prompts = zip(*tested, strict=True)
    asked = list(prompts) * REPEATS
    cosines = (features(drawn(pipe, asked, params, SEED)) * features(list(images)).repeat(REPEATS, 1)).sum(1)
    unrelated = params["drift_image_prompts"]
    adapted = features(drawn(pipe, unrelated, params, DRIFT_SEED))
    disable_lily(pipe)
    base = features(drawn(pipe, unrelated, params, DRIFT_SEED))
    enable_lily(pipe)
    drift = (1 - (adapted * base).sum(1).mean().item()) / 2
    return {"dino_similarity": round(cosines.mean().item(), 4), "drift": round(drift, 4)}


def dino(params: dict[str, Any]) -> Features:
    from transformers import AutoImageProcessor, AutoModel

    device = "cuda" if torch.cuda.is_available() else "cpu"
    processor = AutoImageProcessor.from_pretrained(params["dino_model_id"])
    network = AutoModel.from_pretrained(params["dino_model_id"]).eval().to(device)

    @torch.no_grad()
    def features(images: list[Image.Image]) -> Tensor:
        pixels = processor(images=images, return_tensors="pt").to(device)
        return torch.nn.functional.normalize(network(**pixels).last_hidden_state[:, 0], dim=-1).cpu()

    return features


def load(params: dict[str, Any]) -> Any:
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(params["model_id"], torch_dtype=getattr(torch, params["dtype"]))
    pipe.set_progress_bar_config(disable=True)
    if torch.cuda.is_available():
        pipe.enable_model_cpu_offload()
    return pipe


def run(args: argparse.Namespace, params: dict[str, Any], given: list[Photo], features: Features) -> dict[str, Any]:
    """Train, measure, and write ``result.json``."""
    folder = Path(args.output_dir)
    learnt, tested = split(given, params)
    write_photos(learnt, folder / "photos", params["resolution"])
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    started = time.monotonic()
    weights = train(parse_training_args(training_flags(args, params, folder))).weights
    seconds = time.monotonic() - started
    memory = torch.cuda.max_memory_reserved() if torch.cuda.is_available() else None
    pipe = load(params)
    load_lily_weights(pipe, weights)
    result = {
        **measure(pipe, tested, params, features), "file_bytes": weights.stat().st_size,
        "train_seconds": round(seconds, 1), "max_memory_bytes": memory, "settings": vars(args),
        "conditions": conditions(),
    }  # fmt: skip
    write_json(folder / "result.json", result)
    return result


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    params = read_params(args.params)
    print(json.dumps(run(args, params, photos(params), dino(params)), indent=1))


if __name__ == "__main__":
    main()
