"""The recipe of a picture: all that is needed to make it again, written into its PNG and read back.

It is stored twice: as the field's infotext (PNG text ``parameters``), which other programs show, and as our own JSON
(PNG text ``lily_recipe``), which is exact. Adapters are named by the hash of their content, never by a path.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lily_diffusion.adapter_weight import parse
from lily_diffusion.interchange.merging import PRUNED, SUMS
from ui.keeping.infotext import named_adapters, quoted, unquoted

INFOTEXT_KEY = "parameters"
RECIPE_KEY = "lily_recipe"
RECIPE_VERSION = 1

MAX_TEXT = 256 * 1024  # characters of infotext or JSON that are read
MAX_FILE_BYTES = 64 * 2**20
MAX_PIXELS = 64 * 10**6
MAX_PROMPT = 2000  # characters
MAX_NAME = 100  # characters of a name that is shown
MAX_STEPS = 150
MAX_GUIDANCE = 30.0
MAX_EDGE = 4096  # pixels
MAX_SEED = 2**32 - 1
MAX_WEIGHT = 10.0  # an adapter weight lies in [-MAX_WEIGHT, MAX_WEIGHT]
MAX_WEIGHT_TEXT = 1000  # characters of a weight that differs by block or step
MAX_WEIGHT_PARTS = 64  # blocks that one weight names
MAX_ADAPTERS = 100

SUM = "sum"  # the adapters as they are, summed at run time
BLENDS = (SUM, *SUMS, *PRUNED)  # the others merge what was frozen of them

_FIELD = re.compile(r'([A-Za-z][\w \-/]{0,40}):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
_HASH = re.compile(r"[0-9a-f]{8,128}")


class RecipeError(ValueError):
    """The picture has no recipe, or one that cannot be used; the message says which."""


@dataclass(frozen=True)
class UsedAdapter:
    """An adapter that took part in a picture: its name for people, its hash for us, and its blend weight.

    The weight is a number, or text where blocks or steps differ (see `lily_diffusion.adapter_weight`).
    """

    name: str
    content_hash: str
    weight: float | str


@dataclass(frozen=True)
class Recipe:
    """All settings of one picture. Sizes are in pixels; ``seed`` is the picture's own; no scheduler: the base's own.

    ``blend``: one of BLENDS, how the adapters are combined.
    """

    prompt: str
    negative_prompt: str
    steps: int
    guidance_scale: float
    width: int
    height: int
    seed: int
    base_model: str = ""
    adapters: tuple[UsedAdapter, ...] = ()
    scheduler: str = ""
    blend: str = SUM


def clean_text(text: str, length: int) -> str:
    """Return ``text`` without control and direction characters (line breaks and tabs stay), cut to ``length``."""
    kept = (c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs"))
    return "".join(kept)[:length]


def clean_name(text: str) -> str:
    """Return a name on one line, without control characters, cut to ``MAX_NAME`` characters."""
    return " ".join(clean_text(text, MAX_NAME).split())


def infotext(recipe: Recipe) -> str:
    """Return the recipe in the field's format: prompt, negative prompt, then one line of ``key: value`` pairs."""
    fields: dict[str, Any] = {
        "Steps": recipe.steps,
        "Sampler": recipe.scheduler,
        "CFG scale": f"{recipe.guidance_scale:g}",
        "Seed": recipe.seed,
        "Size": f"{recipe.width}x{recipe.height}",
        "Model": recipe.base_model,
    }
    if recipe.adapters:
        fields["Lily hashes"] = ", ".join(f"{clean_name(a.name)}: {a.content_hash[:12]}" for a in recipe.adapters)
        fields["Lily weights"] = ", ".join(f"{clean_name(a.name)}: {parse(a.weight)}" for a in recipe.adapters)
    if recipe.blend != SUM:
        fields["Lily blend"] = recipe.blend
    fields["Version"] = "lily_diffusion"
    lines = [recipe.prompt]
    if recipe.negative_prompt:
        lines.append(f"Negative prompt: {recipe.negative_prompt}")
    lines.append(", ".join(f"{key}: {quoted(str(value))}" for key, value in fields.items() if value != ""))
    return "\n".join(lines)


