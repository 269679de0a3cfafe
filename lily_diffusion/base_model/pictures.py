"""The pictures behind the embedded base model: emoji composed on plain backgrounds, with their captions.

Everything is drawn in batches with torch, twice too large and then averaged down, so edges are smooth.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

IMAGE_SIZE = 64  # pixels, width and height of every picture

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (208, 40, 40),
    "orange": (245, 140, 30),
    "yellow": (250, 218, 60),
    "green": (50, 160, 70),
    "teal": (20, 150, 150),
    "blue": (40, 90, 215),
    "purple": (125, 55, 175),
    "pink": (245, 150, 190),
    "brown": (120, 75, 40),
    "black": (18, 18, 20),
    "white": (250, 250, 250),
    "grey": (140, 140, 145),
}
STYLES = ("plain", "small", "two", "sketch", "pixel")

# What the base model knows: the name as it stands in captions -> the code point of its picture.
NAMES: dict[str, str] = {
    "christmas tree": "1f384", "balloon": "1f388", "gift": "1f381", "trophy": "1f3c6", "basketball": "1f3c0",
    "football": "1f3c8", "soccer ball": "26bd", "baseball": "26be", "tennis racket": "1f3be", "dice": "1f3b2",
    "crystal ball": "1f52e", "joystick": "1f579-fe0f", "boxing glove": "1f94a", "kite": "1fa81", "rainbow": "1f308",
    "star": "2b50", "moon": "1f319", "sun": "1f31e", "cloud": "2601-fe0f", "snowflake": "2744-fe0f", "fire": "1f525",
    "droplet": "1f4a7", "ferris wheel": "1f3a1", "tent": "26fa", "house": "1f3e0", "castle": "1f3f0",
    "mountain": "1f3d4-fe0f", "helicopter": "1f681", "airplane": "2708-fe0f", "sailboat": "26f5", "ship": "1f6a2",
    "bus": "1f68c", "taxi": "1f695", "police car": "1f693", "fire engine": "1f692", "tractor": "1f69c",
    "train": "1f686", "bike": "1f6b2", "scooter": "1f6f5", "skateboard": "1f6f9", "anchor": "2693",
    "traffic light": "1f6a5", "flying saucer": "1f6f8", "planet": "1fa90", "hourglass": "231b", "hotdog": "1f32d",
    "taco": "1f32e", "corn": "1f33d", "tomato": "1f345", "eggplant": "1f346", "grapes": "1f347",
    "watermelon": "1f349", "lemon": "1f34b", "banana": "1f34c", "apple": "1f34e", "pear": "1f350", "peach": "1f351",
    "cherries": "1f352", "strawberry": "1f353", "pizza": "1f355", "rice ball": "1f359", "ramen": "1f35c",
    "fries": "1f35f", "sushi": "1f363", "ice cream": "1f366", "doughnut": "1f369", "cookie": "1f36a",
    "lollipop": "1f36d", "cake": "1f370", "beer": "1f37a", "popcorn": "1f37f", "birthday cake": "1f382",
    "croissant": "1f950", "avocado": "1f951", "carrot": "1f955", "fried egg": "1f373", "pancakes": "1f95e",
    "broccoli": "1f966", "pretzel": "1f968", "sandwich": "1f96a", "cheese": "1f9c0", "cupcake": "1f9c1",
    "teapot": "1fad6", "coffee": "2615", "palm tree": "1f334", "tulip": "1f337", "rose": "1f339",
    "hibiscus": "1f33a", "clover": "1f340", "maple leaf": "1f341", "mushroom": "1f344", "tiger": "1f42f",
    "rabbit": "1f430", "cat": "1f431", "dog": "1f436", "pig": "1f437", "panda": "1f43c", "koala": "1f428",
    "lion": "1f981", "fox": "1f98a", "mouse": "1f42d", "cow": "1f42e", "monkey": "1f435", "elephant": "1f418",
    "crocodile": "1f40a", "whale": "1f433", "snail": "1f40c", "snake": "1f40d", "rooster": "1f413", "bee": "1f41d",
    "ladybug": "1f41e", "fish": "1f41f", "chick": "1f423", "parrot": "1f99c", "flamingo": "1f9a9", "duck": "1f986",
    "shark": "1f988", "butterfly": "1f98b", "spider": "1f577-fe0f", "lizard": "1f98e", "squid": "1f991",
    "giraffe": "1f992", "zebra": "1f993", "hedgehog": "1f994", "jellyfish": "1fabc", "lobster": "1f99e",
    "microphone": "1f3a4", "headphones": "1f3a7", "saxophone": "1f3b7", "trumpet": "1f3ba", "drum": "1f941",
    "crown": "1f451", "shirt": "1f454", "dress": "1f457", "handbag": "1f45c", "sneaker": "1f45f",
    "lipstick": "1f484", "ring": "1f48d", "gem": "1f48e", "light bulb": "1f4a1", "bomb": "1f4a3",
    "computer": "1f4bb", "book": "1f4d5", "scroll": "1f4dc", "telephone": "1f4de", "magnet": "1f9f2", "key": "1f511",
    "lock": "1f512", "bell": "1f514", "candle": "1f56f-fe0f", "door": "1f6aa", "chair": "1fa91",
    "shield": "1f6e1-fe0f", "bucket": "1faa3",
}  # fmt: skip

# Never shown to the base model, so that each can be learnt as a new subject: name -> code point.
HELD_OUT: dict[str, str] = {
    "teddy bear": "1f9f8", "robot face": "1f916", "ghost": "1f47b", "owl": "1f989", "rocket": "1f680",
    "snowman": "26c4", "school satchel": "1f392", "dragon face": "1f432", "cactus": "1f335",
    "octopus": "1f419", "guitar": "1f3b8", "t-rex": "1f996", "hamburger": "1f354", "tophat": "1f3a9",
    "violin": "1f3bb", "penguin": "1f427", "crab": "1f980", "sunflower": "1f33b", "steam locomotive": "1f682",
    "jack o lantern": "1f383", "camera": "1f4f7", "alarm clock": "23f0", "tropical fish": "1f420", "frog": "1f438",
    "pineapple": "1f34d", "boot": "1f462", "umbrella": "2602-fe0f", "turtle": "1f422", "unicorn face": "1f984",
    "volcano": "1f30b",
}  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """One picture to draw: what, on which colour, in which style, and how the thing lies in the frame."""

    name: str
    colour: str
    style: str = "plain"  # one of STYLES
    scale: float = 0.84  # edge of the emoji / edge of the picture
    angle: float = 0.0  # degrees, counter-clockwise
    shift: tuple[float, float] = (0.0, 0.0)  # right and down, in picture widths
    gradient: float = 0.0  # the background's brightness changes by this factor from top to bottom

    @property
    def caption(self) -> str:
        return describe(self.name, self.colour, self.style)


def describe(name: str, colour: str | None = None, style: str = "plain") -> str:
    """The caption of a scene, such as ``"a small cat on a red background"``."""
    thing = {
        "plain": f"{article(name)} {name}",
        "small": f"a small {name}",
        "two": f"two {name}",
        "sketch": f"a pencil sketch of {article(name)} {name}",
        "pixel": f"pixel art of {article(name)} {name}",
    }[style]
    return f"{thing} on {article(colour)} {colour} background" if colour else thing


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def random_scene(name: str, rng: random.Random, style: str | None = None, colour: str | None = None) -> Scene:
    """Draw a pose, a style (plain six times in ten) and a colour for `name`."""
    style = style or rng.choices(STYLES, (6, 1, 1, 1, 1))[0]
    scene = Scene(
        name,
        colour or rng.choice(list(COLOURS)),
        style,
        scale=rng.uniform(0.80, 0.90),
        angle=rng.uniform(-6, 6),
        shift=(rng.uniform(-0.03, 0.03), rng.uniform(-0.03, 0.03)),
        gradient=rng.uniform(-0.08, 0.08),
    )
    if style == "small":
        return replace(scene, scale=rng.uniform(0.38, 0.46), shift=(rng.uniform(-0.15, 0.15), rng.uniform(-0.15, 0.15)))
    if style == "two":
        return replace(scene, scale=rng.uniform(0.46, 0.52))
    return scene


def draw(scenes: Sequence[Scene], emoji: dict[str, torch.Tensor], size: int = IMAGE_SIZE) -> torch.Tensor:
    """Draw scenes from the emoji's pictures.

    Args:
        scenes: what to draw (B of them).
        emoji: name -> picture of shape (4, H, W), RGBA in [0, 1], all of one size.
        size: width and height of the result, in pixels.

    Returns:
        Pictures of shape (B, 3, size, size) in [-1, 1].
    """
    big = 2 * size
    ramp = torch.linspace(-0.5, 0.5, big).view(1, 1, big, 1)
    paper = torch.stack([torch.tensor(COLOURS[s.colour]) / 255 for s in scenes]).view(-1, 3, 1, 1)
    picture = paper * (1 + torch.tensor([s.gradient for s in scenes]).view(-1, 1, 1, 1) * ramp) + torch.zeros(big, big)
    rgba = torch.stack([emoji[s.name] for s in scenes])
    rgba = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], dim=1)  # premultiplied, so that edges stay clean
    for side in (-1, 1):
        chosen = [i for i, s in enumerate(scenes) if s.style == "two" or side == 1]
        if chosen:
            theta = torch.stack([_pose(scenes[i], side) for i in chosen])
            grid = F.affine_grid(theta, [len(chosen), 4, big, big], align_corners=False)
            layer = F.grid_sample(rgba[chosen], grid, align_corners=False)
            picture[chosen] = picture[chosen] * (1 - layer[:, 3:]) + layer[:, :3]
    picture = F.avg_pool2d(picture, 2).clamp(0, 1)
    for style, paint in (("sketch", _sketch), ("pixel", _pixel)):
        chosen = [i for i, s in enumerate(scenes) if s.style == style]
        if chosen:
            picture[chosen] = paint(picture[chosen])
    return picture * 2 - 1


def _pose(scene: Scene, side: int) -> torch.Tensor:
    """The (2, 3) matrix from picture coordinates to emoji coordinates."""
    turn = torch.tensor(scene.angle * side).deg2rad()
    x = 2 * scene.shift[0] + (0.48 * side if scene.style == "two" else 0.0)
    y = 2 * scene.shift[1] * (side if scene.style == "two" else 1)
    rotation = (
        torch.stack([torch.cos(turn), -torch.sin(turn), torch.sin(turn), torch.cos(turn)]).view(2, 2) / scene.scale
    )
    return torch.cat([rotation, rotation @ torch.tensor([[-x], [-y]])], dim=1)


def _sketch(picture: torch.Tensor) -> torch.Tensor:
    """Dark lines where the brightness changes; the ground keeps its colour, paler."""
    grey = picture.mean(1, keepdim=True)
    sobel = torch.tensor([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]]).view(1, 1, 3, 3)
    padded = F.pad(grey, (1, 1, 1, 1), mode="replicate")
    edges = torch.sqrt(F.conv2d(padded, sobel) ** 2 + F.conv2d(padded, sobel.transpose(2, 3)) ** 2)
    line = (edges * 0.9).clamp(0, 1)
    ground = picture[:, :, :2, :2].mean((2, 3), keepdim=True)
    paper = ground + 0.15 * (grey - grey.mean((2, 3), keepdim=True))
    return (paper * (1 - line) + torch.where(ground.mean(1, keepdim=True) < 0.35, 0.95, 0.12) * line).clamp(0, 1)


def _pixel(picture: torch.Tensor) -> torch.Tensor:
    """Blocks of 4x4 pixels in few colours."""
    small = (F.avg_pool2d(picture, 4) * 7).round() / 7
    return F.interpolate(small, scale_factor=4.0, mode="nearest")


def load_emoji(folder: str, codes: dict[str, str], size: int = 128) -> dict[str, torch.Tensor]:
    """Read ``folder/<code point>.webp`` for every name: name -> (4, size, size), RGBA in [0, 1]."""
    emoji = {}
    for name, code in codes.items():
        with Image.open(Path(folder) / f"{code}.webp") as picture:
            small = picture.convert("RGBA").resize((size, size), Image.Resampling.LANCZOS)
        emoji[name] = torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255
    return emoji
