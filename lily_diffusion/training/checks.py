"""Arguments checked against each other, before anything is loaded, and their defaults filled in."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

import torch

from .. import base_model
from .errors import TrainingError
from .optimizer import check_optimizer, default_learning_rate

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
TRACKERS = ("tensorboard", "wandb", "none")


def complete(args: argparse.Namespace) -> argparse.Namespace:
    """Check the arguments against each other and return a copy with the defaults filled in.

    Raises:
        TrainingError: a value is out of range, or flags contradict each other.
    """
    _check_ranges(args)
    checks = (_check_needs, _check_folders, _check_prior, _check_schedule, check_optimizer, _check_validation)
    for check in (*checks, _check_reporting, _check_packages):
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
    if args.target_modules is not None:
        filled["target_modules"] = [n for names in args.target_modules for n in names.replace(",", " ").split()]
    return argparse.Namespace(**filled)


def _check_ranges(args: argparse.Namespace) -> None:
    at_least_one = (
        "resolution", "repeats", "num_class_images", "sample_batch_size", "max_train_steps", "num_train_epochs",
        "train_batch_size", "gradient_accumulation_steps", "lr_num_cycles", "checkpoints_total_limit",
        "num_validation_images", "validation_steps", "validation_epochs", "validation_inference_steps", "logging_steps",
    )  # fmt: skip
    for name in at_least_one:
        _refuse(getattr(args, name) is not None and getattr(args, name) < 1, f"--{name} must be 1 or more")
    for name in ("learning_rate", "text_encoder_lr", "snr_gamma", "max_grad_norm", "adam_epsilon"):
        _refuse(getattr(args, name) is not None and not getattr(args, name) > 0, f"--{name} must be more than 0")
    at_least_zero = (
        "lr_warmup_steps", "checkpointing_steps", "prior_loss_weight", "adam_weight_decay", "noise_offset", "seed",
        "adam_weight_decay_text_encoder", "output_preservation_weight",
    )  # fmt: skip
    for name in at_least_zero:
        _refuse(getattr(args, name) is not None and not getattr(args, name) >= 0, f"--{name} must be 0 or more")
    for name in ("adam_beta1", "adam_beta2", "ema_decay", "caption_dropout"):
        _refuse(not 0 <= (getattr(args, name) or 0) < 1, f"--{name} must be in [0, 1)")
    _refuse(not 0 <= (args.unmasked_weight or 0) <= 1, "--unmasked_weight must be in [0, 1]")


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
    output = Path(args.output_dir)
    _refuse(output.exists() and not output.is_dir(), f"--output_dir {output} is a file; name a folder")
    names = ("instance_data_dir", "class_data_dir", "mask_data_dir", "validation_data_dir", "output_dir")
    folders: dict[Path, str] = {}
    for name in names:
        if getattr(args, name) is None:
            continue
        other = folders.setdefault(Path(getattr(args, name)).resolve(), name)
        _refuse(other != name, f"--{name} and --{other} are the same folder; give each one of its own")


def _check_prior(args: argparse.Namespace) -> None:
    given = [name for name in (*PRIOR_OTHERS, *PRIOR_DEFAULTS) if getattr(args, name) is not None]
    _refuse(args.with_output_preservation and not args.class_prompt, "--with_output_preservation needs --class_prompt")
    if not args.with_prior_preservation:
        _refuse(bool(given), f"--{', --'.join(given)} does nothing without --with_prior_preservation")
        return
    for name in ("class_data_dir", "class_prompt"):
        _refuse(not getattr(args, name), f"--with_prior_preservation needs --{name}")


def _check_schedule(args: argparse.Namespace) -> None:
    name = args.lr_scheduler
    _refuse(
        name in NO_WARMUP and args.lr_warmup_steps > 0 and args.optimizer != "schedule_free",
        f"--lr_scheduler {name} has no warm-up; take constant_with_warmup or leave --lr_warmup_steps out",
    )
    piecewise = name == "piecewise_constant"
    _refuse(piecewise != bool(args.lr_step_rules), "piecewise_constant and --lr_step_rules need each other")


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
    leak = tracker == "wandb" and args.hub_token is not None
    _refuse(leak, "--report_to wandb would publish --hub_token; log in with 'hf auth login' instead")


def _check_packages(args: argparse.Namespace) -> None:
    if args.quantize_base:
        package = "torchao" if args.quantize_base == "int8" else "bitsandbytes"
        missing = importlib.util.find_spec(package) is None
        _refuse(missing, f"--quantize_base {args.quantize_base} needs {package}: pip install {package}")
        no_gpu = package == "bitsandbytes" and not torch.cuda.is_available()
        _refuse(no_gpu, f"--quantize_base {args.quantize_base} needs a GPU; on the CPU take int8")
    both = bool(args.quantize_base) and args.compile_base
    _refuse(both, "--compile_base does not go with --quantize_base; leave one out")


def _refuse(condition: bool, sentence: str) -> None:
    if condition:
        raise TrainingError(sentence)
