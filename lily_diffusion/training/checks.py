"""Arguments checked against each other, before anything is loaded, and their defaults filled in."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from .. import base_model
from ..save_and_load import WEIGHT_NAME
from .buckets import parse_buckets
from .dataset import check_pictures
from .errors import TrainingError
from .optimizer import check_optimizer, default_learning_rate
from .prior import class_items, count_pictures
from .resuming import check_checkpoint

AT_LEAST_ONE = (
    "rank", "stride_A", "num_B", "resolution", "repeats", "num_class_images", "sample_batch_size", "max_train_steps",
    "num_train_epochs", "train_batch_size", "gradient_accumulation_steps", "lr_num_cycles", "checkpoints_total_limit",
    "num_validation_images", "validation_steps", "validation_epochs", "validation_inference_steps", "logging_steps",
    "max_sequence_length",
)  # fmt: skip
MORE_THAN_ZERO = (
    "scaling", "learning_rate", "text_encoder_lr", "snr_gamma", "max_grad_norm", "adam_epsilon", "logit_std",
    "lr_power",
)  # fmt: skip
AT_LEAST_ZERO = (
    "lr_warmup_steps", "checkpointing_steps", "prior_loss_weight", "adam_weight_decay", "noise_offset", "seed",
    "adam_weight_decay_text_encoder", "output_preservation_weight", "guidance_scale", "validation_guidance_scale",
)  # fmt: skip
BELOW_ONE = ("adam_beta1", "adam_beta2", "ema_decay", "caption_dropout", "lily_dropout")
SHARES = ("unmasked_weight",)
MAY_BE_INFINITE = ("max_grad_norm",)  # then gradients are never shortened
FOLDERS = (
    "instance_data_dir", "class_data_dir", "mask_data_dir", "validation_data_dir", "disk_cache_dir", "output_dir",
)  # fmt: skip

PRIOR_DEFAULTS = {"prior_loss_weight": 1.0, "num_class_images": 100, "sample_batch_size": 4}
PRIOR_OTHERS = ("class_data_dir", "prior_generation_precision")
OTHER_DEFAULTS = {"ema_decay": 0.999, "unmasked_weight": 0.0, "output_preservation_weight": 1.0}
NEEDS = {  # flag -> one of these must be given with it
    "ema_decay": ("use_ema",),
    "unmasked_weight": ("alpha_mask", "mask_data_dir"),
    "output_preservation_weight": ("with_output_preservation",),
    "class_prompt": ("with_prior_preservation", "with_output_preservation"),
    "text_encoder_lr": ("train_text_encoder",),
    "adam_weight_decay_text_encoder": ("train_text_encoder",),
    "dataset_config_name": ("dataset_name",),
    "image_column": ("dataset_name",),
    "caption_column": ("dataset_name",),
    "hub_model_id": ("push_to_hub",),
    "hub_token": ("push_to_hub",),
}
EXCLUSIVE = (
    ("dataset_name", "instance_data_dir"), ("alpha_mask", "mask_data_dir"), ("dataset_name", "mask_data_dir"),
    ("with_prior_preservation", "with_output_preservation"),
)  # fmt: skip
VALIDATION_DEFAULTS = {"num_validation_images": 4, "validation_inference_steps": 25}
NO_WARMUP = ("constant", "piecewise_constant")
OF_ONE_SCHEDULER = {"lr_num_cycles": ("cosine_with_restarts", 1), "lr_power": ("polynomial", 1.0)}
TRACKERS = ("tensorboard", "wandb", "none")


def complete(args: argparse.Namespace) -> argparse.Namespace:
    """Check the arguments against each other and return a copy with the defaults filled in.

    Raises:
        TrainingError: a value is out of range, or flags contradict each other.
    """
    for check in CHECKS:
        check(args)
    filled = dict(vars(args))
    embedded = base_model.embedded_name(args.pretrained_model_name_or_path) is not None
    defaults: dict[str, Any] = {
        "learning_rate": default_learning_rate(args, embedded),
        "validation_guidance_scale": base_model.GUIDANCE_SCALE if embedded else None,  # the family's own
        **PRIOR_DEFAULTS,
        **OTHER_DEFAULTS,
        **VALIDATION_DEFAULTS,
    }
    filled.update({name: value for name, value in defaults.items() if filled[name] is None})
    if args.max_train_steps is None and args.num_train_epochs is None:
        filled["max_train_steps"] = 500
    filled["target_modules"] = _target_modules(args)
    completed = argparse.Namespace(**filled)
    _check_steps(completed)
    if args.resume_from_checkpoint is not None:
        check_checkpoint(completed)
    return completed


def _check_words(args: argparse.Namespace) -> None:
    """No flag is an empty text, as a variable of the shell that is not set leaves one behind."""
    for name, value in vars(args).items():
        texts = value if isinstance(value, list) else [value]
        empty = any(isinstance(text, str) and not text.strip() for text in texts)
        _refuse(empty, f"--{name} is empty; write something there, or leave it out")


def _check_ranges(args: argparse.Namespace) -> None:
    for name, value in vars(args).items():
        endless = isinstance(value, float) and not math.isfinite(value)
        _refuse(endless and name not in MAY_BE_INFINITE, f"--{name} must be a finite number, not {value}")
    ranges: tuple[tuple[tuple[str, ...], Callable[[Any], bool], str], ...] = (
        (AT_LEAST_ONE, lambda value: value >= 1, "1 or more"),
        (MORE_THAN_ZERO, lambda value: value > 0, "more than 0"),
        (AT_LEAST_ZERO, lambda value: value >= 0, "0 or more"),
        (BELOW_ONE, lambda value: 0 <= value < 1, "in [0, 1)"),
        (SHARES, lambda value: 0 <= value <= 1, "in [0, 1]"),
    )
    for names, fits, words in ranges:
        for name in names:
            value = getattr(args, name)
            _refuse(value is not None and not fits(value), f"--{name} must be {words}")


def _check_adapter(args: argparse.Namespace) -> None:
    idle = args.num_B == 1 and args.routing != "static"
    _refuse(idle, "--num_B 1 leaves the routers nothing to choose from; take 2 or more, or --routing static")
    nothing = not _target_modules(args)
    _refuse(nothing, "--target_modules names no layer; write names such as to_q attn2.to_k, or leave it out")
    if args.aspect_ratio_buckets is not None:
        parse_buckets(args.aspect_ratio_buckets, 1)  # what the edges must be multiples of is known with the base model


def _check_needs(args: argparse.Namespace) -> None:
    source = args.instance_data_dir or args.dataset_name
    _refuse(not source, "say where the pictures are: --instance_data_dir FOLDER, or --dataset_name NAME")
    for name, others in NEEDS.items():
        idle = getattr(args, name) is not None and not any(getattr(args, other) for other in others)
        _refuse(idle, f"--{name} does nothing without --{' or --'.join(others)}")
    for one, other in EXCLUSIVE:
        both = bool(getattr(args, one)) and bool(getattr(args, other))
        _refuse(both, f"give --{one} or --{other}, not both")


def _check_folders(args: argparse.Namespace) -> None:
    written = {"output_dir": args.output_dir, "class_data_dir": args.class_data_dir}
    written |= {"disk_cache_dir": args.disk_cache_dir}
    if args.report_to != "none":
        written["logging_dir"] = os.path.join(args.output_dir, args.logging_dir)
    for name, folder in written.items():
        if folder is not None:
            _check_place(name, Path(folder), needed=name == "output_dir")
    from .model_card import CARD_NAME  # which needs this file

    output = Path(args.output_dir)
    foreign = (output / CARD_NAME).exists() and not (output / WEIGHT_NAME).exists()
    _refuse(foreign, f"--output_dir {output} holds a {CARD_NAME} and no adapter; name another, or it would be replaced")
    folders: dict[Path, str] = {}
    for name in FOLDERS:
        if getattr(args, name) is None:
            continue
        other = folders.setdefault(Path(getattr(args, name)).resolve(), name)
        _refuse(other != name, f"--{name} and --{other} are the same folder; give each one of its own")


def _check_place(name: str, folder: Path, needed: bool) -> None:
    """Whether a folder can be made; if it is `needed` or not there yet, also whether anything can be written there."""
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))
    _refuse(not there.is_dir(), f"--{name} {folder}: {there} is a file; name a folder")
    closed = (needed or there != folder) and not os.access(there, os.W_OK)
    _refuse(closed, f"--{name} {folder} cannot be written to; name another, or change the permissions of {there}")


def _check_prior(args: argparse.Namespace) -> None:
    given = [name for name in (*PRIOR_OTHERS, *PRIOR_DEFAULTS) if getattr(args, name) is not None]
    _refuse(args.with_output_preservation and not args.class_prompt, "--with_output_preservation needs --class_prompt")
    alike = args.class_prompt is not None and args.class_prompt == args.instance_prompt
    _refuse(alike, "--class_prompt is the --instance_prompt; it is the caption without the rare word for the subject")
    if not args.with_prior_preservation:
        _refuse(bool(given), f"--{', --'.join(given)} does nothing without --with_prior_preservation")
        return
    for name in ("class_data_dir", "class_prompt"):
        _refuse(not getattr(args, name), f"--with_prior_preservation needs --{name}")
    if count_pictures(args.class_data_dir):
        count = args.num_class_images or int(PRIOR_DEFAULTS["num_class_images"])
        check_pictures(class_items(args.class_data_dir, args.class_prompt, count))


def _check_schedule(args: argparse.Namespace) -> None:
    name = args.lr_scheduler
    _refuse(
        name in NO_WARMUP and args.lr_warmup_steps > 0 and args.optimizer != "schedule_free",
        f"--lr_scheduler {name} has no warm-up; take constant_with_warmup or leave --lr_warmup_steps out",
    )
    for flag, (owner, default) in OF_ONE_SCHEDULER.items():
        idle = getattr(args, flag) != default and name != owner
        _refuse(idle, f"--{flag} does nothing with --lr_scheduler {name}; it is for {owner}")
    piecewise = name == "piecewise_constant"
    _refuse(piecewise != bool(args.lr_step_rules), "piecewise_constant and --lr_step_rules need each other")
    if piecewise:
        _check_step_rules(args.lr_step_rules)
    by_epochs = bool(args.validation_epochs) or (bool(args.num_train_epochs) and not args.max_train_steps)
    idle = args.repeats != 1 and not by_epochs
    _refuse(idle, "--repeats counts in epochs alone; say how long with --num_train_epochs, or leave it out")


def _check_step_rules(text: str) -> None:
    """FACTOR:STEP,...,FACTOR, where each step is later than the one before it."""
    *rules, last = text.split(",")
    try:
        factors, steps = [float(last)], [0]
        for rule in rules:
            factor, step = rule.split(":")
            factors.append(float(factor))
            steps.append(int(step))
        right = all(a < b for a, b in itertools.pairwise(steps)) and all(0 <= factor < math.inf for factor in factors)
    except ValueError:
        right = False
    _refuse(not right, f"--lr_step_rules {text!r} are not factors and the steps where each ends, as 1:10,0.1:20,0.01")


def _check_steps(args: argparse.Namespace) -> None:
    """What is known already about the length of the run, in completed arguments."""
    steps, warmup = args.max_train_steps, args.lr_warmup_steps
    late = steps is not None and warmup >= steps
    _refuse(late, f"--lr_warmup_steps {warmup} leaves none of {steps} steps at the full rate")


def _check_validation(args: argparse.Namespace) -> None:
    names = (*VALIDATION_DEFAULTS, "validation_guidance_scale")
    given = [name for name in names if getattr(args, name) is not None]
    idle = bool(given) and not args.validation_prompt
    _refuse(idle, f"--{', --'.join(given)} does nothing without --validation_prompt")
    names = ("validation_steps", "validation_epochs")
    given = [name for name in names if getattr(args, name) is not None]
    idle = bool(given) and not (args.validation_prompt or args.validation_data_dir)
    _refuse(idle, f"--{', --'.join(given)} does nothing without --validation_prompt or --validation_data_dir")
    both = args.validation_steps is not None and args.validation_epochs is not None
    _refuse(both, "give --validation_steps or --validation_epochs, not both")


def _check_reporting(args: argparse.Namespace) -> None:
    tracker = args.report_to
    _refuse(tracker not in TRACKERS, f"--report_to {tracker} is unknown; take one of {', '.join(TRACKERS)}")
    missing = tracker != "none" and importlib.util.find_spec(tracker) is None
    _refuse(missing, f"--report_to {tracker} needs 'pip install {tracker}'; or take --report_to none")
    if args.push_to_hub:
        _check_repository(args.hub_model_id or Path(args.output_dir).resolve().name)
    leak = tracker == "wandb" and args.hub_token is not None
    _refuse(leak, "--report_to wandb would publish --hub_token; log in with 'hf auth login' instead")


def _check_repository(name: str) -> None:
    try:
        validate_repo_id(name)
    except HFValidationError:
        _refuse(True, f"--push_to_hub: {name!r} cannot be a repository; give --hub_model_id OWNER/NAME")


def _check_cache(args: argparse.Namespace) -> None:
    idle = bool(args.disk_cache_dir) and args.train_text_encoder and not args.cache_latents
    _refuse(idle, "--disk_cache_dir does nothing while text encoders are trained, but with --cache_latents")


def _check_packages(args: argparse.Namespace) -> None:
    if args.quantize_base:
        package = "torchao" if args.quantize_base == "int8" else "bitsandbytes"
        missing = importlib.util.find_spec(package) is None
        _refuse(missing, f"--quantize_base {args.quantize_base} needs {package}: pip install {package}")
        no_gpu = package == "bitsandbytes" and not torch.cuda.is_available()
        _refuse(no_gpu, f"--quantize_base {args.quantize_base} needs a GPU; on the CPU take int8")
    both = bool(args.quantize_base) and args.compile_base
    _refuse(both, "--compile_base does not go with --quantize_base; leave one out")


def _target_modules(args: argparse.Namespace) -> list[str]:
    return [name for names in args.target_modules for name in names.replace(",", " ").split()]


def _refuse(condition: bool, sentence: str) -> None:
    if condition:
        raise TrainingError(sentence)


CHECKS: tuple[Callable[[argparse.Namespace], None], ...] = (
    _check_words, _check_ranges, _check_needs, _check_adapter, _check_folders, _check_prior, _check_schedule,
    check_optimizer, _check_validation, _check_reporting, _check_packages, _check_cache,
)  # fmt: skip
