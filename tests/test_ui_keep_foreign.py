"""Settings out of pictures of other programs, of JPEG and WebP, and what is said of what does not apply."""

from __future__ import annotations

import json

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.test_ui_session import files, id_of, make, session  # noqa: F401
from ui.keeping.foreign import read_picture
from ui.keeping.recipe import INFOTEXT_KEY, MAX_SEED, RecipeError, infotext, png_info, to_json

# ruff: noqa: F811
A1111 = (
    "a (red:1.2) fox, <lora:fox_v2:0.8>, in snow <lyco:ink:1>\nNegative prompt: fog\n"
    "Steps: 30, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 9, Size: 512x768, Model hash: ab12, "
    'Model: dreamy, Clip skip: 2, Hires upscale: 2, Hires upscaler: Latent, Lora hashes: "fox_v2: 1234", Version: v1.9'
)
FOOOCUS = {
    "prompt": "a fox", "negative_prompt": "fog", "steps": 30, "guidance_scale": 4.0, "resolution": "(832, 1216)",
    "sampler": "dpmpp_2m_sde_gpu", "scheduler": "karras", "seed": str(2**60), "base_model": "juggernautXL",
    "styles": "['Fooocus V2']", "loras": [["offset.safetensors", 0.1, "ab"]], "version": "Fooocus v2.5.5",
}  # fmt: skip


def png(path, text: str):
    chunks = PngInfo()
    chunks.add_text(INFOTEXT_KEY, text)
    Image.new("RGB", (8, 8)).save(path, pnginfo=chunks)
    return path


def test_a1111_as_far_as_it_applies(tmp_path):
    recipe, notes = read_picture(png(tmp_path / "a.png", A1111))
    assert (recipe.prompt, recipe.negative_prompt) == ("a (red:1.2) fox, in snow", "fog")
    assert (recipe.steps, recipe.guidance_scale, recipe.seed, recipe.scheduler) == (30, 7.5, 9, "DPM++ 2M Karras")
    said = " ".join(notes)
    assert all(word in said for word in ("fox_v2, ink", "clip skip", "upscaling", "brackets", "'dreamy'"))
    assert len(notes) == 5


def test_fooocus_as_far_as_it_applies(tmp_path):
    recipe, notes = read_picture(png(tmp_path / "a.png", json.dumps(FOOOCUS)))
    assert (recipe.prompt, recipe.negative_prompt, recipe.steps) == ("a fox", "fog", 30)
    assert (recipe.width, recipe.height, recipe.scheduler) == (832, 1216, "DPM++ 2M SDE")
    assert 0 <= recipe.seed <= MAX_SEED
    said = " ".join(notes)
    assert all(word in said for word in ("offset.safetensors", "Fooocus V2", "juggernautXL", "seed"))


def test_what_does_not_fit_the_base_model_is_made_to_fit_and_told(session, tmp_path):
    recipe, weights, notes = session.restore(png(tmp_path / "a.png", json.dumps(FOOOCUS)))
    assert (recipe.width, recipe.height, weights) == (40, 64, {}) and "832 by 1216" in " ".join(notes)
    assert len(make(session, prompt=recipe.prompt, width=recipe.width, height=recipe.height, steps=1)) == 1
    recipe, _, notes = session.restore(png(tmp_path / "b.png", A1111))
    assert recipe.scheduler == "" and "no scheduler 'DPM++ 2M Karras'" in " ".join(notes)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize("encoding", ["utf-16-be", "utf-16-le", "ascii", "bare"])
def test_the_comment_of_jpeg_and_webp_is_read(tmp_path, kind, encoding):
    head = {"ascii": b"ASCII\0\0\0", "bare": b""}.get(encoding, b"UNICODE\0")
    codec = encoding if "16" in encoding else "ascii"
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = head + A1111.encode(codec)
    Image.new("RGB", (8, 8)).save(tmp_path / "a", format=kind, exif=exif)
    assert read_picture(tmp_path / "a") == read_picture(png(tmp_path / "a.png", A1111))


def test_our_own_infotext_alone_finds_the_adapters_again(session, tmp_path):
    robot, ink = id_of(session, "robot"), id_of(session, "styles/ink")
    (picture,) = make(session, weights={robot: "1@0,0.25@1,mid=0", ink: -0.5}, scheduler="Euler")
    path = png(tmp_path / "a.png", infotext(picture.recipe))
    recipe, weights, notes = session.restore(path)
    assert weights == {robot: "1@0,0.25@1,mid=0", ink: -0.5} and recipe.scheduler == "Euler" and notes == []


def test_a_recipe_or_preset_as_json_is_read_too(session, tmp_path):
    (picture,) = make(session)
    for number, text in enumerate(
        (to_json(picture.recipe), json.dumps({"name": "x", "recipe": json.loads(to_json(picture.recipe))}))
    ):
        path = tmp_path / f"{number}.json"
        path.write_text(text)
        assert session.restore(path)[0] == picture.recipe


HOSTILE = [
    "{", "{}", '{"recipe": 1}', '{"a":' * 3000, "[]", '{"prompt": "x", "steps": "many", "seed": 1, "resolution": "1"}',
    '{"prompt": "x", "steps": 1e999, "seed": 1, "resolution": "(8, 8)"}', "Steps: 1",
    "a\nSteps: 1, Seed: " + "9" * 5000,
    json.dumps({**FOOOCUS, "steps": 10**9}), json.dumps({**FOOOCUS, "resolution": "(99999, 1)"}),
    "a\n" + 'Steps: 1, Seed: 1, Size: 8x8, Lily hashes: "' + "a: 0123456789ab, " * 500 + '"',
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_settings_are_one_clear_error(tmp_path, text):
    for path in (png(tmp_path / "a.png", text), tmp_path / "b.json"):
        if path.suffix == ".json":
            path.write_text(text)
        with pytest.raises(RecipeError) as caught:
            read_picture(path)
        assert str(tmp_path) not in str(caught.value)


def test_values_of_the_wrong_kind_in_foreign_settings_do_no_harm(tmp_path):
    odd = {**FOOOCUS, "loras": [[], "x", [5]], "styles": {"a": 1}, "sampler": None, "base_model": ["x"]}
    recipe, notes = read_picture(png(tmp_path / "a.png", json.dumps(odd)))
    assert recipe.steps == 30 and len(notes) == 4


def test_a_picture_of_ours_is_read_exactly(session, tmp_path):
    (picture,) = make(session)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=png_info(picture.recipe))
    assert read_picture(tmp_path / "a.png") == (picture.recipe, [])
