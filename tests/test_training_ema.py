"""The running average: diffusers' own numbers, in and out without a trace, exact when a run goes on."""

from __future__ import annotations

import pytest
import torch
from diffusers.training_utils import EMAModel

from lily_diffusion import LilyConfig, attach
from lily_diffusion.training.ema import Ema
from lily_diffusion.training.errors import TrainingError

from .conftest import awaken, run


def step(parameters, seed: int) -> None:
    """What an optimizer does: every tensor becomes another one, in place."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=generator))


def tensors(seed: int = 0) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((3, 4), (5,), (2, 2, 2))]


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("decay", [0.5, 0.999])
def test_the_averages_are_those_of_diffusers(decay):
    parameters = tensors()
    ours, theirs = Ema(parameters, decay), EMAModel(parameters, decay=decay)
    for number in range(30):
        step(parameters, number)
        ours.update()
        theirs.step(parameters)
        assert not same(ours.averages, parameters) or number == 0
    for a, b in zip(ours.averages, theirs.shadow_params, strict=True):
        torch.testing.assert_close(a, b)


def test_weights_that_stand_still_are_their_own_average():
    parameters = tensors()
    ema = Ema(parameters, 0.9)
    for _ in range(5):
        ema.update()
    assert same(ema.averages, parameters)


def test_the_model_answers_with_the_averages_and_gets_its_own_weights_back(sd15):
    adapter = awaken(attach(sd15, LilyConfig(r=4)))
    ema = Ema(adapter.parameters(), 0.9)
    for number in range(3):
        step(adapter.parameters(), number)
        ema.update()
    own, bits = run(sd15), [p.detach().clone() for p in adapter.parameters()]
    with ema.swapped_in():
        assert same(adapter.parameters(), ema.averages)
        assert not torch.allclose(run(sd15), own)
    assert same(adapter.parameters(), bits) and torch.equal(run(sd15), own)


def test_an_exception_inside_gives_the_weights_back_too():
    parameters = tensors()
    ema = Ema(parameters, 0.9)
    step(parameters, 1)
    bits = [p.detach().clone() for p in parameters]
    with pytest.raises(RuntimeError, match="in between"), ema.swapped_in():
        raise RuntimeError("in between")
    assert same(parameters, bits) and not same(parameters, ema.averages)


def test_the_averages_do_not_move_with_the_weights_nor_ask_for_gradients():
    parameters = tensors()
    ema = Ema(parameters, 0.9)
    step(parameters, 1)
    assert same(ema.averages, tensors())
    with ema.swapped_in():
        assert all(p.requires_grad for p in parameters)
    assert not any(average.requires_grad for average in ema.averages)


def test_a_resumed_average_goes_on_with_the_same_bits(tmp_path):
    parameters = tensors()
    ema = Ema(parameters, 0.999)
    for number in range(8):
        step(parameters, number)
        ema.update()
        if number == 3:
            torch.save(ema.state_dict(), tmp_path / "ema.pt")
            middle = [p.detach().clone() for p in parameters]
    later = [torch.nn.Parameter(p) for p in middle]
    resumed = Ema(later, 0.999)
    resumed.load_state_dict(torch.load(tmp_path / "ema.pt", weights_only=True))
    for number in range(4, 8):
        step(later, number)
        resumed.update()
    assert same(resumed.averages, ema.averages) and resumed.updates == 8


@pytest.mark.parametrize("others", [tensors()[:2], [*tensors()[:2], torch.zeros(3)]])
def test_averages_of_other_weights_are_refused_and_change_nothing(others):
    ema = Ema(tensors(), 0.9)
    before = [average.clone() for average in ema.averages]
    state = {"updates": 7, "averages": [torch.ones_like(tensor) for tensor in others]}
    with pytest.raises(TrainingError, match=f"averages {len(others)} tensors, not the 3 that are trained now"):
        ema.load_state_dict(state)
    assert same(ema.averages, before) and ema.updates == 0
