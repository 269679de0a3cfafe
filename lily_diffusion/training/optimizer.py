"""AdamW and its learning rate schedule."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

import torch
from diffusers.optimization import get_scheduler
from torch import Tensor

from .errors import TrainingError


def make_optimizer(
    args: argparse.Namespace, parameters: Iterable[Tensor], steps: int, samples_in_step: int
) -> tuple[Any, Any]:
    """The optimizer, and its schedule over `steps` optimizer steps of `samples_in_step` pictures each.

    Raises:
        TrainingError: the warm-up is as long as the run.
    """
    optimizer_class: Any = torch.optim.AdamW
    if args.use_8bit_adam:
        import bitsandbytes

        optimizer_class = bitsandbytes.optim.AdamW8bit
    optimizer = optimizer_class(
        parameters,
        lr=args.learning_rate * (samples_in_step if args.scale_lr else 1),
        betas=(args.adam_beta1, args.adam_beta2),
        weight_decay=args.adam_weight_decay,
        eps=args.adam_epsilon,
    )
    if args.lr_warmup_steps >= steps:
        raise TrainingError(f"--lr_warmup_steps {args.lr_warmup_steps} leaves none of {steps} steps at the full rate")
    # Stepped once an optimizer step and never handed to accelerate, so the counts are the same for any accumulation.
    lr_scheduler = get_scheduler(
        args.lr_scheduler,
        optimizer,
        step_rules=args.lr_step_rules,
        num_warmup_steps=args.lr_warmup_steps,
        num_training_steps=steps,
        num_cycles=args.lr_num_cycles,
        power=args.lr_power,
    )
    return optimizer, lr_scheduler
