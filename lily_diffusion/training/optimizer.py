"""The optimizers by name: what they refuse, their learning rates and schedules, and the average that one keeps."""

from __future__ import annotations

import argparse
import importlib.util
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.optimization import get_scheduler

from .errors import TrainingError

OPTIMIZERS = ("adamw", "prodigy", "adafactor", "lion", "schedule_free")
PACKAGES = {"prodigy": "prodigyopt", "lion": "lion-pytorch", "schedule_free": "schedulefree"}  # by the names of pip
PRODIGY_FLAGS = ("prodigy_beta3", "prodigy_decouple", "prodigy_use_bias_correction", "prodigy_safeguard_warmup")
ADAM_DEFAULTS = {"adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8}
WITHOUT_ADAM = ("adafactor", "lion")  # they keep the constants of their papers
TRAINED = "trained_weights"  # in the optimizer's state while its average stands in for them


def check_optimizer(args: argparse.Namespace) -> None:
    """Check the optimizer's flags against each other.

    Raises:
        TrainingError: the optimizer is unknown or not installed, or a flag does nothing with it or spoils it.
    """
    name = args.optimizer.lower()
    _refuse(name not in OPTIMIZERS, f"--optimizer {args.optimizer} is unknown; take one of {', '.join(OPTIMIZERS)}")
    _refuse(args.use_8bit_adam and name != "adamw", f"--use_8bit_adam is for AdamW, not for --optimizer {name}")
    idle = [] if name == "prodigy" else [flag for flag in PRODIGY_FLAGS if getattr(args, flag) is not None]
    _refuse(bool(idle), f"--{', --'.join(idle)} does nothing without --optimizer prodigy")
    idle = [flag for flag, default in ADAM_DEFAULTS.items() if getattr(args, flag) != default]
    _refuse(bool(idle) and name in WITHOUT_ADAM, f"--{', --'.join(idle)} does nothing with --optimizer {name}")
    if name == "prodigy":
        _check_prodigy(args)
    if name == "schedule_free":
        _check_schedule_free(args)
    package = "bitsandbytes" if args.use_8bit_adam else PACKAGES.get(name)
    flag = "--use_8bit_adam" if args.use_8bit_adam else f"--optimizer {name}"
    missing = package is not None and importlib.util.find_spec(package.replace("-", "_")) is None
    _refuse(missing, f"{flag} needs {package}, which is not installed: pip install {package}")


def _check_prodigy(args: argparse.Namespace) -> None:
    rate, beta3 = args.learning_rate, args.prodigy_beta3
    if rate is not None and rate <= 0.1:
        raise TrainingError(
            f"prodigy finds the step size, which --learning_rate {rate:g} would multiply; leave it out, or stay near 1"
        )
    _refuse(beta3 is not None and not 0 <= beta3 < 1, "--prodigy_beta3 must be in [0, 1)")
    _refuse(args.scale_lr, "--scale_lr does not go with prodigy, which finds the step size by itself; leave it out")
    other = args.text_encoder_lr is not None and args.text_encoder_lr != (1.0 if rate is None else rate)
    _refuse(other, "prodigy finds one step size for all that is trained; leave --text_encoder_lr out")


def _check_schedule_free(args: argparse.Namespace) -> None:
    schedule = args.lr_scheduler
    _refuse(schedule != "constant", f"schedule_free takes the place of --lr_scheduler {schedule}; leave that out")
    _refuse(args.use_ema, "schedule_free averages the weights by itself; leave --use_ema out")
    _refuse(args.adam_beta1 == 0, "--adam_beta1 must be more than 0 with schedule_free")


def default_learning_rate(args: argparse.Namespace, embedded: bool) -> float:
    """The rate where none is given; `embedded`: for the base models that ship here, which are small.

    It falls with the root of the rank, as the rates at which benchmarks/learning_rates.py learns equally well do.
    Prodigy's is a multiplier. Lion's steps have the size of the rate in every entry, so it takes a tenth of AdamW's, as
    its paper advises (Chen et al. 2023, section 5).
    """
    at_32 = 1e-3 if embedded else 1e-4
    name, rate = args.optimizer.lower(), float(f"{at_32 * math.sqrt(32 / args.rank):.2g}")
    return {"prodigy": 1.0, "lion": rate / 10}.get(name, rate)


def make_optimizer(
    args: argparse.Namespace, parameters_or_groups: Iterable[Any], steps: int, samples_in_step: int
) -> tuple[Any, Any]:
    """The optimizer, and its schedule over `steps` optimizer steps of `samples_in_step` pictures each.

    Args:
        parameters_or_groups: tensors, or groups ``{"params": tensors, "lr": ..., "weight_decay": ...}``, in which the
            last two may be left out.

    Call `training_mode` before the first step, and `averaged_weights` around whatever looks at the weights.

    Raises:
        TrainingError: the warm-up is as long as the run.
    """
    if args.lr_warmup_steps >= steps:
        raise TrainingError(f"--lr_warmup_steps {args.lr_warmup_steps} leaves none of {steps} steps at the full rate")
    given = list(parameters_or_groups)
    groups = [dict(group) for group in given] if given and isinstance(given[0], dict) else [{"params": given}]
    for group in groups:
        group["params"] = list(group["params"])
        group["lr"] = group.get("lr", args.learning_rate) * (samples_in_step if args.scale_lr else 1)
        group.setdefault("weight_decay", args.adam_weight_decay)
    optimizer = _BUILDERS[args.optimizer.lower()](args, groups)
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


def learning_rate_now(optimizer: Any) -> float:
    """The rate of the next step, of the first group; with prodigy times the step size that it has found."""
    group = optimizer.param_groups[0]
    return float(group["lr"] * group.get("d", 1.0))


def training_mode(optimizer: Any) -> None:
    """Have the weights that are trained in place, to the bit, also after a checkpoint was loaded.

    Only schedule_free knows two kinds of weights; nothing happens with the others.
    """
    inner = getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper has it there
    if not _averages(inner):
        return
    inner.train()  # computed back from the average, these weights are off by rounding
    with torch.no_grad():
        for parameter, state in inner.state.items():
            if TRAINED in state:
                parameter.copy_(state.pop(TRAINED))


@contextmanager
def averaged_weights(optimizer: Any) -> Iterator[None]:
    """Have schedule_free's average in place of the trained weights: for saving, and for drawing pictures.

    A checkpoint may be saved in here or outside: in here it gets the average as the adapter's weights, the optimizer's
    state holds the trained ones, and `training_mode` puts them back. With the other optimizers nothing happens.
    """
    inner = getattr(optimizer, "optimizer", optimizer)
    if not _averages(inner) or not inner.param_groups[0]["train_mode"]:
        yield
        return
    for parameter, state in inner.state.items():
        if state:
            state[TRAINED] = parameter.detach().clone()
    inner.eval()
    try:
        yield
    finally:
        training_mode(inner)


def _averages(optimizer: Any) -> bool:
    return "train_mode" in optimizer.param_groups[0]


def _adam(args: argparse.Namespace) -> dict[str, Any]:
    return {"betas": (args.adam_beta1, args.adam_beta2), "eps": args.adam_epsilon}


def _adamw(args: argparse.Namespace, groups: list[dict[str, Any]]) -> Any:
    if not args.use_8bit_adam:
        return torch.optim.AdamW(groups, **_adam(args))
    import bitsandbytes

    return bitsandbytes.optim.AdamW8bit(groups, **_adam(args))


def _prodigy(args: argparse.Namespace, groups: list[dict[str, Any]]) -> Any:
    """Mishchenko and Defazio 2023."""
    from prodigyopt import Prodigy

    switches = {flag.removeprefix("prodigy_"): getattr(args, flag) is not False for flag in PRODIGY_FLAGS[1:]}
    return Prodigy(groups, **_adam(args), beta3=args.prodigy_beta3, **switches)


def _adafactor(args: argparse.Namespace, groups: list[dict[str, Any]]) -> Any:
    """Shazeer and Stern 2018, with plain steps: steps in proportion to the weights would keep the experts at zero."""
    from transformers import Adafactor

    return Adafactor(groups, lr=args.learning_rate, scale_parameter=False, relative_step=False)


def _lion(args: argparse.Namespace, groups: list[dict[str, Any]]) -> Any:
    """Chen et al. 2023."""
    from lion_pytorch import Lion

    return Lion(groups)


def _schedule_free(args: argparse.Namespace, groups: list[dict[str, Any]]) -> Any:
    """Defazio et al. 2024; its warm-up is its own."""
    from schedulefree import AdamWScheduleFree

    return AdamWScheduleFree(groups, **_adam(args), warmup_steps=args.lr_warmup_steps)


_BUILDERS: dict[str, Callable[[argparse.Namespace, list[dict[str, Any]]], Any]] = {
    "adamw": _adamw,
    "prodigy": _prodigy,
    "adafactor": _adafactor,
    "lion": _lion,
    "schedule_free": _schedule_free,
}


def _refuse(condition: bool, sentence: str) -> None:
    if condition:
        raise TrainingError(sentence)
