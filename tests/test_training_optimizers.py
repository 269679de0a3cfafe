"""The optimizers: each learns, goes on after a checkpoint as if it had never stopped, and takes no idle flags."""

from __future__ import annotations

import contextlib
import importlib.util
import io

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from lily_diffusion import LilyConfig
from lily_diffusion.adapter import LilyAdapter
from lily_diffusion.sharing import Group
from lily_diffusion.training import TrainingError, parse_args, train
from lily_diffusion.training.optimizer import (
    OPTIMIZERS,
    averaged_weights,
    check_optimizer,
    default_learning_rate,
    learning_rate_now,
    make_optimizer,
    training_mode,
)

from .training_base import same, weights

pytest_plugins = ("tests.training_base",)  # its fixtures: base, pictures, arguments

LAYERS = ("a.to_q", "b.to_q")
RATES = {"adamw": 3e-3, "adafactor": 1e-2, "lion": 1e-3, "prodigy": 1.0, "schedule_free": 1e-2}
KINDS = [*({"optimizer": name} for name in OPTIMIZERS), {"use_8bit_adam": True}]


def parsed(**flags):
    """Parsed arguments with these values, and a rate that suits."""
    args = parse_args(["--pretrained_model_name_or_path", "embedded", "--instance_data_dir", "x"])
    for name, value in flags.items():
        assert hasattr(args, name), name
        setattr(args, name, value)
    if args.learning_rate is None:
        args.learning_rate = RATES[args.optimizer]
    return args


def small_adapter() -> LilyAdapter:
    """Two layers; the experts have 4096 entries, from which on bitsandbytes uses 8 bits."""
    torch.manual_seed(0)
    return LilyAdapter(LilyConfig(r=16, stride_A=2, num_B=2), (Group("to_q", 64, 128, LAYERS, (0, 0)),))


