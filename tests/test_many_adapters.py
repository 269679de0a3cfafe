"""Adapters come and go: memory stays flat, nothing is left behind, and the thirtieth loads as fast as the third."""

import gc
import statistics
import time
from pathlib import Path

import pytest
import torch

from lily_diffusion import (
    LilyAttnProcessor,
    LilyConfig,
    attach,
    load_lily_weights,
    save_lily_weights,
    unload_lily_weights,
)
from lily_diffusion.state import STATE

from .conftest import awaken, run

STATM = Path("/proc/self/statm")


@pytest.fixture
def file(sd15, tmp_path):
    awaken(attach(sd15, LilyConfig(r=16, num_B=4), "x"))
    path = save_lily_weights(sd15, tmp_path)
    unload_lily_weights(sd15)
    return path


def alive():
    gc.collect()
    return sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())


def resident_bytes():
    return int(STATM.read_text().split()[1]) * 4096


def test_a_hundred_loads_and_unloads(sd15, file):
    base, tensors, rss = run(sd15), [], []
    for i in range(125):
        load_lily_weights(sd15, file, "x")
        if i % 25 == 0:
            assert not torch.equal(run(sd15), base)
        unload_lily_weights(sd15)
        if i in (0, 24, 124):  # counting takes memory itself, the first time
            tensors.append(alive())
            rss += [resident_bytes()] if STATM.exists() else []
    assert tensors[1] == tensors[2]
    assert not rss or rss[2] - rss[1] < 2**20  # bytes, for a hundred files of 0.2 MB and more
    assert STATE not in sd15.__dict__ and torch.equal(run(sd15), base)
    assert not any(isinstance(p, LilyAttnProcessor) for p in sd15.attn_processors.values())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in sd15.modules())


def test_loading_does_not_slow_down(sd15, tmp_path):
    awaken(attach(sd15, LilyConfig(r=4, num_B=2), "x"))
    path = save_lily_weights(sd15, tmp_path)
    unload_lily_weights(sd15)
    seconds = []
    for i in range(60):
        start = time.process_time()
        load_lily_weights(sd15, path, f"x{i}")
        seconds.append(time.process_time() - start)
    assert statistics.median(seconds[50:]) < 1.5 * statistics.median(seconds[2:12])
