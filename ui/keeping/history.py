"""The pictures of the output folder, by day: found, searched, deleted, all by opaque ids.

An index beside them (a line of JSON a picture) saves reading every file again. It is a copy of what the files say:
where it is missing, torn or behind, it is made again from them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ui.keeping import whole_files
from ui.keeping.recipe import MAX_PROMPT, Recipe, RecipeError, clean_text, read_png

DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
NAME = re.compile(r"\d{5,9}-\d{1,10}\.png")
MAX_PICTURES = 20_000  # the newest; older ones stay on the disk and are not listed
MAX_FOUND = 60


class HistoryError(ValueError):
    """A picture that is not there; the message is for the user."""


@dataclass(frozen=True)
class Entry:
    """A picture that was made: ``place`` is its day and name in the output folder."""

    id: str
    place: str
    stamp: tuple[int, int]  # modification time in nanoseconds, bytes
    prompt: str
    seed: int

    @property
    def day(self) -> str:
        return self.place.partition("/")[0]


class History:
    """An index over ``root/<day>/<number>-<seed>.png``, kept in ``index``."""

    def __init__(self, root: Path, index: Path) -> None:
        self.root, self.index = root, index
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}  # by place
        self._read_index()
        self.refresh()

    def refresh(self) -> None:
        """Make the list what the folder holds, reading only pictures that are new or changed."""
        with self._lock:
            found, new = {}, False
            for place, stamp in self._walk():
                known = self._entries.get(place)
                if known is None or known.stamp != stamp:
                    known, new = _entry(self.root, place, stamp), True
                found[place] = known
            if new or found.keys() != self._entries.keys():
                self._entries = found
                self._write_index()

    def add(self, path: Path, recipe: Recipe) -> str:
        """Take in a picture that was saved just now, and return its id."""
        status = path.stat()
        place = path.relative_to(self.root).as_posix()
        entry = Entry(_id(place), place, (status.st_mtime_ns, status.st_size), recipe.prompt, recipe.seed)
        with self._lock:
            self._entries[place] = entry
            self.index.parent.mkdir(parents=True, exist_ok=True)
            with self.index.open("a", encoding="utf-8") as file:
                file.write(_line(entry))
        return entry.id

    def days(self) -> list[str]:
        """The days that have pictures, the newest first."""
        return sorted({entry.day for entry in tuple(self._entries.values())}, reverse=True)

    def find(self, day: str | None = None, search: str | None = None) -> list[Entry]:
        """Return the newest pictures, of a day and with all searched words in their prompt, where these are given."""
        wanted = (search or "").lower().split()
        fits = (
            entry
            for entry in self._newest()
            if (not day or entry.day == day) and all(word in entry.prompt.lower() for word in wanted)
        )
        return [entry for entry, _ in zip(fits, range(MAX_FOUND), strict=False)]

    def prompts(self, count: int = 30) -> list[str]:
        """The prompts of the newest pictures, each once."""
        newest = self._newest()
        return list(dict.fromkeys(entry.prompt for entry in newest if entry.prompt))[:count]

    def path(self, picture_id: str) -> Path:
        """Return the file of a picture.

        Raises:
            HistoryError: there is no such picture, or it is gone.
        """
        return self.root / self._get(picture_id).place

    def has(self, picture_id: str) -> bool:
        """Whether there is such a picture."""
        try:
            return self._get(picture_id) is not None
        except HistoryError:
            return False

    def delete(self, picture_id: str) -> None:
        """Delete a picture from the disk. Raises as `path`."""
        entry = self._get(picture_id)
        (self.root / entry.place).unlink(missing_ok=True)
        with self._lock:
            self._entries.pop(entry.place, None)
            self._write_index()

    def _newest(self) -> list[Entry]:
        return sorted(tuple(self._entries.values()), key=lambda entry: entry.place, reverse=True)

    def _get(self, picture_id: str) -> Entry:
        entry = next((e for e in tuple(self._entries.values()) if e.id == picture_id), None)
        if entry is None or not _is_picture(self.root / entry.place):
            raise HistoryError("This picture is not there any more.")
        return entry

    def _walk(self) -> list[tuple[str, tuple[int, int]]]:
        """(place, stamp) of the pictures on the disk, the newest days first, at most MAX_PICTURES."""
        found: list[tuple[str, tuple[int, int]]] = []
        days = [entry.name for entry in _scan(self.root) if DAY.fullmatch(entry.name) and _is_folder(entry)]
        for day in sorted(days, reverse=True):
            for entry in _scan(self.root / day):
                if NAME.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    found.append((f"{day}/{entry.name}", (status.st_mtime_ns, status.st_size)))
            if len(found) >= MAX_PICTURES:
                break
        return found[:MAX_PICTURES]

    def _read_index(self) -> None:
        try:
            lines = self.index.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return
        for line in lines:
            try:
                entry = _from_line(json.loads(line))
            except (ValueError, TypeError, KeyError, RecursionError):  # torn while it was written
                continue
            self._entries[entry.place] = entry

    def _write_index(self) -> None:
        whole_files.write(self.index, "".join(map(_line, self._entries.values())).encode())


def _entry(root: Path, place: str, stamp: tuple[int, int]) -> Entry:
    try:
        recipe = read_png(root / place)
    except (RecipeError, OSError):
        return Entry(_id(place), place, stamp, "", -1)
    return Entry(_id(place), place, stamp, recipe.prompt, recipe.seed)


def _line(entry: Entry) -> str:
    return json.dumps([entry.place, entry.stamp, entry.prompt, entry.seed]) + "\n"


def _from_line(data: Any) -> Entry:
    place, (changed, size), prompt, seed = data
    day, _, name = place.partition("/")
    if not DAY.fullmatch(day) or not NAME.fullmatch(name):
        raise ValueError("The index names what is no picture.")
    return Entry(_id(place), place, (int(changed), int(size)), clean_text(str(prompt), MAX_PROMPT), int(seed))


def _id(place: str) -> str:
    return "p" + hashlib.sha256(place.encode()).hexdigest()[:16]


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False)


def _is_picture(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and not path.parent.is_symlink()
