"""The backward pass that is written by hand against the one that autograd makes of the plain formula."""

from __future__ import annotations

import pytest
import torch

from lily_diffusion import LilyConfig, attach, functional, gradients

from .conftest import inputs

SHAPES = {"x": (3, 5, 6), "A": (4, 6), "B": (2, 4, 7), "router": (2, 4)}


def tensors(dtype=torch.float64, x=SHAPES["x"]):
    torch.manual_seed(0)
    return [torch.randn(x if n == "x" else s, dtype=dtype, requires_grad=True) for n, s in SHAPES.items()]


@pytest.mark.parametrize("x", [(3, 5, 6), (2, 3, 4, 6)])
def test_values_and_gradients_are_those_of_the_formula(x):
    given = tensors(x=x)
    y, expected = gradients.delta(*given, 1.7), functional.delta(*given, 1.7, "sample")
    assert torch.allclose(y, expected, rtol=1e-12)
    weight = torch.randn_like(y)
    ours, theirs = (torch.autograd.grad((out * weight).sum(), given) for out in (y, expected))
    for ours_, theirs_ in zip(ours, theirs, strict=True):
        assert torch.allclose(ours_, theirs_, rtol=1e-10)
    assert torch.autograd.gradcheck(lambda *given: gradients.delta(*given, 1.7), given)


def test_half_precision_beside_float32_weights():
    x, *weights = tensors(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = gradients.delta(x, *weights, 2.0)
    assert y.dtype == torch.bfloat16
    expected = functional.delta(x, *weights, 2.0, "sample")
    assert (y - expected).norm() < 0.02 * expected.norm()
    weight = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad((out * weight).sum(), [x, *weights]) for out in (y, expected))
    for ours_, theirs_ in zip(ours, theirs, strict=True):
        assert ours_.dtype == torch.float32
        assert (ours_ - theirs_).norm() < 0.05 * theirs_.norm()


def test_nothing_is_asked_for_an_input_that_needs_no_gradient():
    x, *weights = tensors()
    gradients.delta(x.detach(), *weights, 1.0).sum().backward()
    assert all(weight.grad is not None for weight in weights)


def test_less_is_kept_for_the_backward_pass(sd15, monkeypatch):
    attach(sd15.requires_grad_(False), LilyConfig(r=4, stride_A=2, num_B=4))
    given = inputs(sd15)

    def kept() -> int:
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            sd15(**given)
        return sum(sizes)

    ours = kept()
    monkeypatch.setattr(gradients, "delta", lambda *given: functional.delta(*given, "sample"))
    assert ours < kept()
