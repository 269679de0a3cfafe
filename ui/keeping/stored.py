"""Small JSON files that users save by name: presets (a whole recipe) and styles (texts around a prompt)."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ui.keeping import whole_files
from ui.keeping.recipe import MAX_PROMPT, Recipe, RecipeError, clean_name, clean_text, from_json, to_json

MAX_PRESETS = 500
MAX_STYLES = 200
MAX_BYTES = 2**20  # of one file
SPOT = "{prompt}"  # where a style has the prompt; without one it comes after it


class StoredError(ValueError):
    """A preset or style that cannot be saved or read; the message is for the user."""


@dataclass(frozen=True)
class Style:
    """Texts around a prompt and after a negative prompt."""

    prompt: str
    negative_prompt: str = ""

    def put_on(self, prompt: str, negative_prompt: str) -> tuple[str, str]:
        """Return both prompts in this style."""
        styled = self.prompt.replace(SPOT, prompt) if SPOT in self.prompt else _joined(prompt, self.prompt)
        return styled, _joined(negative_prompt, self.negative_prompt)


class Presets:
    """Recipes by name, each in a file of its own; the file's name is ours, the preset's is in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._files(), key=str.lower)

    def save(self, name: str, recipe: Recipe) -> str:
        """Save a recipe under a name, in place of one that is there, and return the name as it was taken.

        Raises:
            StoredError: the name is empty, or there are too many.
        """
        name = _checked(name)
        files = self._files()
        if name not in files and len(files) >= MAX_PRESETS:
            raise StoredError(f"There are {MAX_PRESETS} presets already. Delete some first.")
        text = json.dumps({"name": name, "recipe": json.loads(to_json(recipe))}, indent=1)
        whole_files.write(self.folder / _file_name(name), text.encode())
        return name

    def load(self, name: str) -> Recipe:
        """Return the recipe of this name.

        Raises:
            StoredError: there is none, or its file is damaged.
        """
        path = self._files().get(str(name))
        if path is None:
            raise StoredError("There is no preset of this name any more.")
        try:
            return from_json(json.dumps(_read(path)["recipe"]))
        except (RecipeError, ValueError, TypeError, KeyError) as error:
            why = error if isinstance(error, RecipeError) else "It cannot be read."
            raise StoredError(f"The preset {name!r} is damaged. {why}") from None

    def delete(self, name: str) -> None:
        """Delete the preset of this name, if there is one."""
        path = self._files().get(str(name))
        if path is not None:
            path.unlink(missing_ok=True)

    def _files(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for path in sorted(self.folder.glob("*.json"))[: 2 * MAX_PRESETS]:
            try:
                data = _read(path)
            except (OSError, ValueError, RecursionError):
                continue
            if isinstance(data, dict) and isinstance(data.get("name"), str) and "recipe" in data:
                found.setdefault(clean_name(data["name"]), path)
        return found


class Styles:
    """Styles by name, all in one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def all(self) -> dict[str, Style]:
        """Name -> style; what is damaged is left out."""
        return self._read()[0]

    def _read(self) -> tuple[dict[str, Style], bool]:
        """The styles that can be read, and whether that is all that is in the file."""
        try:
            data = _read(self.path)
        except FileNotFoundError:
            return {}, True
        except (OSError, ValueError, RecursionError):
            return {}, False
        styles = {}
        for name, entry in list(data.items())[:MAX_STYLES] if isinstance(data, dict) else ():
            texts = [entry.get(key, "") for key in ("prompt", "negative_prompt")] if isinstance(entry, dict) else []
            if texts and all(isinstance(text, str) for text in texts):
                styles[clean_name(name)] = Style(*(clean_text(text, MAX_PROMPT) for text in texts))
        return styles, isinstance(data, dict) and len(styles) == len(data)

    def save(self, name: str, style: Style | None) -> str:
        """Save a style under a name, or delete it (None), and return the name as it was taken.

        Raises:
            StoredError: the name or the style is empty, there are too many, or some cannot be read and would be lost.
        """
        name = _checked(name)
        if style is not None and not (style.prompt.strip() or style.negative_prompt.strip()):
            raise StoredError("Write the style's prompt or negative prompt first.")
        with self._lock:
            styles, whole = self._read()
            if not whole:
                raise StoredError(f"{self.path.name} has something that cannot be read; mend it or move it away first.")
            styles.pop(name, None)
            if style is not None:
                styles[name] = style
            if len(styles) > MAX_STYLES:
                raise StoredError(f"There are {MAX_STYLES} styles already. Delete some first.")
            texts = {n: {"prompt": s.prompt, "negative_prompt": s.negative_prompt} for n, s in sorted(styles.items())}
            data = json.dumps(texts, indent=1).encode()
            if len(data) > MAX_BYTES:
                raise StoredError("The styles have become too long. Delete some first.")
            whole_files.write(self.path, data)
        return name


def _checked(name: str) -> str:
    name = clean_name(str(name or ""))
    if not name:
        raise StoredError("Give it a name first.")
    return name


def _file_name(name: str) -> str:
    letters = "".join(c if c.isascii() and c.isalnum() else "-" for c in name).strip("-")[:40]
    return f"{letters or 'preset'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}.json"


def _read(path: Path) -> Any:
    if path.is_symlink() or path.stat().st_size > MAX_BYTES:
        raise ValueError("The file is no small JSON file of ours.")
    return json.loads(path.read_text(encoding="utf-8"))


def _joined(first: str, second: str) -> str:
    return ", ".join(filter(None, [first.strip().rstrip(","), second.strip()]))
