"""What attaching costs: microseconds that one attention call takes longer with Lily's wrapper and nothing to add.

    python -m benchmarks.wrapper_cost

An adapter is attached and switched off, so that only the wrapper is left; tiny tensors and one thread leave nothing but
calls. Bare and wrapped calls take turns, and the fastest of many rounds counts, so that other work on the machine
weighs little.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_flux import FluxAttention, FluxAttnProcessor
from torch import nn

from benchmarks.measures import RESULTS, conditions, write_results
from lily_diffusion import LilyConfig, attach
from lily_diffusion.blend import set_enabled

CALLS = 200  # in each round


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--results_dir", default=str(RESULTS))
    return parser.parse_args(argv)


def attentions() -> dict[str, tuple[nn.Module, dict[str, Any]]]:
    """Name -> (attention module, inputs): four projections, and eight of a double-stream block."""
    x, text = torch.randn(1, 4, 16), torch.randn(1, 3, 16)
    single = Attention(query_dim=16, heads=2, dim_head=8)
    joint = FluxAttention(
        query_dim=16,
        heads=2,
        dim_head=8,
        added_kv_proj_dim=16,
        context_pre_only=False,
        bias=True,
        processor=FluxAttnProcessor(),
    )
    return {
        "Attention, 4 projections": (single, {"hidden_states": x}),
        "FluxAttention, 8 projections": (joint, {"hidden_states": x, "encoder_hidden_states": text}),
    }


class Alone(nn.Module):
    """A model that is one attention module."""

    def __init__(self, attention: nn.Module):
        super().__init__()
        self.attention = attention

    def forward(self, **inputs: Any) -> Any:
        return self.attention(**inputs)


def microseconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - started) / CALLS * 1e6


@torch.no_grad()
def overhead(attention: nn.Module, inputs: dict[str, Any], rounds: int) -> tuple[float, float]:
    """Microseconds of a bare call, and how many more one takes through the wrapper."""
    bare, wrapped = Alone(attention.eval()), Alone(copy.deepcopy(attention).eval())
    attach(wrapped, LilyConfig(r=4))
    set_enabled(wrapped, False)
    times: dict[str, list[float]] = {"bare": [], "wrapped": []}
    for _ in range(rounds):
        times["bare"].append(microseconds(lambda: bare.attention(**inputs)))
        times["wrapped"].append(microseconds(lambda: wrapped.attention(**inputs)))
    return min(times["bare"]), min(times["wrapped"]) - min(times["bare"])


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rows = {}
    for name, (attention, inputs) in attentions().items():
        bare, more = overhead(attention, inputs, args.rounds)
        rows[name] = {"bare_us": round(bare, 1), "wrapper_us": round(more, 1)}
    lines = [
        "# What the wrapper costs\n",
        "| attention | bare call, us | more through the wrapper, us |",
        "|---|---|---|",
    ]
    lines += [f"| {name} | {row['bare_us']} | {row['wrapper_us']} |" for name, row in rows.items()]
    write_results("wrapper_cost", {"calls": rows, "conditions": conditions()}, "\n".join(lines), Path(args.results_dir))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
