"""The base models that speed is measured on, and the rivals that are put on them with as many parameters each."""

from __future__ import annotations

import argparse
import copy
import functools
import importlib.metadata
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import peft
import torch
from diffusers import Flux2Transformer2DModel, FluxTransformer2DModel, UNet2DConditionModel
from torch import Tensor, nn

from benchmarks.measures import RESULTS, conditions
from lily_diffusion import LilyConfig, attach, base_model
from lily_diffusion.sharing import select

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
CONFIG = LilyConfig(r=32, stride_A=4, num_B=4)
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
SIZES = {  # UNets: widths, edge of the latents; transformers: (heads, their width, blocks), edge of the latents
    "tiny": ((32, 64, 64, 64), 8, (2, 32, 1), 4),
    "small": ((128, 256, 512, 512), 32, (8, 64, 2), 16),
    "wide": ((320, 640, 1280, 1280), 32, (24, 128, 1), 16),
    "full": ((320, 640, 1280, 1280), 64, (24, 128, 2), 32),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The flags that every measurement of speed has."""
    add = parser.add_argument
    add("--size", choices=SIZES, default="full" if CUDA else "small",
        help="wide and full have the models' own widths, full their own pictures too")  # fmt: skip
    add("--models", nargs="+", default=[""], metavar="TEXT", help="only those with one of these in their names")
    add("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    add("--rounds", type=int, default=15, help="of steps or calls that are timed; the rivals take turns in each")
    add("--batch_size", type=int, default=2)
    add("--target_modules", nargs="+", default=["attention"], metavar="NAME", help="the layers that all rivals adapt")
    add("--results_dir", default=str(RESULTS))


class Subject(NamedTuple):
    """How a base model is made, on the CPU, and what it is called with."""

    name: str
    make: Callable[[], nn.Module]
    inputs: dict[str, Tensor]


def subjects(size: str, batch: int) -> list[Subject]:
    """The embedded models, and random ones: a UNet as Stable Diffusion 1.5's, blocks of SDXL, FLUX.1 and FLUX.2."""
    torch.manual_seed(0)
    return [*embedded(batch), *unets(size, batch), *transformers(size, batch)]


def chosen(args: argparse.Namespace) -> list[Subject]:
    """The base models that the flags name."""
    return [s for s in subjects(args.size, args.batch_size) if any(text in s.name for text in args.models)]


def facts() -> dict[str, Any]:
    """`conditions`, and what speed depends on besides."""
    on = torch.cuda.get_device_name() if CUDA else f"CPU, {torch.get_num_threads()} threads"
    return {**conditions(), "peft": importlib.metadata.version("peft"), "on": on}


def results_of(name: str, args: argparse.Namespace) -> str:
    """Results at the models' own widths, and those of more layers than attention's, have names of their own."""
    more = "_feed_forward" if "feed-forward" in args.target_modules else ""
    return f"{name}_wide{more}" if args.size in ("wide", "full") else f"{name}{more}"


def config_of(args: argparse.Namespace) -> LilyConfig:
    return replace(CONFIG, target_modules=tuple(args.target_modules))


def layers_of(result: dict[str, Any]) -> str:
    """What the rivals adapt, in words."""
    return "every attention projection" + " and feed-forward layer" * ("feed-forward" in result.get("targets", ()))


def what_of(result: dict[str, Any]) -> str:
    """The end of a heading: which layers, and which widths where they are the models' own."""
    layers = "attention and feed-forward layers" if "feed-forward" in result.get("targets", ()) else "attention alone"
    return f": {layers}{', at the own widths of the models' * (result.get('size') in ('wide', 'full'))}"


def embedded(batch: int) -> list[Subject]:
    t = torch.randint(0, 1000, (batch,))
    unet = {"sample": torch.randn(batch, 8, 16, 16), "encoder_hidden_states": torch.randn(batch, 24, 256)}
    dit = {
        "hidden_states": torch.randn(batch, 8, 16, 16), "encoder_hidden_states": torch.randn(batch, 25, 512),
        "pooled_projections": torch.randn(batch, 512),
    }  # fmt: skip
    return [
        Subject("embedded UNet, 64 pixels", lambda: base_model.load_pipeline().unet, {**unet, "timestep": t}),
        Subject("embedded DiT, 64 pixels", lambda: base_model.load_pipeline("embedded-dit").transformer,
                {**dit, "timestep": t}),
    ]  # fmt: skip


def unets(size: str, batch: int) -> list[Subject]:
    widths, edge, _, _ = SIZES[size]
    unet = functools.partial(
        UNet2DConditionModel, sample_size=edge, block_out_channels=widths, cross_attention_dim=768, attention_head_dim=8
    )
    stack = functools.partial(
        UNet2DConditionModel, sample_size=edge // 2, block_out_channels=widths[-1:], cross_attention_dim=2048,
        attention_head_dim=max(1, widths[-1] // 64), down_block_types=("CrossAttnDownBlock2D",), layers_per_block=1,
        up_block_types=("CrossAttnUpBlock2D",), transformer_layers_per_block=2, use_linear_projection=True,
    )  # fmt: skip
    t = torch.randint(0, 1000, (batch,))
    return [
        Subject(f"UNet of Stable Diffusion 1.5, widths {widths}, {8 * edge} pixels", unet, {
            "sample": torch.randn(batch, 4, edge, edge), "timestep": t,
            "encoder_hidden_states": torch.randn(batch, 77, 768),
        }),
        Subject(f"SDXL blocks, width {widths[-1]}, {edge // 2} x {edge // 2} tokens", stack, {
            "sample": torch.randn(batch, 4, edge // 2, edge // 2), "timestep": t,
            "encoder_hidden_states": torch.randn(batch, 77, 2048),
        }),
    ]  # fmt: skip


def transformers(size: str, batch: int) -> list[Subject]:
    _, _, (heads, width, blocks), side = SIZES[size]
    shape = {"num_layers": blocks, "num_single_layers": 2 * blocks, "num_attention_heads": heads,
             "attention_head_dim": width, "joint_attention_dim": 1024}  # fmt: skip
    flux = functools.partial(
        FluxTransformer2DModel, pooled_projection_dim=768,
        axes_dims_rope=(width // 8, width // 16 * 7, width // 16 * 7), **shape,
    )  # fmt: skip
    flux_2 = functools.partial(
        Flux2Transformer2DModel, in_channels=64, guidance_embeds=False, axes_dims_rope=(width // 4,) * 4, **shape
    )
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    ids = torch.stack([torch.zeros(side * side), rows.flatten(), columns.flatten()], 1).float()
    given = {
        "hidden_states": torch.randn(batch, side * side, 64), "timestep": torch.rand(batch),
        "encoder_hidden_states": torch.randn(batch, 128, 1024),
    }  # fmt: skip
    described = f"blocks, {blocks} double and {2 * blocks} single, width {heads * width}, {16 * side} pixels"
    return [
        Subject(f"FLUX.1 {described}", flux, {
            **given, "pooled_projections": torch.randn(batch, 768), "img_ids": ids, "txt_ids": torch.zeros(128, 3),
        }),
        Subject(f"FLUX.2 {described}", flux_2, {
            **given, "img_ids": torch.cat([ids, torch.zeros(len(ids), 1)], 1), "txt_ids": torch.zeros(128, 4),
        }),
    ]  # fmt: skip


def base_of(subject: Subject, precision: str) -> nn.Module:
    """The frozen base in this precision, where it is to run."""
    model = subject.make().requires_grad_(False)
    return nn.Module.to(model, DEVICE, PRECISIONS[precision])  # the model's own warns even where nothing is kept


def inputs_of(subject: Subject, precision: str) -> dict[str, Tensor]:
    dtype = PRECISIONS[precision]
    return {k: v.to(DEVICE, dtype if v.is_floating_point() else None) for k, v in subject.inputs.items()}


def twin(model: nn.Module) -> Any:
    """A copy to put adapters on; the frozen weights themselves are shared."""
    return copy.deepcopy(model, {id(p): p for p in model.parameters()})


def lily(model: nn.Module, config: LilyConfig) -> list[nn.Parameter]:
    """Attach Lily; returns what is trained."""
    return list(attach(model, config).float().requires_grad_(True).parameters())


def lora(model: Any, config: LilyConfig, rank: int) -> list[nn.Parameter]:
    """Attach LoRA as diffusers' scripts do; returns what is trained, in the base's type."""
    targets = [p.name for p in select(model, config.target_modules)]
    model.add_adapter(peft.LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets))
    return [p for p in model.parameters() if p.requires_grad]


def peft_lily(model: nn.Module, config: LilyConfig) -> peft.PeftModel:
    """Put PEFT's own Lily on a model; its targets are the ends of names, or it would share nothing.

    It cannot name FLUX.2's to_out of single blocks so, because in double blocks that is a list: they stay bare.
    """
    lists = {name.split(".")[-1] for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    targets = sorted({p.attribute for p in select(model, config.target_modules)} - lists)
    theirs = peft.LilyConfig(
        r=config.r, stride_A=config.stride_A, num_B=config.num_B, scaling=config.scaling, target_modules=targets
    )
    return peft.get_peft_model(model, theirs)  # type: ignore[arg-type]


def equal_rank(model: nn.Module, config: LilyConfig) -> int:
    """The LoRA rank whose number of parameters comes nearest to Lily's."""
    layers = select(model, config.target_modules)
    trained = sum(p.numel() for p in lily(twin(model), config))
    return max(1, round(trained / sum(p.in_features + p.out_features for p in layers)))


def seconds(call: Callable[[], Any]) -> float:
    """How long a call takes; on one thread of the CPU, the thread's own time, which other processes hardly change."""
    clock = time.process_time if not CUDA and torch.get_num_threads() == 1 else time.perf_counter
    wait()
    started = clock()
    call()
    wait()
    return clock() - started


def wait() -> None:
    if CUDA:
        torch.cuda.synchronize()
