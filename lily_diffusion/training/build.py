"""Building a run: pictures, base model, adapter, optimizer, and whatever a checkpoint holds."""

from __future__ import annotations

import argparse
import math
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from accelerate.state import AcceleratorState
from accelerate.utils import ProjectConfiguration, broadcast_object_list
from torch import nn

from ..adapter import LilyAdapter
from ..attach import attach
from ..config import LilyConfig
from ..loaders import check_compatible
from ..save_and_load import WEIGHT_NAME, build_adapter, read_file
from .checkpoints import Progress, find_checkpoint, load_parts, read_progress
from .dataset import Pictures, list_pictures
from .draws import Draws, mixed_seed
from .errors import TrainingError
from .families import Condition, Family, family_class, load_family
from .optimizer import make_optimizer
from .prior import class_items, count_pictures, generate_class_pictures
from .settings import compare, run_settings
from .sources import Source
from .validation import Validation

DTYPES = {"no": None, "fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}


class TrainedModel(nn.Module):
    """The frozen denoiser and the adapter that is attached to it, as one module for accelerate to prepare."""

    def __init__(self, denoiser: nn.Module, adapter: LilyAdapter):
        super().__init__()
        self.denoiser = denoiser
        self.adapter = adapter

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.denoiser(*args, **kwargs, return_dict=False)[0]


@dataclass
class Run:
    """Everything that the loop needs."""

    args: argparse.Namespace
    accelerator: Accelerator
    family: Family
    adapter: LilyAdapter
    model: nn.Module  # TrainedModel as accelerate prepared it
    optimizer: Any
    lr_scheduler: Any
    instances: Source
    classes: Source | None
    embeddings: dict[str, Condition]  # of every caption and validation prompt, and of ""
    validation: Validation | None
    validation_steps: int
    max_train_steps: int
    progress: Progress
    notes: list[str]

    @property
    def output_dir(self) -> Path:
        return Path(self.args.output_dir)

    @property
    def samples_in_step(self) -> int:
        args = self.args
        return args.train_batch_size * args.gradient_accumulation_steps * self.accelerator.num_processes

    @property
    def checkpoint_parts(self) -> dict[str, Any]:
        parts = {"optimizer": self.optimizer, "lr_scheduler": self.lr_scheduler, "scaler": self.accelerator.scaler}
        return {name: part for name, part in parts.items() if part is not None}


def build(args: argparse.Namespace) -> Run:
    """Make a run from completed arguments.

    Raises:
        TrainingError: something in the folders, the base model or the arguments cannot work.
    """
    checkpoint = find_checkpoint(Path(args.output_dir), args.resume_from_checkpoint)
    listing = list_pictures(args.instance_data_dir, args.instance_prompt)
    if args.resolution is None:
        args.resolution = family_class(args).default_resolution
    pictures = Pictures(listing.items, args.resolution)
    accelerator = _accelerator(args)
    progress = _progress(args, checkpoint)
    family = load_family(args)
    family.latent_shape(args.resolution)
    class_pictures = _class_pictures(args, family, accelerator, progress.seed)

    notes = [*listing.notes, *pictures.notes()]
    notes += _cut_captions(family, pictures) + _crop_notes(args, [pictures, class_pictures])
    embeddings = _embeddings(args, family, [pictures, class_pictures], accelerator.device)
    instances = _source(args, family, pictures, "instance", progress.seed, accelerator.device)
    classes = None
    if class_pictures is not None:
        classes = _source(args, family, class_pictures, "class", progress.seed, accelerator.device)
    if args.cache_latents:
        family.pipe.vae.to("cpu")
        if not args.validation_prompt:
            family.free_autoencoder()

    # Module.to, because the model's own warns about casting even where nothing has to stay in float32.
    nn.Module.to(family.denoiser, accelerator.device, DTYPES[accelerator.mixed_precision] or torch.float32)
    adapter = _adapter(args, family.denoiser, checkpoint, progress.seed)
    if args.gradient_checkpointing:
        family.denoiser.enable_gradient_checkpointing()
    samples_in_step = args.train_batch_size * args.gradient_accumulation_steps * accelerator.num_processes
    steps = args.max_train_steps or math.ceil(args.num_train_epochs * len(pictures) * args.repeats / samples_in_step)
    optimizer, lr_scheduler = make_optimizer(args, adapter.parameters(), steps, samples_in_step)
    model, optimizer = accelerator.prepare(TrainedModel(family.denoiser, adapter), optimizer)
    settings = run_settings(args, pictures, class_pictures, accelerator.num_processes)
    run = Run(
        args=args, accelerator=accelerator, family=family, adapter=adapter, model=model, optimizer=optimizer,
        lr_scheduler=lr_scheduler, instances=instances, classes=classes, embeddings=embeddings, validation=None,
        validation_steps=_validation_steps(args, steps, len(pictures), samples_in_step), max_train_steps=steps,
        progress=progress, notes=notes,
    )  # fmt: skip
    run.validation = _validation(run)
    if checkpoint is not None:
        notes += compare(progress.settings, settings)
        load_parts(checkpoint, run.checkpoint_parts)
    progress.settings = settings
    return run


def _accelerator(args: argparse.Namespace) -> Accelerator:
    AcceleratorState._reset_state()  # a process may train more than once, each time with a precision of its own
    folder = Path(args.output_dir)
    accelerator = Accelerator(
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        mixed_precision=args.mixed_precision,
        log_with=None if args.report_to == "none" else args.report_to,
        project_config=ProjectConfiguration(project_dir=str(folder), logging_dir=str(folder / args.logging_dir)),
    )
    if accelerator.distributed_type in (DistributedType.DEEPSPEED, DistributedType.FSDP, DistributedType.MEGATRON_LM):
        raise TrainingError(f"{accelerator.distributed_type.value} would split what layers share; use plain DDP")
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise TrainingError("--mixed_precision fp16 needs a GPU; on the CPU take bf16 or no")
    if accelerator.mixed_precision not in DTYPES:
        raise TrainingError(f"mixed precision {accelerator.mixed_precision} is not supported; take no, fp16 or bf16")
    if args.allow_tf32:
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
    return accelerator


def _progress(args: argparse.Namespace, checkpoint: Path | None) -> Progress:
    if checkpoint is None:
        seed = [args.seed if args.seed is not None else secrets.randbelow(2**31)]
        return Progress(seed=broadcast_object_list(seed)[0])  # one seed for all processes
    progress = read_progress(checkpoint)
    if args.seed not in (None, progress.seed):
        raise TrainingError(f"the checkpoint was made with --seed {progress.seed}; leave --seed out, or give that one")
    return progress


def _class_pictures(args: argparse.Namespace, family: Family, accelerator: Accelerator, seed: int) -> Pictures | None:
    if not args.with_prior_preservation:
        return None
    if accelerator.is_main_process and count_pictures(args.class_data_dir) < args.num_class_images:
        generate_class_pictures(
            family.pipe,
            args.class_data_dir,
            args.class_prompt,
            args.num_class_images,
            batch_size=args.sample_batch_size,
            resolution=args.resolution,
            seed=seed,
            dtype=DTYPES[args.prior_generation_precision or accelerator.mixed_precision],
            device=accelerator.device,
        )
    accelerator.wait_for_everyone()
    return Pictures(class_items(args.class_data_dir, args.class_prompt, args.num_class_images), args.resolution)


def _embeddings(
    args: argparse.Namespace, family: Family, sets: list[Pictures | None], device: torch.device
) -> dict[str, Condition]:
    captions = [item.caption for pictures in sets if pictures is not None for item in pictures.items]
    embeddings = family.encode_prompts([*captions, *(args.validation_prompt or ()), ""], device)
    family.free_text_encoder()
    return embeddings


def _source(
    args: argparse.Namespace,
    family: Family,
    pictures: Pictures,
    stream: str,
    seed: int,
    device: torch.device,
) -> Source:
    draws = Draws(
        seed=seed,
        stream=stream,
        num_pictures=len(pictures),
        latent_shape=family.latent_shape(args.resolution),
        center_crop=args.center_crop,
        random_flip=args.random_flip,
    )
    source = Source(family, pictures, draws, device)
    family.pipe.vae.to(device)
    if args.cache_latents:
        source.cache_latents()
    return source


def _adapter(args: argparse.Namespace, denoiser: nn.Module, checkpoint: Path | None, seed: int) -> LilyAdapter:
    try:
        config = LilyConfig(
            r=args.rank, stride_A=args.stride_A, num_B=args.num_B, scaling=args.scaling, routing=args.routing,
            dropout=args.lily_dropout, target_modules=args.target_modules,
        )  # fmt: skip
        if checkpoint is None:
            with torch.random.fork_rng():
                torch.manual_seed(mixed_seed(seed, "adapter", 0))
                adapter = attach(denoiser, config)
        else:
            header, tensors = read_file(checkpoint / WEIGHT_NAME)
            if header.config != config:
                raise TrainingError(f"the checkpoint holds {header.config}, not {config}; give its flags")
            check_compatible(header, denoiser)
            adapter = attach(
                denoiser, build_adapter(header, tensors, str(checkpoint)).to(next(denoiser.parameters()).device)
            )
    except TrainingError:
        raise
    except ValueError as error:
        raise TrainingError(str(error)) from error
    adapter.float().requires_grad_(True)
    if not any(p.requires_grad and p.numel() for p in adapter.parameters()):
        raise TrainingError("the adapter has no tensor to train, so nothing would be learnt; widen --target_modules")
    return adapter


def _validation_steps(args: argparse.Namespace, steps: int, num_pictures: int, samples_in_step: int) -> int:
    if args.validation_epochs is not None:
        return max(1, round(args.validation_epochs * num_pictures * args.repeats / samples_in_step))
    return args.validation_steps or math.ceil(steps / 4)


def _validation(run: Run) -> Validation | None:
    args = run.args
    if not args.validation_prompt:
        return None
    guidance = args.validation_guidance_scale
    return Validation(
        run.family,
        run.adapter,
        args.validation_prompt,
        run.embeddings,
        resolution=args.resolution,
        num_images=args.num_validation_images,
        guidance_scale=run.family.default_guidance if guidance is None else guidance,
        inference_steps=args.validation_inference_steps,
        device=run.accelerator.device,
    )


def _cut_captions(family: Family, pictures: Pictures) -> list[str]:
    cut = {item.caption: family.truncated(item.caption) for item in pictures.items}
    return [f"the text encoder does not see the end of {c!r}: {rest!r}" for c, rest in cut.items() if rest]


def _crop_notes(args: argparse.Namespace, sets: list[Pictures | None]) -> list[str]:
    oblong = any(w != h for pictures in sets if pictures is not None for w, h in pictures.sizes)
    if args.cache_latents and oblong and not args.center_crop:
        return ["--cache_latents: pictures that are not square are cut in the middle, always at the same place"]
    return []
