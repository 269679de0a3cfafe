"""As that start where the loss pulls: found without the gradient of any weight, and as good as from it."""

import pytest
import torch

from benchmarks.fidelity.gradient_start import GAIN, GradientStart
from lily_diffusion import LilyConfig, attach, detach
from lily_diffusion.sharing import find_projections

from .conftest import inputs, run

CONFIG = LilyConfig(r=3, stride_A=2, num_B=2)


def backward(unet, seed: int) -> None:
    answer = unet(**inputs(unet, batch=2, seed=seed)).sample
    (answer * torch.linspace(-1, 1, answer.numel()).view_as(answer)).square().sum().backward()


def started(unet, config=CONFIG, seeds=(1, 2)):
    torch.manual_seed(0)
    adapter = attach(unet.requires_grad_(False), config).requires_grad_(True)
    with GradientStart(adapter) as start:
        for seed in seeds:
            backward(unet, seed)
    return adapter, start


def gradients(unet, seeds=(1, 2)):
    """The gradient of each projection's own weights, (in, out)."""
    linears = {p.name: unet.get_submodule(p.name) for p in find_projections(unet)}
    for linear in linears.values():
        linear.weight.requires_grad_(True)
    for seed in seeds:
        backward(unet, seed)
    return {name: linear.weight.grad.T for name, linear in linears.items()}


@pytest.mark.parametrize("routing", ["sample", "token", "static"])
def test_it_spans_the_leading_directions_of_the_gradients_of_all_layers_that_share_it(unet, routing):
    config = LilyConfig(r=3, stride_A=2, num_B=2, routing=routing)
    adapter, start = started(unet, config)
    start.apply()
    true = gradients(detached(unet))
    for group, As in zip(adapter.groups, adapter.lily_A, strict=True):
        for a, A in enumerate(As):
            layers = [layer for layer, its in zip(group.layers, group.A_of_layer, strict=True) if its == a]
            sharing = [true[layer] for layer in layers]
            random = torch.cat([start.random(layer, true[layer].shape[1]) for layer in layers])
            G = torch.cat(sharing, dim=1)
            sketch = start.sketches[adapter.groups.index(group), a]
            assert (sketch - G @ random).norm() < 1e-4 * sketch.norm()
            torch.testing.assert_close(A @ A.T, GAIN**2 * torch.eye(3), rtol=1e-4, atol=1e-5)
            best = torch.linalg.svdvals(G)[:3].square().sum()
            assert (A @ G).square().sum() / GAIN**2 >= 0.6 * best  # a tenth, if drawn


def detached(unet):
    detach(unet)
    return unet


def test_a_started_adapter_still_changes_no_bit(unet):
    plain = run(unet)
    _, start = started(unet)
    start.apply()
    assert torch.equal(run(unet), plain)


def test_checkpointing_hears_the_same(sd15):
    expected = started(sd15)[1].sketches
    detach(sd15)
    sd15.train().enable_gradient_checkpointing()
    for place, sketch in started(sd15)[1].sketches.items():
        torch.testing.assert_close(sketch, expected[place], rtol=1e-4, atol=1e-5 * float(expected[place].abs().max()))


def test_what_processes_heard_adds_up(sd15):
    whole = started(sd15, seeds=(1, 2))[1].sketches
    detach(sd15)
    parts = []
    for seed in (1, 2):
        parts.append(started(sd15, seeds=(seed,))[1].sketches)
        detach(sd15)
    for place, sketch in whole.items():
        both = parts[0][place] + parts[1][place]
        torch.testing.assert_close(both, sketch, rtol=1e-4, atol=1e-5 * float(sketch.abs().max()))


def test_what_was_not_heard_or_overflowed_stays_as_drawn(sd15):
    adapter, start = started(sd15, seeds=())
    first = next(iter(start.sketches))
    start.sketches[first].fill_(torch.inf)
    before = [A.detach().clone() for A in adapter.lily_A.parameters()]
    start.apply()
    assert all(torch.equal(a, b) for a, b in zip(adapter.lily_A.parameters(), before, strict=True))


def test_r_above_the_width_keeps_the_rest_as_drawn(sd15):
    """Rows beyond those that a narrow input has directions for."""
    widest = max(min(p.in_features, p.out_features) for p in find_projections(sd15))
    adapter, start = started(sd15, LilyConfig(r=widest, stride_A=2, num_B=2))
    before = [A.detach().clone() for A in adapter.lily_A.parameters()]
    start.apply()
    for A, drawn in zip(adapter.lily_A.parameters(), before, strict=True):
        found = min(A.shape)
        torch.testing.assert_close(A[:found] @ A[:found].T, GAIN**2 * torch.eye(found), rtol=1e-3, atol=1e-4)
        assert torch.equal(A[found:], drawn[found:])