def png_info(recipe: Recipe) -> PngInfo:
    """Return the text chunks to save a picture with (``image.save(file, pnginfo=...)``)."""
    chunks = PngInfo()
    chunks.add_text(INFOTEXT_KEY, infotext(recipe))
    chunks.add_text(RECIPE_KEY, to_json(recipe))
    return chunks


def to_json(recipe: Recipe) -> str:
    """Return the recipe as JSON (ASCII only, so that any program keeps it whole)."""
    values = asdict(recipe)
    if recipe.blend == SUM:  # pictures without it are as they were before there were other blends
        del values["blend"]
    return json.dumps({"version": RECIPE_VERSION, **values})


def from_json(text: str) -> Recipe:
    """Read ``to_json``'s text; every value is checked.

    Raises:
        RecipeError: the text is no recipe, or a value is missing, of the wrong kind or out of bounds.
    """
    if len(text) > MAX_TEXT:
        raise RecipeError(f"The recipe in this picture has {len(text)} characters; at most {MAX_TEXT} are read.")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise RecipeError("The recipe in this picture is damaged: it is not valid JSON.") from None
    if not isinstance(data, dict) or data.get("version") != RECIPE_VERSION:
        raise RecipeError("The recipe in this picture was written by another version of the page.")
    return from_values(data)


def from_values(data: dict[str, Any]) -> Recipe:
    """Make a recipe of values by name; every one is checked.

    Raises:
        RecipeError: a value is missing, of the wrong kind or out of bounds.
    """
    adapters = data.get("adapters", [])
    if not isinstance(adapters, list) or len(adapters) > MAX_ADAPTERS:
        raise RecipeError(f"The recipe in this picture must list at most {MAX_ADAPTERS} adapters.")
    more = {"scheduler": "", "base_model": "", "blend": SUM, **data}
    if more["blend"] not in BLENDS:
        raise RecipeError(f"The recipe in this picture needs one of these blends: {', '.join(BLENDS)}.")
    return Recipe(
        prompt=_text(data, "prompt", MAX_PROMPT),
        negative_prompt=_text(data, "negative_prompt", MAX_PROMPT),
        base_model=clean_name(_text(more, "base_model", MAX_NAME)),
        adapters=tuple(_adapter(entry) for entry in adapters),
        scheduler=clean_name(_text(more, "scheduler", MAX_NAME)),
        blend=more["blend"],
        **_numbers(data),
    )


def from_infotext(text: str) -> Recipe:
    """Read infotext of this page or of another program. The base model is taken from our JSON only.

    Raises:
        RecipeError: there is no line of settings, or a value is out of bounds.
    """
    fields = fields_of(text)
    lines = clean_text(text, MAX_TEXT).strip().split("\n")[:-1]
    if "steps" not in fields or "seed" not in fields:
        raise RecipeError("This picture has text in it, but no settings that can be read.")
    starts = [i for i, line in enumerate(lines) if line.startswith("Negative prompt:")]
    cut = starts[-1] if starts else len(lines)
    size = re.fullmatch(r"(\d{1,5})x(\d{1,5})", fields.get("size", "").strip())
    if size is None:
        raise RecipeError("The settings in this picture have no size.")
    try:
        numbers: dict[str, Any] = {
            "steps": int(fields["steps"]),
            "seed": int(fields["seed"]),
            "guidance_scale": float(fields.get("cfg scale", "1")),
            "width": int(size[1]),
            "height": int(size[2]),
        }
    except ValueError:
        raise RecipeError("The settings in this picture hold something that is not a number.") from None
    karras = " Karras" if fields.get("schedule type", "").strip() == "Karras" else ""
    return from_values(
        {
            **numbers,
            "prompt": "\n".join(lines[:cut]),
            "negative_prompt": "\n".join(lines[cut:]).removeprefix("Negative prompt:").strip(),
            "scheduler": (unquoted(fields.get("sampler", "").strip()) + karras)[:MAX_NAME],
            "adapters": named_adapters(fields),
            "blend": unquoted(fields.get("lily blend", SUM).strip()),
        }
    )


