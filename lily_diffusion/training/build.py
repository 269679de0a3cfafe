"""Building a run: pictures, base model, adapters, optimizer, and whatever a checkpoint holds."""

from __future__ import annotations

import argparse
import datetime
import itertools
import math
import os
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, ProjectConfiguration, broadcast_object_list
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..adapter import LilyAdapter
from ..attach import attach
from ..components import as_in_model, denoiser
from ..config import LilyConfig
from ..loaders import check_compatible
from ..save_and_load import WEIGHT_NAME, build_adapters, read_file
from .build_data import Data, list_data, make_source, read_data
from .checkpoints import Progress, find_checkpoint, load_parts, read_progress
from .config_file import version_notes
from .disk_cache import DiskCache
from .draws import mixed_seed
from .ema import Ema
from .errors import TrainingError
from .families import Family, family_class, load_family
from .held_out import HeldOut
from .optimizer import make_optimizer
from .prior import missing_pictures
from .prompts import Prompts
from .run import Run, TrainedModel
from .settings import compare, run_settings
from .validation import Validation

DTYPES = {"no": None, "fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}
PATIENCE = datetime.timedelta(days=2)  # processes wait so long for the one that draws or saves


def build(args: argparse.Namespace) -> Run:
    """Make a run from completed arguments.

    Raises:
        TrainingError: something in the folders, the base model or the arguments cannot work.
    """
    _refuse_what_splits_tensors()
    checkpoint = find_checkpoint(Path(args.output_dir), args.resume_from_checkpoint)
    listings = list_data(args)
    family_class(args).check_flags(args)
    accelerator = _accelerator(args)
    if accelerator.mixed_precision != "no":  # it may come from accelerate's own settings, and is one of the run's
        args.mixed_precision = accelerator.mixed_precision
    progress = _progress(args, checkpoint)
    dtype = DTYPES[accelerator.mixed_precision] or torch.float32
    args.class_dtype = DTYPES[args.prior_generation_precision or accelerator.mixed_precision]
    family = load_family(args, torch.float32 if _draws_exactly(args) else dtype)
    args.resolution = args.resolution or family.native_resolution
    data = read_data(args, listings, family, accelerator, progress.seed)
    for encoder in family.text_encoders().values():
        _cast(encoder, dtype)
    disk = DiskCache(Path(args.disk_cache_dir)) if args.disk_cache_dir else None
    texts = [*data.captions, *(args.validation_prompt or ()), *filter(None, [args.class_prompt]), ""]
    prompts = Prompts(family, texts, accelerator.device, disk, args.train_text_encoder)
    if not args.train_text_encoder:
        family.free_text_encoder()
    instances, classes, held_out = _sources(args, family, data, progress.seed, accelerator.device, disk)

    _place(family.denoiser, accelerator.device, dtype, args.quantize_base is not None)
    adapters = _adapters(args, family, checkpoint, progress.seed)
    if args.gradient_checkpointing:
        family.denoiser.enable_gradient_checkpointing()
    if args.compile_base:
        _compile(family.denoiser)
    samples_in_step = args.train_batch_size * args.gradient_accumulation_steps * accelerator.num_processes
    steps = args.max_train_steps or math.ceil(
        args.num_train_epochs * len(data.instances) * args.repeats / samples_in_step
    )
    optimizer, lr_scheduler = make_optimizer(args, _parameter_groups(args, adapters), steps, samples_in_step)
    trained = TrainedModel(family.denoiser, adapters)
    _leave_the_base_alone(trained)
    model, optimizer = accelerator.prepare(trained, optimizer)
    settings = run_settings(args, data.instances, data.classes, accelerator.num_processes)
    run = Run(
        args=args, accelerator=accelerator, family=family, adapters=adapters, trained=trained, model=model,
        optimizer=optimizer, lr_scheduler=lr_scheduler, ema=None, instances=instances, classes=classes,
        prompts=prompts, validation=None, held_out=None,
        validation_steps=_validation_steps(args, steps, len(data.instances), samples_in_step), max_train_steps=steps,
        progress=progress, notes=_notes(args, data, disk),
    )  # fmt: skip
    run.ema = Ema(run.parameters, args.ema_decay) if args.use_ema else None
    run.resumed_from = checkpoint
    run.validation = _validation(run)
    run.held_out = HeldOut(family, held_out, prompts) if held_out is not None else None
    if checkpoint is not None:
        run.notes += compare(progress.settings, settings)
        load_parts(checkpoint, run.checkpoint_parts)
    progress.settings = settings
    return run


def _cast(encoder: nn.Module, dtype: torch.dtype) -> None:
    """Change the encoder's type, but for what must stay in float32 where that is float16: there T5 overflows."""
    kept = set(getattr(encoder, "_keep_in_fp32_modules", None) or ()) if dtype == torch.float16 else set()
    for name, tensor in [*encoder.named_parameters(), *encoder.named_buffers()]:
        if tensor.is_floating_point() and not kept & set(name.split(".")):
            tensor.data = tensor.data.to(dtype)


def _refuse_what_splits_tensors() -> None:
    for name in ("DEEPSPEED", "FSDP", "MEGATRON_LM"):
        if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() in ("1", "true", "yes"):
            raise TrainingError(f"{name} would split what layers share; run accelerate config again and take plain DDP")


def _accelerator(args: argparse.Namespace) -> Accelerator:
    AcceleratorState._reset_state()  # a process may train more than once, each time with a precision of its own
    folder = Path(args.output_dir)
    accelerator = Accelerator(
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        mixed_precision=args.mixed_precision,
        log_with=None if args.report_to == "none" else args.report_to,
        project_config=ProjectConfiguration(project_dir=str(folder), logging_dir=str(folder / args.logging_dir)),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    if accelerator.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise TrainingError("--mixed_precision fp16 needs a GPU; on the CPU take bf16 or no")
    if accelerator.mixed_precision not in DTYPES:
        raise TrainingError(f"mixed precision {accelerator.mixed_precision} is not supported; take no, fp16 or bf16")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.allow_tf32
    if accelerator.is_main_process:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"--output_dir {folder} cannot be made ({error.strerror}); name another") from error
    return accelerator


def _draws_exactly(args: argparse.Namespace) -> bool:
    """Are class pictures to be drawn first, and in float32?"""
    wanted = args.with_prior_preservation and args.class_dtype is None and not args.quantize_base
    return wanted and bool(missing_pictures(args.class_data_dir, args.num_class_images))


def _progress(args: argparse.Namespace, checkpoint: Path | None) -> Progress:
    if checkpoint is None:
        seed = [args.seed if args.seed is not None else secrets.randbelow(2**31)]
        return Progress(seed=broadcast_object_list(seed)[0])  # one seed for all processes
    return read_progress(checkpoint)


def _notes(args: argparse.Namespace, data: Data, disk: DiskCache | None) -> list[str]:
    notes = list(data.notes)
    notes += version_notes(args.config) if args.config else []
    return notes + (disk.notes if disk is not None else [])


def _sources(
    args: argparse.Namespace, family: Family, data: Data, seed: int, device: torch.device, disk: DiskCache | None
) -> list[Any]:
    """The instances', the class pictures' and the held-out ones; the autoencoder is freed if nobody needs it."""
    streams = {"instance": data.instances, "class": data.classes, "held out": data.held_out}
    sources = [
        make_source(args, family, pictures, stream, seed, device, disk) if pictures is not None else None
        for stream, pictures in streams.items()
    ]
    if args.cache_latents:
        family.pipe.vae.to("cpu")
        if not args.validation_prompt:
            family.free_autoencoder()
    return sources


def _place(denoiser: nn.Module, device: torch.device, dtype: torch.dtype, quantised: bool) -> None:
    """Bring the base model to where it is trained on; quantised weights keep their type."""
    if quantised:
        denoiser.to(device)
    else:  # Module.to, because the model's own warns about casting even where nothing has to stay in float32
        nn.Module.to(denoiser, device, dtype)


def _leave_the_base_alone(trained: TrainedModel) -> None:
    """Processes neither send each other the frozen base nor, in every forward pass, its buffers.

    A process whose batch has pictures of several shapes makes more passes than others, and would wait for them.
    """
    frozen = [
        name for name, _ in (*trained.named_parameters(), *trained.named_buffers()) if name.startswith("denoiser.")
    ]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(trained, frozen)


def _compile(denoiser: Any) -> None:
    """Compile the repeated blocks, of which one program serves all, or the whole model where there are none."""
    if getattr(denoiser, "_repeated_blocks", None):
        denoiser.compile_repeated_blocks()
    else:
        denoiser.compile()


def _adapters(args: argparse.Namespace, family: Family, checkpoint: Path | None, seed: int) -> dict[str, LilyAdapter]:
    """Fresh adapters, or those of the checkpoint, attached and in float32."""
    name, model = denoiser(family.pipe)
    models: dict[str, Any] = {name: model}
    if args.train_text_encoder:
        models |= family.trainable_text_encoders()
    config = LilyConfig(
        r=args.rank, stride_A=args.stride_A, num_B=args.num_B, scaling=args.scaling, routing=args.routing,
        dropout=args.lily_dropout, target_modules=args.target_modules,
    )  # fmt: skip
    try:
        if checkpoint is None:
            adapters = _fresh_adapters(config, models, seed)
        else:
            adapters = _saved_adapters(config, models, checkpoint)
    except TrainingError:
        raise
    except ValueError as error:
        raise TrainingError(str(error)) from error
    for adapter in adapters.values():
        adapter.float().requires_grad_(True)
    if not any(p.requires_grad and p.numel() for p in adapters[name].parameters()):
        raise TrainingError("the adapter has no tensor to train, so nothing would be learnt; widen --target_modules")
    return adapters


def _fresh_adapters(config: LilyConfig, models: dict[str, Any], seed: int) -> dict[str, LilyAdapter]:
    """--target_modules are names in the denoiser; of text encoders every projection is adapted."""
    adapters = {}
    for number, (name, model) in enumerate(models.items()):
        with torch.random.fork_rng():
            torch.manual_seed(mixed_seed(seed, "adapter", number))
            adapters[name] = attach(model, replace(config, target_modules=None) if number else config)
    return adapters


def _saved_adapters(config: LilyConfig, models: dict[str, Any], checkpoint: Path) -> dict[str, LilyAdapter]:
    header, tensors = read_file(checkpoint / WEIGHT_NAME)
    if header.config != config:
        raise TrainingError(f"the checkpoint holds {header.config}, not {config}; give its flags")
    there, here = [part.component for part in header.parts], list(models)
    if there != here:
        raise TrainingError(f"the checkpoint adapts {' and '.join(there)}, not {' and '.join(here)}; give its flags")
    check_compatible(header, models)
    adapters = {}
    for name, adapter in build_adapters(header, tensors, str(checkpoint)).items():
        model = models[name]
        adapters[name] = attach(model, as_in_model(adapter, model).to(next(model.parameters()).device))
    return adapters


def _parameter_groups(args: argparse.Namespace, adapters: dict[str, LilyAdapter]) -> list[dict[str, Any]]:
    """The denoiser's parameters, and the text encoders' with a rate and a decay of their own."""
    denoiser, *encoders = adapters.values()
    groups: list[dict[str, Any]] = [{"params": list(denoiser.parameters())}]
    if encoders:
        own = {"lr": args.text_encoder_lr, "weight_decay": args.adam_weight_decay_text_encoder}
        params = list(itertools.chain.from_iterable(encoder.parameters() for encoder in encoders))
        groups.append({"params": params, **{name: value for name, value in own.items() if value is not None}})
    return groups


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
        run.parts,
        args.validation_prompt,
        run.prompts,
        resolution=args.resolution,
        num_images=args.num_validation_images,
        guidance_scale=run.family.default_guidance if guidance is None else guidance,
        inference_steps=args.validation_inference_steps,
        device=run.accelerator.device,
    )
