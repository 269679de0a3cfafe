"""The recipe in a saved picture: exact round trips, hostile texts, limits, and foreign infotext."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ui.keeping.recipe import (
    INFOTEXT_KEY,
    MAX_ADAPTERS,
    MAX_NAME,
    MAX_PROMPT,
    MAX_TEXT,
    RECIPE_KEY,
    Recipe,
    RecipeError,
    UsedAdapter,
    clean_name,
    from_infotext,
    from_json,
    infotext,
    png_info,
    read_png,
    to_json,
)

HASH = "0123456789abcdef" * 4
PLAIN = Recipe("a cat on a red background", "blurry", 20, 4.5, 64, 96, 123, "embedded")
HOSTILE = [
    'Steps: 1, Seed: 2, Size: 9x9, "quoted", back\\slash',
    "two\nlines\nNegative prompt: not this\nSteps: 3, Seed: 4, Size: 8x8",
    "<img src=x onerror=alert(1)> <lora:a:1> {__import__('os')}",
    "émoji 🦊 и текст 中文",
    "",
]


def write(path, **texts: str):
    chunks = PngInfo()
    for key, text in texts.items():
        chunks.add_text(key, text)
    Image.new("RGB", (8, 8)).save(path, pnginfo=chunks)
    return path


@pytest.mark.parametrize("prompt", HOSTILE)
@pytest.mark.parametrize("negative", HOSTILE)
def test_a_saved_picture_gives_its_recipe_back_exactly(tmp_path, prompt, negative):
    adapters = (UsedAdapter('sub/"a", b: c', HASH, -0.35), UsedAdapter("b", HASH[::-1], 1.0))
    recipe = Recipe(prompt, negative, 7, 5.25, 64, 128, 4294967295, "owner/name", adapters)
    path = tmp_path / "picture.png"
    Image.new("RGB", (8, 8)).save(path, pnginfo=png_info(recipe))
    assert read_png(path) == recipe


def test_infotext_is_the_format_of_the_field():
    recipe = Recipe("a cat", "a dog", 20, 7.0, 64, 96, 5, "embedded", (UsedAdapter("robot", HASH, 0.8),))
    assert infotext(recipe) == (
        "a cat\nNegative prompt: a dog\nSteps: 20, CFG scale: 7, Seed: 5, Size: 64x96, Model: embedded, "
        f'Lily hashes: "robot: {HASH[:12]}", Lily weights: "robot: 0.8", Version: lily_diffusion'
    )


def test_infotext_alone_restores_the_settings():
    recipe = from_infotext(infotext(PLAIN))
    assert recipe == Recipe(PLAIN.prompt, PLAIN.negative_prompt, 20, 4.5, 64, 96, 123)


def test_infotext_of_another_program_is_read(tmp_path):
    text = (
        'a fox,\nin snow\nNegative prompt: fog\nSteps: 30, Sampler: "A, b: c", CFG scale: 7.5, Seed: 9, Size: 512x768'
    )
    recipe = read_png(write(tmp_path / "other.png", **{INFOTEXT_KEY: text}))
    assert (recipe.prompt, recipe.negative_prompt, recipe.steps) == ("a fox,\nin snow", "fog", 30)
    assert (recipe.guidance_scale, recipe.seed, recipe.width, recipe.height) == (7.5, 9, 512, 768)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"steps": 10**6}, "steps"),
        ({"steps": 2.5}, "whole number"),
        ({"steps": "20"}, "steps"),
        ({"steps": True}, "steps"),
        ({"width": 10**9}, "width"),
        ({"guidance_scale": float("nan")}, "guidance"),
        ({"seed": -1}, "seed"),
        ({"prompt": "x" * 3000}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"version": 99}, "version"),
        ({"adapters": [{"name": "a", "content_hash": "../../etc/passwd", "weight": 1}]}, "hash"),
        ({"adapters": [{"name": "a", "content_hash": HASH, "weight": 1e9}]}, "weight"),
        ({"adapters": [{"name": "a", "content_hash": HASH, "weight": float("inf")}]}, "weight"),
        ({"adapters": [{"name": "a", "content_hash": HASH, "weight": "half"}]}, "weight that cannot be read"),
        ({"adapters": [{"name": "a", "content_hash": HASH, "weight": "1@0,99@1"}]}, "weights from -10 to 10"),
        ({"adapters": [{"name": "a", "content_hash": HASH, "weight": "1," * 600 + "1"}]}, "at most 1000 characters"),
        ({"adapters": [{"name": "a", "content_hash": HASH, "weight": 1}] * 101}, "adapters"),
        ({"adapters": "all"}, "adapters"),
        ({"adapters": ["all"]}, "adapter"),
        ({"blend": "magic"}, "one of these blends: sum, cat"),
        ({"blend": ["sum"]}, "blends"),
    ],
)
def test_values_out_of_bounds_are_refused(change, word):
    with pytest.raises(RecipeError, match=word):
        from_json(json.dumps({**json.loads(to_json(PLAIN)), **change}))


def test_a_blend_is_written_where_it_is_no_sum(tmp_path):
    assert "blend" not in to_json(PLAIN) + infotext(PLAIN) and from_json(to_json(PLAIN)).blend == "sum"
    merged = replace(PLAIN, blend="dare_ties")
    Image.new("RGB", (8, 8)).save(tmp_path / "merged.png", pnginfo=png_info(merged))
    assert read_png(tmp_path / "merged.png") == merged and from_infotext(infotext(merged)).blend == "dare_ties"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1", "[" * 5000, "x" * (MAX_TEXT + 1)])
def test_damaged_json_is_one_clear_error(text):
    with pytest.raises(RecipeError):
        from_json(text)


@pytest.mark.parametrize("text", ["", "a prompt only", "a\nSteps: x, Seed: 1, Size: 64x64", "a\nSteps: 5, Seed: 1"])
def test_infotext_without_settings_is_one_clear_error(text):
    with pytest.raises(RecipeError):
        from_infotext(text)


def test_only_readable_png_pictures_are_taken(tmp_path):
    (tmp_path / "no.png").write_bytes(b"\x80\x04 not a picture")
    Image.new("RGB", (8, 8)).save(tmp_path / "jpeg.png", format="JPEG")
    bare = write(tmp_path / "bare.png")
    for name, word in (("no.png", "not a PNG"), ("jpeg.png", "not a PNG"), (bare.name, "no recipe")):
        with pytest.raises(RecipeError, match=word):
            read_png(tmp_path / name)


def test_our_own_text_counts_more_than_the_general_one(tmp_path):
    texts = {INFOTEXT_KEY: "b\nSteps: 1, Seed: 1, Size: 8x8", RECIPE_KEY: to_json(PLAIN)}
    assert read_png(write(tmp_path / "both.png", **texts)) == PLAIN


def test_names_lose_control_and_direction_characters():
    assert clean_name("a\x00b\u202ec\n d\ud800") == "abc d"


def test_the_largest_recipe_that_is_taken_is_read_again():
    weight = ",".join(f"up_blocks.{n}=0.5" for n in range(50))
    adapters = tuple(UsedAdapter("ü" * MAX_NAME, f"{n:0128x}", weight) for n in range(MAX_ADAPTERS))
    recipe = Recipe("ü" * MAX_PROMPT, "ü" * MAX_PROMPT, 7, 5.25, 64, 64, 1, "owner/name", adapters)
    assert from_json(to_json(recipe)) == recipe
