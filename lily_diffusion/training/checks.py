"""Arguments checked against each other, before anything is loaded, and their defaults filled in."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import Any

from .. import base_model
from .errors import TrainingError

PRIOR_DEFAULTS = {"prior_loss_weight": 1.0, "num_class_images": 100, "sample_batch_size": 4}
PRIOR_OTHERS = ("class_data_dir", "class_prompt", "prior_generation_precision")
VALIDATION_DEFAULTS = {"num_validation_images": 4, "validation_inference_steps": 25}
NO_WARMUP = ("constant", "piecewise_constant")
TRACKERS = ("tensorboard", "wandb", "none")


def complete(args: argparse.Namespace) -> argparse.Namespace:
    """Check the arguments against each other and return a copy with the defaults filled in.

    Raises:
        TrainingError: a value is out of range, or flags contradict each other.
    """
    _check_ranges(args)
    for check in (_check_folders, _check_prior, _check_schedule, _check_validation, _check_reporting):
        check(args)
    filled = dict(vars(args))
    embedded = base_model.resolve(args.pretrained_model_name_or_path) == base_model.resolve("embedded")
    defaults: dict[str, Any] = {
        "resolution": 64 if embedded else None,  # the family's own
        "learning_rate": 1e-3 if embedded else 1e-4,
        "validation_guidance_scale": 3.0 if embedded else None,  # the family's own
        **PRIOR_DEFAULTS,
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
    for name in ("learning_rate", "snr_gamma", "max_grad_norm", "adam_epsilon"):
        _refuse(getattr(args, name) is not None and not getattr(args, name) > 0, f"--{name} must be more than 0")
    for name in ("lr_warmup_steps", "checkpointing_steps", "prior_loss_weight", "adam_weight_decay", "seed"):
        _refuse(getattr(args, name) is not None and not getattr(args, name) >= 0, f"--{name} must be 0 or more")
    for name in ("adam_beta1", "adam_beta2"):
        _refuse(not 0 <= getattr(args, name) < 1, f"--{name} must be in [0, 1)")


def _check_folders(args: argparse.Namespace) -> None:
    output = Path(args.output_dir)
    _refuse(output.exists() and not output.is_dir(), f"--output_dir {output} is a file; name a folder")
    _refuse(
        output.resolve() == Path(args.instance_data_dir).resolve(),
        "--output_dir and --instance_data_dir are the same folder; results would be taken for pictures",
    )


def _check_prior(args: argparse.Namespace) -> None:
    given = [name for name in (*PRIOR_OTHERS, *PRIOR_DEFAULTS) if getattr(args, name) is not None]
    if not args.with_prior_preservation:
        _refuse(bool(given), f"--{', --'.join(given)} does nothing without --with_prior_preservation")
        return
    for name in ("class_data_dir", "class_prompt"):
        _refuse(not getattr(args, name), f"--with_prior_preservation needs --{name}")
    same = Path(args.class_data_dir).resolve() == Path(args.instance_data_dir).resolve()
    _refuse(same, "--class_data_dir and --instance_data_dir are the same folder; the class needs one of its own")


def _check_schedule(args: argparse.Namespace) -> None:
    name = args.lr_scheduler
    _refuse(
        name in NO_WARMUP and args.lr_warmup_steps > 0,
        f"--lr_scheduler {name} has no warm-up; take constant_with_warmup or leave --lr_warmup_steps out",
    )
    piecewise = name == "piecewise_constant"
    _refuse(piecewise != bool(args.lr_step_rules), "piecewise_constant and --lr_step_rules need each other")
    eight_bit = args.use_8bit_adam and importlib.util.find_spec("bitsandbytes") is None
    _refuse(eight_bit, "--use_8bit_adam needs bitsandbytes, which is not installed: pip install bitsandbytes")


def _check_validation(args: argparse.Namespace) -> None:
    names = (*VALIDATION_DEFAULTS, "validation_guidance_scale", "validation_steps", "validation_epochs")
    given = [name for name in names if getattr(args, name) is not None]
    idle = bool(given) and not args.validation_prompt
    _refuse(idle, f"--{', --'.join(given)} does nothing without --validation_prompt")
    both = args.validation_steps is not None and args.validation_epochs is not None
    _refuse(both, "give --validation_steps or --validation_epochs, not both")


def _check_reporting(args: argparse.Namespace) -> None:
    tracker = args.report_to
    _refuse(tracker not in TRACKERS, f"--report_to {tracker} is unknown; take one of {', '.join(TRACKERS)}")
    missing = tracker != "none" and importlib.util.find_spec(tracker) is None
    _refuse(missing, f"--report_to {tracker} needs 'pip install {tracker}'; or take --report_to none")
    leak = tracker == "wandb" and args.hub_token is not None
    _refuse(leak, "--report_to wandb would publish --hub_token; log in with 'hf auth login' instead")
    hub = [name for name in ("hub_model_id", "hub_token") if getattr(args, name) is not None]
    _refuse(bool(hub) and not args.push_to_hub, f"--{', --'.join(hub)} does nothing without --push_to_hub")


def _refuse(condition: bool, sentence: str) -> None:
    if condition:
        raise TrainingError(sentence)
