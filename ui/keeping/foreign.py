"""Settings out of dropped pictures: our own recipe, or as far as they apply those of A1111 and of Fooocus.

PNG text and the comment in the EXIF data of JPEG and WebP are read; the pixels are not decoded.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from ui.keeping.recipe import (
    INFOTEXT_KEY,
    MAX_FILE_BYTES,
    MAX_PIXELS,
    MAX_SEED,
    MAX_TEXT,
    RECIPE_KEY,
    Recipe,
    RecipeError,
    clean_name,
    fields_of,
    from_infotext,
    from_json,
    from_values,
)

EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
LORA = re.compile(r"<(?:lora|lyco|hypernet):([^:<>]{1,200})(?::[^<>]{0,200})?>")
UNKNOWN = {  # keys of A1111's line for what this page has not, and what people call it
    "clip skip": "clip skip", "hires upscale": "the upscaling pass", "hires upscaler": "the upscaling pass",
    "refiner": "the refiner", "variation seed": "the variation seed", "face restoration": "face restoration",
    "vae": "the VAE", "controlnet 0": "ControlNet", "ti": "textual inversions", "ti hashes": "textual inversions",
    "mask blur": "inpainting", "denoising strength": "the picture that it started from",
}  # fmt: skip
FOOOCUS_SAMPLERS = {
    "ddim": "DDIM", "euler": "Euler", "euler_ancestral": "Euler a", "dpmpp_2m": "DPM++ 2M", "heun": "Heun",
    "dpmpp_2m_sde": "DPM++ 2M SDE", "dpmpp_2m_sde_gpu": "DPM++ 2M SDE", "dpm_2": "DPM2", "uni_pc": "UniPC",
    "ddpm": "DDPM",
}  # fmt: skip


def read_picture(path: str | Path) -> tuple[Recipe, list[str]]:
    """Return the recipe in a picture, or in a JSON file of ours, and notes on what in it does not apply here.

    Raises:
        RecipeError: it cannot be read, it is too large, or it has no usable settings.
    """
    path = Path(path)
    if path.stat().st_size > MAX_FILE_BYTES:
        raise RecipeError(f"The file is larger than {MAX_FILE_BYTES // 2**20} MB.")
    with path.open("rb") as file:
        start = file.read(MAX_TEXT + 1)
    if start.lstrip()[:1] == b"{":
        return from_json(_recipe_in(start)), []
    texts = _texts(path)
    if ours := texts.get(RECIPE_KEY):
        return from_json(ours), []
    general = texts.get(INFOTEXT_KEY, "")
    if not general:
        raise RecipeError("This picture has no recipe in it. Pictures saved by this page have one.")
    return _from_fooocus(general) if general.lstrip().startswith("{") else _from_a1111(general)


def _recipe_in(data: bytes) -> str:
    """The recipe's JSON in a file that is it, or that is a preset."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise RecipeError("This JSON file is damaged, or longer than a recipe.") from None
    return json.dumps(found.get("recipe", found) if isinstance(found, dict) else None)


def _texts(path: Path) -> dict[str, str]:
    try:
        with Image.open(path, formats=["PNG", "JPEG", "WEBP"]) as image:
            pixels, texts = image.width * image.height, dict(image.info)
            # Where there is no EXIF before the pixels, Pillow would decode them to look for it behind.
            exif = image.getexif() if "exif" in texts and pixels <= MAX_PIXELS else Image.Exif()
            comment = exif.get_ifd(EXIF_IFD).get(USER_COMMENT)
    except Exception:  # Pillow raises many kinds for a damaged or hostile file
        raise RecipeError("This is not a PNG picture that can be read, nor JPEG or WebP.") from None
    if pixels > MAX_PIXELS:
        raise RecipeError(f"The picture has more than {MAX_PIXELS // 10**6} million pixels.")
    found = {str(key): text for key, text in texts.items() if isinstance(text, str)}
    if INFOTEXT_KEY not in found and isinstance(comment, bytes):
        found[INFOTEXT_KEY] = _comment(comment[: 4 * MAX_TEXT])
    return found


