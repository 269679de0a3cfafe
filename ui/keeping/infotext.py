"""How infotext writes values in its line of settings: quoted if need be, adapters as names with hashes and weights."""

from __future__ import annotations

import json
import re
from typing import Any


def quoted(text: str) -> str:
    """The text as one value of the line."""
    return json.dumps(text, ensure_ascii=False) if set(text) & set(',:\n"') else text


def unquoted(value: str) -> str:
    """The inverse of `quoted`."""
    try:
        return str(json.loads(value)) if value.startswith('"') else value
    except ValueError:
        return value


def named_adapters(fields: dict[str, str]) -> list[dict[str, Any]]:
    """The adapters of our own infotext: their names with the starts of their hashes, then their weights."""
    found = re.findall(r"(.{0,100}?): ([0-9a-f]{12,64})(?:, |$)", unquoted(fields.get("lily hashes", "")))
    rest, adapters = unquoted(fields.get("lily weights", "")), []
    for number, (name, content_hash) in enumerate(found):
        after = f", {found[number + 1][0]}: " if number + 1 < len(found) else "\0"
        weight, _, rest = rest.removeprefix(f"{name}: ").partition(after)
        rest = f"{after[2:]}{rest}"
        adapters.append({"name": name, "content_hash": content_hash, "weight": weight})
    return adapters
