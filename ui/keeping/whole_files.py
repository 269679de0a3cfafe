"""Files that appear whole or not at all, even if the page is killed: written under a hidden name, then renamed."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

LEFT_OVER = 3600  # seconds after which a hidden file is one that somebody was killed over


def write(path: Path, data: bytes) -> None:
    """Write a file, in place of one that is there; its folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    hidden = path.parent / f".{os.getpid()}-{threading.get_ident()}-{time.monotonic_ns()}.part"
    try:
        hidden.write_bytes(data)
        os.replace(hidden, path)
    finally:
        hidden.unlink(missing_ok=True)


def take(hidden: Path, path: Path) -> bool:
    """Give a finished file its name; False when there is a file of that name, which stays."""
    try:
        os.link(hidden, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        try:
            path.open("xb").close()
        except FileExistsError:
            return False
        os.replace(hidden, path)
    return True


def sweep(folder: Path) -> None:
    """Delete hidden files that were left over in a folder."""
    for hidden in folder.glob(".*.part"):
        if time.time() - hidden.stat().st_mtime > LEFT_OVER:
            hidden.unlink(missing_ok=True)
