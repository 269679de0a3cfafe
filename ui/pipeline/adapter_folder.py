"""The folder of adapters: an index of its ``.safetensors`` files, addressed by opaque ids.

Only headers are read (no tensors), only for files that are new or changed. A path never leaves this module towards
the browser and none is ever taken from it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from lily_diffusion import LilyHeader, read_lily_header
from ui.keeping import whole_files
from ui.keeping.recipe import clean_name

SUFFIX = ".safetensors"
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
MAX_FILES = 2000
MAX_UPLOAD_BYTES = 2 * 2**30


class AdapterFolderError(ValueError):
    """A file or an id that cannot be used; the message is for the user and has no paths in it."""


@dataclass(frozen=True, eq=False)
class AdapterFile:
    """One file of the folder. ``header`` is None exactly when ``problem`` says why it cannot be read."""

    id: str  # opaque: stays the same as long as the file keeps its place
    name: str  # for people: the place in the folder without the ending, cleaned
    path: Path
    stamp: tuple[int, int]  # modification time in nanoseconds, bytes
    header: LilyHeader | None
    problem: str | None
    picture: Path | None = None  # beside it: <name>.png, .jpg, .webp, or <name>.preview.*
    picture_stamp: tuple[int, int] = (0, 0)

    @property
    def folder(self) -> str:
        """The sub-folder that it is in, for people; empty for none."""
        return self.name.rpartition("/")[0]

    @property
    def content_hash(self) -> str:
        return self.header.content_hash if self.header else ""


class AdapterFolder:
    """An index over the ``.safetensors`` files in ``root`` and below it (the folder is made when it is missing)."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser().resolve()
        self.root.mkdir(parents=True, exist_ok=True)
        whole_files.sweep(self.root)
        self._lock = threading.Lock()
        self._files: dict[str, AdapterFile] = {}
        self.version = 0  # goes up whenever a scan finds something new, changed or gone
        self.rescan()

    def rescan(self) -> tuple[AdapterFile, ...]:
        """Look through the folder again, reading only headers of new or changed files; return all, sorted by name."""
        with self._lock:
            found = {}
            for path, picture in self._walk():
                entry = self._entry(path, picture)
                found[entry.id] = entry
            if found != self._files:
                self._files = dict(sorted(found.items(), key=lambda item: item[1].name.lower()))
                self.version += 1
        return self.files()

    def files(self) -> tuple[AdapterFile, ...]:
        """Return the files as they were at the last scan."""
        return tuple(self._files.values())

    def get(self, file_id: str) -> AdapterFile:
        """Return the file with this id as it is on the disk now.

        Raises:
            AdapterFolderError: no such id, or the file is gone.
        """
        with self._lock:
            known = self._files.get(file_id)
            if known is None:
                raise AdapterFolderError("This adapter is not in the list any more. Press Rescan.")
            if not known.path.is_file():
                raise AdapterFolderError(f"The file of the adapter '{known.name}' is gone. Press Rescan.")
            self._files[file_id] = self._entry(known.path, known.picture)
            return self._files[file_id]

    def find(self, content_hash: str) -> AdapterFile | None:
        """Return a readable file whose content hash starts with this, 12 characters at least, or None."""
        if len(content_hash) < 12:
            return None
        return next((f for f in self.files() if f.header and f.content_hash.startswith(content_hash)), None)

    def add(self, uploaded: str | Path, shown_name: str) -> AdapterFile:
        """Copy an uploaded file into the folder under a name that we choose, and return its entry.

        Raises:
            AdapterFolderError: it is not a ``.safetensors`` file, too large, or not a Lily adapter.
        """
        uploaded = Path(uploaded)
        if not shown_name.lower().endswith(SUFFIX):
            raise AdapterFolderError(f"Only {SUFFIX} files can be added.")
        if uploaded.stat().st_size > MAX_UPLOAD_BYTES:
            raise AdapterFolderError(f"The file is larger than {MAX_UPLOAD_BYTES // 2**30} GB.")
        _, problem = _read(uploaded)
        if problem is not None:
            raise AdapterFolderError(problem)
        path = self._copy(uploaded, re.split(r"[\\/]", shown_name)[-1][: -len(SUFFIX)])
        self.rescan()
        return self.get(self._id(path))

    def set_picture(self, file_id: str, webp: bytes) -> None:
        """Put a picture beside a file, as ``<name>.preview.webp``, in place of one that was put there like this.

        Raises:
            AdapterFolderError: the file is gone, or has a ``.preview`` of another kind, which stays.
        """
        file = self.get(file_id)
        target = file.path.with_suffix(".preview.webp")
        other = file.picture
        if other is not None and other != target and other.stem == target.stem:
            raise AdapterFolderError(f"The adapter '{file.name}' has a picture that was put there by hand; it stays.")
        whole_files.write(target, webp)
        self.rescan()

    def _copy(self, source: Path, stem: str) -> Path:
        safe = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_-")[:60] or "adapter"
        hidden = self.root / f".upload-{threading.get_ident()}-{time.monotonic_ns()}.part"  # never listed
        try:
            shutil.copyfile(source, hidden)
            for number in range(1, MAX_FILES):
                target = self.root / (safe + ("" if number == 1 else f"_{number}") + SUFFIX)
                if whole_files.take(hidden, target):
                    return target
        finally:
            hidden.unlink(missing_ok=True)
        raise AdapterFolderError("The folder has too many files of this name.")

    def _walk(self) -> Iterator[tuple[Path, Path | None]]:
        """Yield every adapter file and the picture beside it."""
        count = 0
        for folder, folders, names in os.walk(self.root, followlinks=False):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            pictures = {name for name in names if name.endswith(PICTURES)}
            for name in sorted(names):
                path = Path(folder, name)
                if name.endswith(SUFFIX) and not name.startswith(".") and path.is_file():
                    stem = name[: -len(SUFFIX)]
                    beside = (f"{stem}{end}" for end in (*(f".preview{end}" for end in PICTURES), *PICTURES))
                    picture = next((name for name in beside if name in pictures), None)
                    yield path, Path(folder, picture) if picture else None
                    count += 1
                if count >= MAX_FILES:
                    return

    def _id(self, path: Path) -> str:
        return "a" + hashlib.sha256(str(path.relative_to(self.root)).encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def _entry(self, path: Path, picture: Path | None) -> AdapterFile:
        stamp, file_id = _stamp(path), self._id(path)
        seen = (stamp, picture, _stamp(picture) if picture else (0, 0))
        known = self._files.get(file_id)
        if known is not None and (known.stamp, known.picture, known.picture_stamp) == seen:
            return known
        if known is not None and known.stamp == stamp:
            return replace(known, picture=picture, picture_stamp=seen[2])
        name = clean_name(path.relative_to(self.root).with_suffix("").as_posix()) or "unnamed"
        if not path.resolve().is_relative_to(self.root):
            return AdapterFile(file_id, name, path, stamp, None, "A link that leads out of the folder is not followed.")
        return AdapterFile(file_id, name, path, stamp, *_read(path), *seen[1:])


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:  # gone in this moment
        return (0, 0)
    return status.st_mtime_ns, status.st_size


def _read(path: Path) -> tuple[LilyHeader | None, str | None]:
    """Return the header of a file, or the reason why it has none that we can use."""
    try:
        return read_lily_header(path), None
    except Exception as error:  # a hostile header may fail anywhere; the file is listed with its reason
        reason = str(error) if isinstance(error, ValueError) else "The file is damaged or not a safetensors file."
        return None, without_paths(reason, path.parent)[:300]


def without_paths(text: str, *roots: Path) -> str:
    """Return ``text`` without absolute paths: known ``roots`` (which may hold spaces) first, then all that look so."""
    for root in sorted({str(root) for root in (*roots, Path.home(), Path.cwd())}, key=len, reverse=True):
        text = text.replace(root + os.sep, "")
    return re.sub(r"(?<![\w.:/\\])(?:[A-Za-z]:[\\/]|~?/|\\\\)(?:[^\s'\":\\/]+[\\/])*(?=[^\s\\/])", "", text)
