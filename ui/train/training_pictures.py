"""The pictures that somebody wants to train on: read safely, copied, looked at, and cut as training will cut them."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ui.keeping.recipe import clean_name, clean_text
from ui.pipeline.orders import SessionError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MAX_PICTURES = 24
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 64 * 10**6
MAX_EDGE = 2048  # pixels; larger pictures are made smaller, which no training here can see
MAX_CAPTION = 300  # characters
MAX_FOLDERS = 200
ALIKE = 10.0  # mean difference of two pictures at 16 x 16 pixels, of 255
KEPT = 24 * 3600  # seconds that pictures nobody trained on are kept
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Looked:
    """One picture of a draft: our copy, what it was called, how large it was, and its caption if it brought one."""

    path: Path
    name: str
    size: tuple[int, int]  # (width, height) as given
    caption: str


@dataclass(frozen=True)
class Draft:
    """Pictures that were looked at, and what is to be said about them."""

    id: str
    pictures: tuple[Looked, ...]
    notes: tuple[str, ...]


class Drafts:
    """Checked pictures in folders of their own below ``root``, and the server's folders that may be looked through."""

    def __init__(self, root: Path, server_folder: Path | None = None) -> None:
        self.root = root
        self.server_folder = server_folder.expanduser().resolve() if server_folder else None
        self._drafts: dict[str, Draft] = {}

    def folders(self) -> dict[str, str]:
        """Opaque id -> name of each sub-folder of the server's folder that holds pictures."""
        return {_folder_id(path): clean_name(path.name) for path in self._sub_folders()}

    def of_folder(self, folder_id: str) -> Draft:
        """Look at the pictures of one of ``folders``. Raises SessionError as ``make`` does."""
        found = next((path for path in self._sub_folders() if _folder_id(path) == folder_id), None)
        if found is None:
            raise SessionError("This folder of pictures is not there any more.")
        return self.make([path for path in sorted(found.iterdir()) if _is_picture(path) or _is_caption(path)])

    def make(self, files: Sequence[Path]) -> Draft:
        """Copy the pictures, upright and without anything but pixels, and look at them.

        Text files among them are captions of the pictures that have their names.

        Raises:
            SessionError: there are none or too many; files that cannot be read are left out with a note.
        """
        captions = {file.stem: file for file in files[: 2 * MAX_PICTURES] if file.suffix.lower() == ".txt"}
        files = [file for file in files if file.suffix.lower() != ".txt"]
        if not 1 <= len(files) <= MAX_PICTURES:
            raise SessionError(f"Training takes 1 to {MAX_PICTURES} pictures; these are {len(files)}.")
        self._clean()
        draft_id = secrets.token_hex(8)
        folder = self.root / draft_id
        folder.mkdir(parents=True)
        pictures: list[Looked] = []
        notes = []
        for file in files:
            name = clean_name(file.name) or "unnamed"
            try:
                picture = read(file)
            except SessionError as problem:
                notes.append(f"{name} is left out: {problem}")
                continue
            target = folder / f"{len(pictures) + 1:02}.png"
            size = picture.size
            picture.thumbnail((MAX_EDGE, MAX_EDGE), Image.Resampling.LANCZOS)
            picture.save(target)
            pictures.append(Looked(target, name, size, _caption(captions.get(file.stem))))
        if not pictures:
            shutil.rmtree(folder)
            raise SessionError("None of these files is a picture that can be read (PNG, JPEG, WebP or BMP).")
        draft = Draft(draft_id, tuple(pictures), (*notes, *_alike(pictures)))
        self._drafts[draft_id] = draft
        return draft

    def get(self, draft_id: object) -> Draft:
        """Raises SessionError when there is no such draft."""
        draft = self._drafts.get(draft_id) if isinstance(draft_id, str) else None
        if draft is None or not all(picture.path.is_file() for picture in draft.pictures):
            raise SessionError("Choose the pictures again: they are not kept any more.")
        return draft

    def _sub_folders(self) -> Iterator[Path]:
        if self.server_folder is None or not self.server_folder.is_dir():
            return
        entries = sorted(os.scandir(self.server_folder), key=lambda entry: entry.name)
        inside = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
        for path in [path for path in inside if not path.name.startswith(".")][:MAX_FOLDERS]:
            if any(map(_is_picture, path.iterdir())):
                yield path

    def _clean(self) -> None:
        for folder in self.root.glob("*"):
            if _ID.fullmatch(folder.name) and folder.stat().st_mtime < time.time() - KEPT:
                shutil.rmtree(folder, ignore_errors=True)
                self._drafts.pop(folder.name, None)


def read(file: Path) -> Image.Image:
    """Read one picture as upright RGB, transparent parts white.

    Raises:
        SessionError: it is too large, or no picture that can be read.
    """
    if file.stat().st_size > MAX_BYTES:
        raise SessionError(f"the file is larger than {MAX_BYTES // 2**20} MB.")
    try:
        with Image.open(file, formats=FORMATS) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise SessionError(f"it has more than {MAX_PIXELS // 10**6} million pixels.")
            picture = ImageOps.exif_transpose(opened).convert("RGBA")
    except SessionError:
        raise
    except Exception:  # Pillow raises many kinds for a damaged or hostile file
        raise SessionError("it is no picture that can be read.") from None
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def cut(path: Path, edge: int) -> Image.Image:
    """The square of ``edge`` pixels that training takes of a picture when it keeps encoded pictures."""
    from lily_diffusion.training.dataset import Item, Pictures

    pixels = Pictures([Item(path, "")], [(edge, edge)]).pixels(0, (0.5, 0.5), flip=False)
    return Image.fromarray(((pixels.permute(1, 2, 0) + 1) * 127.5).round().byte().numpy())


def caption_of(text: object) -> str:
    """A caption on one line. Raises SessionError when it is empty or too long."""
    line = " ".join(clean_text(text, MAX_CAPTION + 1).split()) if isinstance(text, str) else ""
    if not 1 <= len(line) <= MAX_CAPTION:
        raise SessionError(f"Every picture needs a caption of at most {MAX_CAPTION} characters.")
    return line


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file() and not path.is_symlink() and path.name[0] != "."


def _is_caption(path: Path) -> bool:
    return path.suffix == ".txt" and path.is_file() and not path.is_symlink()


def _caption(file: Path | None) -> str:
    if file is None or not file.is_file():
        return ""
    with file.open(encoding="utf-8", errors="replace") as text:
        return " ".join(clean_text(text.read(4 * MAX_CAPTION), MAX_CAPTION).split())


def _folder_id(path: Path) -> str:
    return "p" + hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]


def _alike(pictures: Sequence[Looked]) -> list[str]:
    """A note for every picture that looks like an earlier one."""
    prints = [_small(picture.path) for picture in pictures]
    notes = []
    for i, mine in enumerate(prints):
        twin = next((j for j in range(i) if np.abs(prints[j] - mine).mean() < ALIKE), None)
        if twin is not None:
            notes.append(f"Pictures {twin + 1} and {i + 1} look alike: one of them may be enough.")
    return notes


def _small(path: Path) -> np.ndarray:
    with Image.open(path) as opened:
        return np.asarray(opened.convert("RGB").resize((16, 16), Image.Resampling.BOX), dtype=np.float32)
