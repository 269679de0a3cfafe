"""What shapes a run, kept in its checkpoints, so that one that goes on differently is told apart."""

from __future__ import annotations

import argparse
from typing import Any

from .dataset import Pictures
from .errors import TrainingError
from .families.base import FAMILY_FLAGS

# What a resumed run must share with its checkpoint because the optimizer's state brings it along.
BINDING = (
    "optimizer", "use_ema", "learning_rate", "text_encoder_lr", "lr_scheduler", "scale_lr", "adam_beta1", "adam_beta2",
    "adam_weight_decay", "adam_epsilon", "use_8bit_adam", "adam_weight_decay_text_encoder", "prodigy_beta3",
    "prodigy_decouple", "prodigy_use_bias_correction", "prodigy_safeguard_warmup",
)  # fmt: skip
# What may change, but then the run is not the one that would have gone on.
SHAPING = (
    "pretrained_model_name_or_path", "resolution", "center_crop", "random_flip", "cache_latents", "prior_loss_weight",
    "train_batch_size", "gradient_accumulation_steps", "mixed_precision", *FAMILY_FLAGS, "max_grad_norm",
    "lr_warmup_steps", "lr_num_cycles", "lr_power", "lr_step_rules", "use_aspect_ratio_buckets", "aspect_ratio_buckets",
    "unmasked_weight", "caption_dropout", "with_output_preservation", "output_preservation_weight", "quantize_base",
    "ema_decay", "class_prompt", "pretrained_vae_model_name_or_path", "revision", "variant", "allow_tf32", "repeats",
)  # fmt: skip


def run_settings(
    args: argparse.Namespace, pictures: Pictures, class_pictures: Pictures | None, processes: int
) -> dict[str, Any]:
    """The settings that a checkpoint remembers."""
    settings = {name: getattr(args, name) for name in (*BINDING, *SHAPING)}
    if args.lr_scheduler not in ("constant", "constant_with_warmup"):  # the others depend on where the run ends
        settings["steps"] = args.max_train_steps or f"{args.num_train_epochs} epochs"
    settings["pictures"] = pictures.digest()
    settings["class pictures"] = class_pictures.digest() if class_pictures is not None else None
    settings["processes"] = processes
    return settings


def compare(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Notes on what changed since the checkpoint.

    Raises:
        TrainingError: something changed that the optimizer's state would silently bring back.
    """
    changed = {name: (before[name], now[name]) for name in now if name in before and before[name] != now[name]}
    for name in BINDING:
        if name in changed:
            old, new = changed[name]
            raise TrainingError(f"the checkpoint was made with --{name} {old}, not {new}; resume with the same")
    if not changed:
        return []
    names = ", ".join(f"{name} ({old} -> {new})" for name, (old, new) in changed.items())
    return [f"changed since the checkpoint: {names}; the run goes on, but not as if it had never stopped"]