def fields_of(text: str) -> dict[str, str]:
    """The ``key: value`` pairs of infotext's last line, keys in lower case.

    Raises:
        RecipeError: the text is too long.
    """
    if len(text) > MAX_TEXT:
        raise RecipeError(f"The settings in this picture have {len(text)} characters; at most {MAX_TEXT} are read.")
    last = clean_text(text, MAX_TEXT).strip().split("\n")[-1]
    return {key.strip().lower(): value for key, value in _FIELD.findall(last)}


def read_png(path: str | Path) -> Recipe:
    """Return the recipe in a PNG file. Only its text is read; the pixels are not decoded.

    Raises:
        RecipeError: it is no PNG, it is too large, or it has no usable recipe.
    """
    path = Path(path)
    if path.stat().st_size > MAX_FILE_BYTES:
        raise RecipeError(f"The picture is larger than {MAX_FILE_BYTES // 2**20} MB.")
    try:
        with Image.open(path, formats=["PNG"]) as image:
            pixels, texts = image.width * image.height, dict(image.info)
    except Exception:  # Pillow raises many kinds for a damaged or hostile file
        raise RecipeError("This is not a PNG picture that can be read.") from None
    if pixels > MAX_PIXELS:
        raise RecipeError(f"The picture has more than {MAX_PIXELS // 10**6} million pixels.")
    if isinstance(ours := texts.get(RECIPE_KEY), str):
        return from_json(ours)
    if isinstance(general := texts.get(INFOTEXT_KEY), str):
        return from_infotext(general)
    raise RecipeError("This picture has no recipe in it. Pictures saved by this page have one.")


def _text(data: dict[str, Any], key: str, length: int) -> str:
    value = data.get(key)
    if not isinstance(value, str) or len(value) > length:
        raise RecipeError(f"The recipe in this picture needs a {key.replace('_', ' ')} of at most {length} characters.")
    return clean_text(value, length)


def _adapter(entry: Any) -> UsedAdapter:
    if not isinstance(entry, dict):
        raise RecipeError("The recipe in this picture lists an adapter that cannot be read.")
    content_hash = entry.get("content_hash")
    if not isinstance(content_hash, str) or not _HASH.fullmatch(content_hash):
        raise RecipeError("The recipe in this picture names an adapter without a valid content hash.")
    return UsedAdapter(clean_name(_text(entry, "name", MAX_NAME)), content_hash, _weight(entry))


def _weight(entry: dict[str, Any]) -> float | str:
    if not isinstance(entry.get("weight"), str):
        return _number(entry, "weight", -MAX_WEIGHT, MAX_WEIGHT)
    try:
        weight = parse(_text(entry, "weight", MAX_WEIGHT_TEXT))
    except RecipeError:
        raise
    except ValueError as error:
        raise RecipeError(f"The recipe in this picture has a weight that cannot be read: {error}") from None
    if len(weight.parts) > MAX_WEIGHT_PARTS:
        raise RecipeError(f"The recipe in this picture names more than {MAX_WEIGHT_PARTS} blocks in one weight.")
    if any(abs(w) > MAX_WEIGHT for _, frames in weight.parts for _, w in frames.points):
        raise RecipeError(f"The recipe in this picture needs weights from {-MAX_WEIGHT:g} to {MAX_WEIGHT:g}.")
    return weight.plain


def _numbers(data: dict[str, Any]) -> dict[str, Any]:
    whole = {"steps": (1, MAX_STEPS), "width": (8, MAX_EDGE), "height": (8, MAX_EDGE), "seed": (0, MAX_SEED)}
    numbers: dict[str, Any] = {}
    for key, (low, high) in whole.items():
        number = _number(data, key, low, high)
        if number != int(number):
            raise RecipeError(f"The recipe in this picture needs a whole number for {key}.")
        numbers[key] = int(number)
    return {**numbers, "guidance_scale": _number(data, "guidance_scale", 0.0, MAX_GUIDANCE)}


def _number(data: dict[str, Any], key: str, low: float, high: float) -> float:
    value = data.get(key)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:  # type: ignore[operator]  # also false for nan
        raise RecipeError(f"The recipe in this picture needs a {key.replace('_', ' ')} from {low:g} to {high:g}.")
    return value  # type: ignore[return-value]
