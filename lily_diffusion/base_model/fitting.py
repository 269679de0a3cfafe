"""The loop that trains each part of the embedded base model: AdamW, resumable, with a running average if wished."""

from __future__ import annotations

import argparse
import functools
import math
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from tqdm.auto import tqdm

Loss = Callable[[random.Random], torch.Tensor]


def fit(
    name: str,
    model: nn.Module,
    loss: Loss,
    steps: int,
    lr: float,
    args: argparse.Namespace,
    ema: float | None = None,
    decay: float = 0.2,
) -> None:
    """Minimise `loss(rng)` with AdamW: warm-up, a constant rate, then its linear decay over the last part of `steps`.

    The state is in ``<output_dir>/<name>.pt`` and is picked up again. With `ema`, `model` ends as the running average.
    """
    path = Path(args.output_dir) / f"{name}.pt"
    optimizer = torch.optim.AdamW(model.parameters(), lr, betas=(0.9, 0.99), weight_decay=1e-2, fused=True)
    average = [p.detach().clone() for p in model.parameters()] if ema else []
    start, trend = 0, None
    if path.exists():
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        for p, moments in optimizer.state.items():  # the fused step wants them in the parameters' memory layout
            moments.update({k: torch.empty_like(p).copy_(m) for k, m in moments.items() if m.shape == p.shape})
        average, start, trend = state["average"], state["step"], state["trend"]
    model.train()
    progress, saved = tqdm(range(start, steps), initial=start, total=steps, desc=name, mininterval=10), time.monotonic()
    for step in progress:
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 200, (steps - step) / (decay * steps))
        torch.manual_seed(args.seed * 1_000_003 + step)
        value = loss(random.Random(f"{args.seed} {step}"))
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if ema:
            keep = min(ema, (step + 1) / (step + 10))
            torch._foreach_lerp_(average, [p.detach() for p in model.parameters()], 1 - keep)
        if not math.isfinite(value.item()):
            sys.exit(f"{name}: the loss is {value.item()} at step {step}; start again from {path} with a smaller rate")
        trend = value.item() if trend is None else 0.99 * trend + 0.01 * value.item()
        progress.set_postfix(loss=f"{trend:.4f}", refresh=False)
        if time.monotonic() - saved > 60 * args.checkpointing_minutes or step + 1 == steps:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "average": average}
            state |= {"step": step + 1, "trend": trend}
            atomically(path, functools.partial(torch.save, state))
            saved = time.monotonic()
    if ema:
        for p, a in zip(model.parameters(), average, strict=True):
            p.data.copy_(a)
    model.eval()


def atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write under a temporary name, then rename."""
    temporary = path.with_suffix(".writing")
    write(temporary)
    os.replace(temporary, path)