def loss_of(adapter: LilyAdapter) -> torch.Tensor:
    """How far the updates of a fixed input are from those of a fixed matrix of low rank."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, 5, 64, generator=generator)
    target = x @ torch.randn(64, 4, generator=generator) @ torch.randn(4, 128, generator=generator) / 16
    return torch.stack([(adapter(layer, x) - target).square().mean() for layer in LAYERS]).mean()


def steps(adapter, optimizer, schedule, number):
    for _ in range(number):
        loss = loss_of(adapter)
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


def started(flags, total=100):
    """A fresh adapter with its optimizer and schedule, ready for the first step."""
    adapter = small_adapter()
    parts = make_optimizer(parsed(**flags), adapter.parameters(), total, 1)
    training_mode(parts[0])
    return adapter, *parts


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def tensors(adapter):
    return [p.detach().clone() for p in adapter.parameters()]


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("flags", KINDS, ids=str)
def test_every_optimizer_learns(flags):
    adapter, optimizer, schedule = started(flags)
    before = loss_of(adapter).item()
    steps(adapter, optimizer, schedule, 100)
    with averaged_weights(optimizer):
        assert loss_of(adapter).item() < 0.5 * before


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("flags", [*KINDS, {"lr_scheduler": "cosine", "lr_warmup_steps": 2}], ids=str)
def test_a_run_that_stopped_goes_on_bit_for_bit(flags, inside):
    """Saved with the average in place, and with the trained weights."""
    straight = started(flags)
    steps(*straight, 12)

    adapter, optimizer, schedule = started(flags)
    steps(adapter, optimizer, schedule, 5)
    with averaged_weights(optimizer) if inside else contextlib.nullcontext():
        saved = through_a_file([x.state_dict() for x in (adapter, optimizer, schedule)])
    resumed = started(flags)
    for part, state in zip(resumed, saved, strict=True):
        part.load_state_dict(state)
    training_mode(resumed[1])
    assert learning_rate_now(resumed[1]) == learning_rate_now(optimizer)
    for run in ((adapter, optimizer, schedule), resumed):
        steps(*run, 7)
        assert equal(tensors(run[0]), tensors(straight[0]))
        assert learning_rate_now(run[1]) == learning_rate_now(straight[1])


@pytest.mark.parametrize("wrapped", [False, True])
def test_schedule_free_shows_its_average_and_trains_on_undisturbed(wrapped):
    adapter, optimizer, schedule = started({"optimizer": "schedule_free"})
    if wrapped:
        AcceleratorState._reset_state(reset_partial_state=True)
        optimizer = Accelerator(cpu=True).prepare(optimizer)
    steps(adapter, optimizer, schedule, 10)
    trained = tensors(adapter)
    with averaged_weights(optimizer):
        averaged = tensors(adapter)
        with averaged_weights(optimizer):
            assert equal(tensors(adapter), averaged), "nothing happens twice"
        assert equal(tensors(adapter), averaged)
    assert equal(tensors(adapter), trained)
    inner = getattr(optimizer, "optimizer", optimizer)
    for p, y, x in zip(adapter.parameters(), trained, averaged, strict=True):
        assert torch.allclose(y, 0.9 * x + 0.1 * inner.state[p]["z"], atol=1e-6)  # equation 1 of the paper
        assert not torch.equal(x, y)
    with pytest.raises(KeyError), averaged_weights(optimizer):
        raise KeyError
    assert equal(tensors(adapter), trained)


def test_the_others_have_no_average():
    adapter, optimizer, schedule = started({})
    steps(adapter, optimizer, schedule, 3)
    before = tensors(adapter)
    with averaged_weights(optimizer):
        assert equal(tensors(adapter), before)
    assert set(optimizer.state_dict()["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}


def test_groups_have_rates_and_decays_of_their_own():
    adapter = small_adapter()
    A, *others = adapter.parameters()
    groups = [{"params": [A], "lr": 1e-4, "weight_decay": 0.5}, {"params": iter(others)}]
    args = parsed(learning_rate=1e-3, adam_weight_decay=0.25, scale_lr=True)
    optimizer, _ = make_optimizer(args, groups, 10, 3)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([3e-4, 3e-3])
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.5, 0.25]
    assert sum(p.numel() for g in optimizer.param_groups for p in g["params"]) == adapter.num_parameters()
    assert groups[0]["lr"] == 1e-4, "what was given is left alone"


def test_the_flags_reach_the_optimizers():
    flags = {"prodigy_beta3": 0.5, "prodigy_decouple": False, "prodigy_use_bias_correction": False, "adam_beta1": 0.8}
    group = make_optimizer(parsed(optimizer="prodigy", **flags), small_adapter().parameters(), 9, 1)[0].defaults
    assert (group["beta3"], group["decouple"], group["use_bias_correction"]) == (0.5, False, False)
    assert group["safeguard_warmup"] and group["betas"] == (0.8, 0.999)
    args = parsed(optimizer="schedule_free", lr_warmup_steps=3)
    assert make_optimizer(args, small_adapter().parameters(), 9, 1)[0].defaults["warmup_steps"] == 3


def test_the_rate_of_prodigy_is_the_step_size_that_it_found():
    adapter, optimizer, schedule = started({"optimizer": "prodigy"})
    assert learning_rate_now(optimizer) == 1e-6  # its d0
    steps(adapter, optimizer, schedule, 100)
    assert 1e-4 < learning_rate_now(optimizer) == optimizer.param_groups[0]["d"]


@pytest.mark.parametrize(
    ("flags", "embedded", "rate"),
    [
        ({"rank": 32}, True, 1e-3),
        ({"rank": 32}, False, 1e-4),
        ({"rank": 8}, True, 2e-3),
        ({"rank": 128}, False, 5e-5),
        ({"rank": 16}, False, 1.4e-4),
        ({"optimizer": "Prodigy"}, False, 1.0),
        ({"optimizer": "lion"}, False, 1.4e-5),
        ({"optimizer": "schedule_free"}, True, 1.4e-3),
    ],
)
def test_the_default_rate(flags, embedded, rate):
    assert default_learning_rate(parsed(learning_rate=1.0, **flags), embedded) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"optimizer": "sgd"}, "--optimizer sgd is unknown; take one of adamw, prodigy"),
        ({"optimizer": "lion", "use_8bit_adam": True}, "--use_8bit_adam is for AdamW, not for --optimizer lion"),
        ({"prodigy_beta3": 0.9}, "--prodigy_beta3 does nothing without --optimizer prodigy"),
        ({"optimizer": "lion", "prodigy_decouple": False}, "--prodigy_decouple does nothing without"),
        ({"optimizer": "lion", "adam_beta2": 0.99}, "--adam_beta2 does nothing with --optimizer lion"),
        ({"optimizer": "adafactor", "adam_epsilon": 1e-6}, "--adam_epsilon does nothing with --optimizer adafactor"),
        ({"optimizer": "prodigy", "learning_rate": 1e-4}, "prodigy finds the step size, which --learning_rate 0.0001"),
        ({"optimizer": "prodigy", "learning_rate": 0.1}, "leave it out, or stay near 1"),
        ({"optimizer": "prodigy", "prodigy_beta3": 1.0}, r"--prodigy_beta3 must be in \[0, 1\)"),
        ({"optimizer": "prodigy", "scale_lr": True}, "--scale_lr does not go with prodigy"),
        ({"optimizer": "prodigy", "text_encoder_lr": 0.5}, "leave --text_encoder_lr out"),
        ({"optimizer": "schedule_free", "lr_scheduler": "cosine"}, "takes the place of --lr_scheduler cosine"),
        ({"optimizer": "schedule_free", "use_ema": True}, "leave --use_ema out"),
        ({"optimizer": "schedule_free", "adam_beta1": 0.0}, "--adam_beta1 must be more than 0 with schedule_free"),
    ],
)
def test_what_cannot_be_meant_is_refused(flags, sentence):
    args = parsed(**{"learning_rate": 1.0, **flags})
    with pytest.raises(TrainingError, match=sentence):
        check_optimizer(args)


@pytest.mark.parametrize(
    ("flags", "package"),
    [
        ({"optimizer": "prodigy"}, "prodigyopt"),
        ({"optimizer": "lion"}, "lion-pytorch"),
        ({"optimizer": "schedule_free"}, "schedulefree"),
        ({"use_8bit_adam": True}, "bitsandbytes"),
    ],
)
def test_a_missing_package_is_named_with_the_line_that_installs_it(flags, package, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TrainingError, match=f"needs {package}, which is not installed: pip install {package}"):
        check_optimizer(parsed(**flags))


@pytest.mark.parametrize("flags", [*KINDS, {"optimizer": "Prodigy", "learning_rate": 0.5}], ids=str)
def test_what_goes_together_is_accepted(flags):
    check_optimizer(parsed(**flags))


def test_a_warm_up_as_long_as_the_run_is_refused():
    with pytest.raises(TrainingError, match="--lr_warmup_steps 5 leaves none of 5 steps"):
        make_optimizer(parsed(lr_scheduler="linear", lr_warmup_steps=5), small_adapter().parameters(), 5, 1)


@pytest.mark.parametrize("name", ["prodigy", "schedule_free"])
def test_a_whole_run_that_stopped_ends_as_if_it_had_not(arguments, name):
    flags = {"optimizer": name, "learning_rate": RATES[name], "max_train_steps": 6, "checkpointing_steps": 2}
    straight = train(arguments("straight", **flags))
    stopped = train(arguments("stopped", **flags), on_step=lambda report: report.step == 3)
    assert stopped.steps == 3
    resumed = train(arguments("stopped", **flags, resume_from_checkpoint="latest"))
    assert resumed.losses == straight.losses[3:]
    assert same(weights(resumed.output_dir), weights(straight.output_dir))
