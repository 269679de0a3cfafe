"""lily-diffusion generate: prompts and adapters in; PNGs that carry their recipe, and a grid, out."""

from __future__ import annotations

import argparse
import inspect
import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from tqdm import tqdm

from ui.keeping.recipe import MAX_SEED, Recipe, UsedAdapter, png_info

from .adapter_weight import parse
from .grid import labelled_grid
from .loaders import load_lily_weights
from .many_prompts import Drawing, missing, path_of, read_prompts, save, save_grid, seed_of, this_process
from .pipelines import call_arguments, default_guidance, open_pipeline
from .save_and_load import read_lily_header
from .switches import set_adapters

EXAMPLES = """\
examples:
  # the small model that ships with the package needs no download
  lily-diffusion generate --prompt "a cat on a red background" --num_images 4

  # two adapters at once, each with its weight, on two prompts; the grid shows everything side by side
  lily-diffusion generate --adapter robot.safetensors:0.8 --adapter bear=teddy_bear.safetensors:0.6 \\
    --prompt "a sks robot on a blue background" --prompt "a zwx bear on a yellow background" --seed 7

  # by block and by step: weaker in the middle block, and fading out over the first half of the steps
  lily-diffusion generate --adapter "robot.safetensors:1@0,0@0.5,mid=0.3" --prompt "a sks robot on a blue background"

  # any diffusers pipeline, from a folder or the hub
  lily-diffusion generate --model stable-diffusion-v1-5/stable-diffusion-v1-5 --adapter dog.safetensors \\
    --prompt "a photo of sks dog on the moon" --steps 30

  # the prompts of a file, one a line, on four GPUs; the same call again draws only what is missing
  accelerate launch --num_processes 4 -m lily_diffusion generate --prompts prompts.txt --output_dir outputs/many

Every PNG carries its settings; drop it onto the page (lily-diffusion ui) to make it again.
"""


class AdapterSpec(NamedTuple):
    """One ``--adapter [NAME=]FILE[:WEIGHT]``."""

    name: str
    file: Path
    weight: float | str  # text where blocks or steps differ


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _add_prompts(parser)
    add = parser.add_argument
    add("--negative_prompt", default="", metavar="TEXT", help="what to keep away from")
    add(
        "--adapter",
        action="append",
        default=[],
        metavar="[NAME=]FILE[:WEIGHT]",
        help="a Lily file and its weight (default: 1), such as 0.8, 0.8,up.1=0.5,attn2=0 or 1@0,0.2@0.6; "
        "may be repeated: the adapters are blended",
    )
    add(
        "--model",
        default="embedded",
        metavar="NAME",
        help="'embedded', a pipeline's folder, or a hub id (default: embedded)",
    )
    add(
        "--num_images",
        type=int,
        default=1,
        metavar="N",
        help="pictures of each prompt, with a seed of their own (default: 1)",
    )
    add(
        "--seed",
        type=int,
        help="of the first picture, the next ones count up (default: drawn; the file names show it); "
        "with --prompts each picture draws its own from this one and its line (default: 0)",
    )
    add("--steps", type=int, default=25, help="denoising steps (default: 25)")
    add(
        "--guidance_scale",
        type=float,
        help="how closely the prompt is followed (default: the model's own; 3 for embedded)",
    )
    add("--height", type=int, help="in pixels (default: the model's own)")
    add("--width", type=int, help="in pixels (default: the model's own)")
    add("--device", help="such as cuda or cpu (default: cuda if there is one)")
    add(
        "--output_dir",
        type=Path,
        default=Path("outputs/generate"),
        metavar="FOLDER",
        help="(default: outputs/generate)",
    )


def _add_prompts(parser: argparse.ArgumentParser) -> None:
    prompts = parser.add_mutually_exclusive_group(required=True)
    prompts.add_argument("--prompt", action="append", metavar="TEXT", help="what to draw; may be repeated")
    prompts.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="a prompt a line, blank ones and # comments aside; or .jsonl with prompt, negative_prompt and seed. "
        "Several processes share the work, and what is there already is not drawn again",
    )


