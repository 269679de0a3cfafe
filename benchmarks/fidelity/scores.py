"""What a trained method is worth: pictures that it draws, beside true pictures of the subject and beside the base's."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from benchmarks.fidelity.learning import named
from benchmarks.measures import as_tensor, background_colours, percent
from lily_diffusion import base_model
from lily_diffusion.base_model.likeness import Likeness
from lily_diffusion.base_model.pictures import COLOURS, NAMES, STYLES, describe, draw, random_scene

STEPS, GUIDANCE, SEED = 15, 3.0, 1000  # of drawing; each prompt takes the next seed
POSES = 4  # true pictures of each scene that a drawn one is compared with
STYLE_COLOURS = ("blue", "white")  # on which every style but the plain one is asked for
SAME = 4  # pictures of one prompt, for diversity
UNRELATED = 20  # prompts of other things, for drift


class Truths(NamedTuple):
    """Features of true pictures of a subject that it was not learnt from."""

    plain: Tensor  # (colours, POSES, 1280)
    styled: Tensor  # (STYLE_COLOURS, STYLES, POSES, 1280)


def truths_of(subject: str, emoji: dict[str, Tensor], likeness: Likeness) -> Truths:
    rng = random.Random(f"measure {subject}")
    plain = [random_scene(subject, rng, style="plain", colour=colour) for colour in COLOURS for _ in range(POSES)]
    styled = [
        random_scene(subject, rng, style=style, colour=colour)
        for colour in STYLE_COLOURS for style in STYLES for _ in range(POSES)
    ]  # fmt: skip
    return Truths(
        likeness.features(draw(plain, emoji)).view(len(COLOURS), POSES, -1),
        likeness.features(draw(styled, emoji)).view(len(STYLE_COLOURS), len(STYLES), POSES, -1),
    )


def unrelated_prompts() -> list[str]:
    rng = random.Random("drift")
    colours = list(COLOURS)
    return [describe(name, colours[i % len(colours)]) for i, name in enumerate(rng.sample(list(NAMES), UNRELATED))]


def unrelated_features(pipe: Any, model: str, likeness: Likeness) -> Tensor:
    """Of the unrelated prompts as the pipeline draws them, always from the same noise."""
    return likeness.features(as_tensor(drawn(pipe, model, unrelated_prompts(), SEED + 300)))


@torch.no_grad()
def drawn(pipe: Any, model: str, prompts: list[str], first_seed: int = SEED) -> list[Image.Image]:
    """One picture a prompt, always from the same noise, under bf16 autocast."""
    options = {**base_model.CALL_OPTIONS.get(model, {}), "guidance_scale": GUIDANCE}
    generators = [torch.Generator().manual_seed(first_seed + i) for i in range(len(prompts))]
    with torch.autocast("cpu", torch.bfloat16):
        return pipe(prompts, num_inference_steps=STEPS, generator=generators, **options).images


def measured(
    pipe: Any, model: str, subject: str, word: str, truths: Truths, base_features: Tensor | None, likeness: Likeness
) -> tuple[dict[str, float], list[Image.Image]]:
    """The scores of a pipeline that has learnt a subject, and what it drew of the subject.

    Args:
        base_features: `unrelated_features` of the base alone; None leaves diversity and drift out.
    """
    styles = [(colour, style) for colour in STYLE_COLOURS for style in STYLES[1:]]
    plain = drawn(pipe, model, [named(subject, word, colour) for colour in COLOURS])
    styled = drawn(pipe, model, [named(subject, word, colour, style) for colour, style in styles], SEED + 100)

    plain_cosines = torch.einsum("cd,cpd->c", likeness.features(as_tensor(plain)), truths.plain) / POSES
    features = likeness.features(as_tensor(styled)).view(len(STYLE_COLOURS), len(STYLES) - 1, -1)
    by_style = torch.einsum("cad,cspd->cas", features, truths.styled) / POSES  # asked for, like
    asked = torch.arange(1, len(STYLES))
    styled_cosines = by_style[:, asked - 1, asked]
    right_style = by_style.argmax(-1) == asked
    colours = [*COLOURS, *(colour for colour, style in styles if style != "sketch")]  # a sketch's ground is paler
    pictures = [*plain, *(image for image, (_, style) in zip(styled, styles, strict=True) if style != "sketch")]
    seen = background_colours(as_tensor(pictures))
    scores = {
        "similarity": plain_cosines.mean().item(),
        "styled_similarity": styled_cosines.mean().item(),
        "style": percent(right_style.flatten().tolist()),
        "colour": percent([a == b for a, b in zip(seen, colours, strict=True)]),
    }
    if base_features is not None:
        alike = likeness.features(as_tensor(drawn(pipe, model, [named(subject, word, "white")] * SAME, SEED + 200)))
        scores["diversity"] = 1 - (alike @ alike.T)[~torch.eye(SAME, dtype=torch.bool)].mean().item()
        others = unrelated_features(pipe, model, likeness)
        scores["drift"] = (1 - (others * base_features).sum(1).mean().item()) / 2
    return {name: round(value, 4) for name, value in scores.items()}, plain + styled
