"""Mutations of a valid adapter file, taken in as the page does: none may crash it, take long, or take much memory.

python -m tests.fuzz_adapters --count 10000
"""

from __future__ import annotations

import argparse
import json
import random
import struct
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from lily_diffusion import check_compatible, delete_adapters, load_lily_weights
from lily_diffusion.base_model import load_pipeline
from lily_diffusion.header import METADATA_KEY
from tests.test_ui_session import save_adapter
from ui.pipeline.adapter_folder import AdapterFolder, AdapterFolderError

ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**31, 2**63, 10**30, 1.5, -1e308, float("nan"), float("inf"), "", "../../etc/passwd", "\0",
    "x" * 10_000, "<img src=x>", [], [[]] * 1000, {}, {"a": {}}, "to_q", "unet", "1e999",
)  # fmt: skip
SECONDS = 2.0
MEGABYTES = 200  # that the process may grow by


class Mutations:
    """An endless source of damaged copies of a safetensors file; the same seed gives the same."""

    def __init__(self, data: bytes, seed: int = 0) -> None:
        self.data, self.random = data, random.Random(seed)
        self.length = struct.unpack("<Q", data[:8])[0]
        self.kinds = (self.bits, self.cut, self.grow, self.repeat, self.announce, self.header, self.ours, self.weights)

    def next(self) -> tuple[str, bytes]:
        """The name of the kind, and the file."""
        kind = self.random.choice(self.kinds)
        return kind.__name__, kind()

    def bits(self) -> bytes:
        made = bytearray(self.data)
        end = self.random.choice((8, 64, 8 + self.length, len(made)))
        for _ in range(self.random.choice((1, 1, 4, 64))):
            made[self.random.randrange(end)] = self.random.randrange(256)
        return bytes(made)

    def cut(self) -> bytes:
        return self.data[: self.random.choice((self.random.randrange(64), self.random.randrange(len(self.data))))]

    def grow(self) -> bytes:
        at = self.random.choice((0, 8, 8 + self.length, len(self.data)))
        return self.data[:at] + self.random.randbytes(self.random.randrange(1, 256)) + self.data[at:]

    def repeat(self) -> bytes:
        at, size = self.random.randrange(len(self.data)), self.random.randrange(1, 4096)
        return self.data[: at + size] + self.data[at : at + size] * self.random.choice((1, 50)) + self.data[at + size :]

    def announce(self) -> bytes:
        length = self.random.choice((0, 1, self.length - 1, self.length + 1, 2**32, 2**63, 2**64 - 1))
        return struct.pack("<Q", length) + self.data[8:]

    def header(self) -> bytes:
        head = json.loads(self.data[8 : 8 + self.length])
        self._change(head)
        return self._with(head)

    def ours(self) -> bytes:
        head = json.loads(self.data[8 : 8 + self.length])
        ours = json.loads(head["__metadata__"][METADATA_KEY])
        for _ in range(self.random.choice((1, 1, 3))):
            self._change(ours)
        head["__metadata__"][METADATA_KEY] = json.dumps(ours)
        return self._with(head)

    def weights(self) -> bytes:
        made = bytearray(self.data)
        at = 8 + self.length + 4 * self.random.randrange((len(made) - 8 - self.length) // 4)
        made[at : at + 4] = struct.pack("<f", self.random.choice((float("nan"), float("inf"), 3e38, 0.0)))
        return bytes(made)

    def _with(self, head: Any) -> bytes:
        text = json.dumps(head).encode()
        return struct.pack("<Q", len(text)) + text + self.data[8 + self.length :]

    def _change(self, tree: Any) -> None:
        """Put something odd at a random place, take it away, or give it another name."""
        while True:
            keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
            key = self.random.choice(keys)
            if isinstance(tree[key], (dict, list)) and tree[key] and self.random.random() < 0.8:
                tree = tree[key]
                continue
            what = self.random.random()
            if what < 0.7:
                tree[key] = self.random.choice(ODD)
            elif what < 0.85:
                del tree[key]
            elif isinstance(tree, dict):
                tree[str(self.random.choice(ODD))[:100]] = tree.pop(key)
            else:
                tree.append(tree[key])
            return


def run(folder: Path, count: int, seed: int = 0) -> Counter[str]:
    """Take in ``count`` mutations; returns how often each came to which end.

    Raises:
        AssertionError: one crashed, took long, took much memory, or told a path.
    """
    pipe = load_pipeline()
    good = save_adapter(pipe.unet, folder, "good.safetensors", seed=1, trigger_words=("sks robot",))
    mutations, process = Mutations(good.read_bytes(), seed), psutil.Process()
    adapters, ends, upload = AdapterFolder(folder / "adapters"), Counter[str](), folder / "upload"
    before = process.memory_info().rss
    for number in range(count):
        kind, data = mutations.next()
        upload.write_bytes(data)
        begun = time.process_time()  # the machine may be busy with other things
        try:
            ends[_take_in(adapters, upload, pipe, folder)] += 1
        except Exception as error:
            raise AssertionError(f"mutation {number} ({kind}): {type(error).__name__}: {error}") from error
        spent = time.process_time() - begun
        assert spent < SECONDS, f"mutation {number} ({kind}) took {spent:.1f} s"
    grown = (process.memory_info().rss - before) / 2**20
    assert grown < MEGABYTES, f"{grown:.0f} MB more after {count} mutations"
    return ends


def _take_in(adapters: AdapterFolder, upload: Path, pipe: Any, folder: Path) -> str:
    """Add, check, load, as the page would; where loading fails without a sentence, the page tells the error's kind."""
    try:
        added = adapters.add(upload, "x.safetensors")
    except AdapterFolderError as refused:
        assert str(folder) not in str(refused) and len(str(refused)) <= 400, refused
        return "not added"
    try:
        check_compatible(added.header, pipe)
        load_lily_weights(pipe, str(added.path), adapter_name="fuzzed")
        delete_adapters(pipe, "fuzzed")
        return "loaded"
    except ValueError:
        return "not loaded"
    except (TypeError, RuntimeError, OverflowError) as error:
        return f"not loaded, {type(error).__name__}"
    finally:
        added.path.unlink()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        start = time.monotonic()
        print(dict(run(Path(made), args.count, args.seed)), f"{time.monotonic() - start:.0f} s")