def run(args: argparse.Namespace) -> int:
    """Draw every prompt, save each picture with its recipe, and a grid when there are several."""
    for name in ("num_images", "steps", "height", "width"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise ValueError(f"--{name} must be 1 or more, not {getattr(args, name)}.")
    if args.guidance_scale is not None and not math.isfinite(args.guidance_scale):
        raise ValueError(f"--guidance_scale must be a finite number, not {args.guidance_scale}.")
    if args.seed is None:
        args.seed = 0 if args.prompts else random.randrange(2**31)
    if not 0 <= args.seed <= MAX_SEED - args.num_images:
        raise ValueError(f"--seed must be from 0 to {MAX_SEED - args.num_images}, not {args.seed}.")
    specs = parse_adapters(args.adapter)
    return _run_many(args, specs) if args.prompts else _run_few(args, specs)


def _run_few(args: argparse.Namespace, specs: list[AdapterSpec]) -> int:
    """The prompts of the command line: every call draws new pictures, numbered on from those that are there."""
    if this_process(args.device).count > 1:
        raise ValueError("several processes can share --prompts FILE; with --prompt, run one.")
    pipe, recipe = _load(args, specs), _recipe_maker(args, specs)
    seeds = [args.seed + i for i in range(args.num_images)]
    args.output_dir.mkdir(parents=True, exist_ok=True)
    number = 1 + max((int(p.name[:5]) for p in args.output_dir.glob("[0-9][0-9][0-9][0-9][0-9]-*.png")), default=0)
    recipes = [recipe(prompt, args.negative_prompt, seed) for prompt in args.prompt for seed in seeds]
    images = []
    for image, recipe_of_it in zip(_draw(pipe, args.model, recipes), recipes, strict=True):
        path = args.output_dir / f"{number:05d}-{recipe_of_it.seed}.png"
        image.save(path, pnginfo=png_info(recipe_of_it))
        print(path)
        number += 1
        images.append(image)
    if len(images) > 1:
        rows = [images[start : start + len(seeds)] for start in range(0, len(images), len(seeds))]
        path = args.output_dir / f"{number:05d}-grid.png"
        labelled_grid(rows, args.prompt, [f"seed {seed}" for seed in seeds]).save(path)
        print(path)
    return 0


def _run_many(args: argparse.Namespace, specs: list[AdapterSpec]) -> int:
    """The prompts of a file: this process draws its share of the pictures that are not there yet."""
    lines, process = read_prompts(args.prompts), this_process(args.device)
    seeds = {(line, i): seed_of(line, i, args.seed) for line in lines for i in range(args.num_images)}
    args.device = process.device
    pipe, recipe = _load(args, specs), _recipe_maker(args, specs)
    args.output_dir.mkdir(parents=True, exist_ok=True)

    def drawing(line: Any, i: int) -> Drawing:
        negative = args.negative_prompt if line.negative_prompt is None else line.negative_prompt
        return Drawing(path_of(args.output_dir, line, i), recipe(line.prompt, negative, seeds[line, i]))

    rows = [[drawing(line, i) for i in range(args.num_images)] for line in lines]
    drawings = [drawing for row in rows for drawing in row]
    left = set(missing(drawings))
    if process.index == 0 and len(left) < len(drawings):
        print(f"{len(drawings) - len(left)} of {len(drawings)} pictures are there already")
    own = [drawing for drawing in drawings[process.index :: process.count] if drawing in left]
    images = _draw(pipe, args.model, [drawing.recipe for drawing in own], quiet=process.index > 0)
    for image, drawn in zip(images, own, strict=True):
        save(image, drawn)
        print(drawn.path, flush=True)
    grid = save_grid(rows, args.output_dir)
    if grid is not None:
        print(grid)
    return 0


def parse_adapters(texts: Sequence[str]) -> list[AdapterSpec]:
    """Make sense of ``[NAME=]FILE[:WEIGHT]``. Without a NAME the file's own name serves.

    Raises:
        ValueError: a file is missing or a name is given twice.
    """
    specs: list[AdapterSpec] = []
    for text in texts:
        name, file, weight = _split(text)
        try:
            plain = parse(weight).plain
        except ValueError as error:
            raise ValueError(f"the weight of --adapter {text}: {error}") from None
        if not Path(file).is_file():
            raise ValueError(f"there is no adapter file {file}.")
        name = name or re.sub(r"\W", "_", Path(file).stem)
        if name in [spec.name for spec in specs]:
            raise ValueError(f"two adapters are named {name!r}; write --adapter OTHER_NAME={file}.")
        specs.append(AdapterSpec(name, Path(file), plain))
    return specs


def _split(text: str) -> tuple[str, str, str]:
    """(name, file, weight) of ``[NAME=]FILE[:WEIGHT]``: files may have = and : in their names, and weights =."""
    before, _, after = text.partition("=")
    for name, rest in (("", text), (before, after)):
        file, mark, weight = rest.rpartition(":")
        if Path(rest).is_file():
            return name, rest, "1"
        if mark and Path(file).is_file():
            return name, file, weight
    file, mark, weight = text.partition(":")
    return "", file.rpartition("=")[2], weight if mark else "1"


def _load(args: argparse.Namespace, specs: list[AdapterSpec]) -> Any:
    pipe = open_pipeline(args.model, args.device)
    for spec in specs:
        load_lily_weights(pipe, spec.file, spec.name)
    if specs:
        set_adapters(pipe, [spec.name for spec in specs], [spec.weight for spec in specs])
    args.width = args.width or _default_size(pipe)
    args.height = args.height or _default_size(pipe)
    if args.guidance_scale is None:
        args.guidance_scale = default_guidance(pipe, args.model)
    return pipe


def _default_size(pipe: Any) -> int:
    """Edge in pixels of the pictures that the model was made for."""
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    size = getattr(pipe, "default_sample_size", None) or denoiser.config.get("sample_size")
    return size * pipe.vae_scale_factor if isinstance(size, int) else 1024


def _recipe_maker(args: argparse.Namespace, specs: list[AdapterSpec]) -> Callable[[str, str, int], Recipe]:
    """A function (prompt, negative prompt, seed) -> the recipe, which the PNG also carries."""
    used = tuple(UsedAdapter(s.name, read_lily_header(s.file).content_hash, s.weight) for s in specs)
    model = Path(args.model).resolve().name if Path(args.model).is_dir() else args.model  # pictures carry no paths

    def recipe(prompt: str, negative_prompt: str, seed: int) -> Recipe:
        settings = (args.steps, args.guidance_scale, args.width, args.height, seed)
        return Recipe(prompt, negative_prompt, *settings, base_model=model, adapters=used)

    return recipe


def _draw(pipe: Any, model: str, recipes: Sequence[Recipe], quiet: bool = False) -> Iterator[Image.Image]:
    """Yield the pictures. They are drawn one by one, as on the page, so a recipe repeats exactly."""
    total, known = sum(recipe.steps for recipe in recipes), inspect.signature(pipe.__call__).parameters
    with tqdm(total=total, unit="step", desc="drawing", disable=quiet or not total) as progress:

        def step_end(pipe, step, timestep, tensors):
            progress.update()
            return tensors

        for recipe in recipes:
            if recipe.negative_prompt and "negative_prompt" not in known:
                raise ValueError(f"A {type(pipe).__name__} takes no negative prompt; leave it out.")
            asked = call_arguments(
                pipe,
                model,
                prompt=recipe.prompt,
                negative_prompt=recipe.negative_prompt,
                num_inference_steps=recipe.steps,
                guidance_scale=recipe.guidance_scale,
                width=recipe.width,
                height=recipe.height,
                generator=torch.Generator("cpu").manual_seed(recipe.seed),
                callback_on_step_end=step_end,
            )
            yield pipe(**asked).images[0]
