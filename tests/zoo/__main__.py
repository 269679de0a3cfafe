"""Check Lily on diffusers' denoisers, as tiny models with random weights.

python -m tests.zoo                          all of them
python -m tests.zoo Flux "Stable Diffusion"  those whose name has one of these words in it
python -m tests.zoo --write                  all of them, into docs/models.md
"""

import argparse
import platform
import sys
import time
from pathlib import Path

import diffusers
import torch

from lily_diffusion.testing import Report, check_model

from . import LEFT_OUT, ZOO, build

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", default=[""], help="parts of names")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    args = parser.parse_args()
    names = [name for name in ZOO if any(word.lower() in name.lower() for word in args.words)]
    reports = {}
    for name in names:
        started = time.monotonic()
        reports[name] = check_model(*build(name))
        print(f"\n{name}, {time.monotonic() - started:.1f} s\n{reports[name]}")
    if args.write:
        PAGE.write_text(page(reports))
        print(f"\nwritten to {PAGE}")
    return 0 if all(report.ok for report in reports.values()) else 1


def page(reports: dict[str, Report]) -> str:
    lines = [TEXT.format(count=len({n.split(" (")[0] for n in reports}), rows=len(reports), versions=versions())]
    lines += ["| class | attention modules | adapted layers | remarks |", "|---|---|---|---|"]
    for name, report in sorted(reports.items()):
        projections = ", ".join(f"`{key}` {count}" for key, count in report.projections.items())
        lines.append(f"| {name} | {report.attentions} | {projections} | {remarks(report)} |")
    lines += ["\nLeft out:\n", *(f"- {name}: {reason}." for name, reason in LEFT_OUT.items())]
    return "\n".join(lines) + "\n"


def remarks(report: Report) -> str:
    """What did not pass, or could not be tried, or is worth knowing; empty for most."""
    found = []
    for check, passed in report.passed.items():
        note = report.notes.get(check, "").removeprefix("but for layers that the model does not use: ")
        if passed is False:
            found.append(f"**{check}: no** {note}")
        elif passed is None:
            found.append(f"{check}: {note or 'the model alone has none or fails with it'}")
        elif note:
            layers = note.split(", ")
            found.append(f"not used by the model: {layers[0]}" + (f" and {len(layers) - 1} more" if layers[1:] else ""))
    return "; ".join(found).replace("|", "/")


def versions() -> str:
    return f"diffusers {diffusers.__version__}, torch {torch.__version__}, Python {platform.python_version()}, on a CPU"


TEXT = """# Models

Lily was tried on {count} of diffusers' denoiser classes, in {rows} tiny configurations of the real classes with random
weights in float32 ({versions}), on all attention
projections and feed-forward layers. This page is written by `python -m tests.zoo --write`; the tests run the same
checks.

Every row has passed these, but for what its remarks say:

- **fresh adapter is exact**: attaching changes no bit of the output;
- **adapter changes output**, once its experts are not zero;
- **every tensor has gradient**, but where the model itself does not use a layer;
- **gradient checkpointing** gives the same gradients;
- **saved and loaded**: the file, loaded into the bare model, gives the same bits;
- **weight 0 is exact**, and two adapters **blend in any order** to the same bits;
- **in forward order**: layers that share an A are neighbours in the order in which the model runs them;
- **detached without a trace**: outputs, processors, keys and flags are as before.

Try your own model: `from lily_diffusion.testing import check_model; print(check_model(model, inputs))`.

Attention projections are adapted through the processors. Every other linear layer can be adapted too, through a hook:
the feed-forward ones of all blocks by the word `feed-forward` in `target_modules`, any other by the end of its name
(`time_embedding.linear_2`, `norm1.linear`, a perceiver's `to_kv`). `feed-forward` leaves out the experts of a mixture,
which see a part of the tokens, and stands for nothing in Sana's models, which have convolutions there. Out of reach
are convolutions, what belongs to an IP-Adapter (`encoder_hid_proj`), and layers whose weights are used without a call
(HunyuanDiT's pooler). A layer that is given one vector for each picture, such as those of the timestep, routes each by
itself. Where a model runs padded tokens through its layers, they count in the routing's mean like any other. After
`enable_forward_chunking` along the tokens a feed-forward layer routes each chunk by itself, which is another picture:
use it along the batch, or routing `token` or `static`.

Of the pipelines that can be trained, Z-Image, Qwen-Image and Lumina-Image 2.0 pad the prompts of a batch to the longest
one inside the denoiser (Z-Image in steps of 32 tokens). Beside a longer prompt, an adapter there draws another picture
of a prompt than alone; the longest prompt's picture is the same. So draw prompts of different lengths one at a time, or
train with `--routing token` or `static`, whose routers average over no tokens. With guidance, Z-Image has the empty
prompt in the same batch, so that a single prompt that needs more steps of 32 than the empty one has this too. All other
pipelines give every prompt the same number of tokens, and draw together what they draw alone (`tests/test_padding.py`).
In training, samples of one length go through these denoisers together, and none depends on its batch mates.

## What may come after attaching

On a UNet and on a DiT the adapter's effect is still exactly there after each of these (`tests/test_events.py`,
`tests/test_compile.py`, `tests/test_quantised.py`; on a CPU, the xformers kernel replaced by PyTorch's): other
attention processors, one for all or by name, set or assigned; xformers on and off; attention slicing;
`set_attention_backend`; fused and unfused projections; an IP-Adapter or a PEFT LoRA loaded before or after, and
unloaded; FreeU; gradient checkpointing; another dtype; layerwise casting; accelerate's offload and diffusers' group
offload; copying and pickling; `save_pretrained` of the base; first-block cache, pyramid attention broadcast and
FasterCache; bases quantised by torchao or bitsandbytes; `torch.compile` with a full graph, before or after loading,
where neither other weights nor other prompts compile anything anew. Two things ask for a word: after
`attention.processor = ...` in a compiled model, call `lily_diffusion.refresh(model)`; without it the next call
raises an error. And a text encoder must have its adapter before it is compiled.

## The classes
"""

if __name__ == "__main__":
    sys.exit(main())