def _comment(raw: bytes) -> str:
    """The text of an EXIF comment, whose first 8 bytes name its encoding."""
    kind, body = raw[:8], raw[8:]
    if kind.startswith(b"UNICODE"):
        little = body[1:2] == b"\0"
        return body.decode("utf-16-le" if little else "utf-16-be", "replace")
    return (body if kind[:5] in (b"ASCII", b"\0\0\0\0\0") else raw).decode("utf-8", "replace")


def _from_a1111(text: str) -> tuple[Recipe, list[str]]:
    recipe, fields = from_infotext(text), fields_of(text)
    notes = [_not_here(what) for what in dict.fromkeys(UNKNOWN[key] for key in fields if key in UNKNOWN)]
    if loras := LORA.findall(recipe.prompt):
        notes.append(f"It used {_listed(loras)}, which are no Lily adapters: they are left out.")
        recipe = replace(recipe, prompt=_tidy(LORA.sub("", recipe.prompt)))
    if re.search(r"\([^()]+:[\d.]+\)", recipe.prompt):
        notes.append("This page reads weights in brackets, such as (cat:1.2), as plain text.")
    if "lily_diffusion" not in fields.get("version", "") and (model := clean_name(fields.get("model", ""))):
        notes.append(f"It was made with the base model '{model}'.")
    return recipe, notes


def _from_fooocus(text: str) -> tuple[Recipe, list[str]]:
    if len(text) > MAX_TEXT:
        raise RecipeError(f"The settings in this picture have {len(text)} characters; at most {MAX_TEXT} are read.")
    try:
        data = json.loads(text)
        size = re.findall(r"\d{1,5}", str(data["resolution"]))
        values: dict[str, Any] = {
            "prompt": str(data["prompt"]),
            "negative_prompt": str(data.get("negative_prompt", "")),
            "steps": int(data["steps"]),
            "guidance_scale": float(data.get("guidance_scale", 1)),
            "width": int(size[0]),
            "height": int(size[1]),
            "seed": int(data["seed"]),
        }
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError):
        raise RecipeError("This picture has text in it, but no settings that can be read.") from None
    notes = []
    if not 0 <= values["seed"] <= MAX_SEED:
        notes.append("Its seed is larger than this page takes: another is set.")
        values["seed"] = abs(values["seed"]) % (MAX_SEED + 1)
    sampler = str(data.get("sampler", ""))
    scheduler = FOOOCUS_SAMPLERS.get(sampler, clean_name(sampler))
    if scheduler == "DPM++ 2M" and data.get("scheduler") == "karras":
        scheduler = "DPM++ 2M Karras"
    loras = data.get("loras")
    if isinstance(loras, list) and (names := [str(entry[0]) for entry in loras if isinstance(entry, list) and entry]):
        notes.append(f"It used {_listed(names)}, which are no Lily adapters: they are left out.")
    if (styles := str(data.get("styles", "[]"))) not in ("[]", "()", ""):
        notes.append(f"Its styles {clean_name(styles)} are not here.")
    if model := clean_name(str(data.get("base_model", ""))):
        notes.append(f"It was made with the base model '{model}'.")
    return from_values({**values, "scheduler": scheduler}), notes


def _not_here(what: str) -> str:
    return f"It was made with {what}, which this page has not."


def _listed(names: list[str]) -> str:
    shown = [clean_name(name)[:40] for name in dict.fromkeys(names)]
    return ", ".join(shown[:5]) + (f" and {len(shown) - 5} more" if len(shown) > 5 else "")


def _tidy(prompt: str) -> str:
    return re.sub(r"(?:\s*,)+\s*$|^\s*,\s*", "", re.sub(r",(?:\s*,)+", ",", prompt)).strip()
