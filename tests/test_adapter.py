"""The adapter's tensors: each once, drawn as the paper draws them, and trained by every layer that shares them."""

import pytest
import torch

from lily_diffusion import LilyConfig, attach

from .conftest import awaken, inputs


def test_init(sd15):
    adapter = attach(sd15, LilyConfig(r=8, stride_A=2, num_B=3))
    assert all(B.eq(0).all() for B in adapter.lily_B)
    for As in adapter.lily_A:
        for A in As:
            bound = A.shape[1] ** -0.5
            assert A.abs().max() <= bound and A.std() > bound / 3


@pytest.mark.parametrize("routing", ["sample", "batch", "token", "static"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_every_tensor_gets_a_finite_gradient(unet, routing, checkpointing):
    adapter = awaken(attach(unet, LilyConfig(r=4, stride_A=2, num_B=2, routing=routing)))
    unet.requires_grad_(False).train()
    if checkpointing:
        unet.enable_gradient_checkpointing()
    unet(**inputs(unet)).sample.square().mean().backward()
    for name, p in adapter.named_parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all() and p.grad.abs().max() > 0, name
    assert all(p.grad is None for p in unet.parameters())


def test_first_step_moves_only_the_experts(sd15):
    adapter = attach(sd15, LilyConfig(r=4))
    sd15(**inputs(sd15)).sample.square().mean().backward()
    assert all(B.grad.abs().max() > 0 for B in adapter.lily_B)
    assert all(A.grad.eq(0).all() for As in adapter.lily_A for A in As)


def test_experts_part_under_static_routing(sd15):
    torch.manual_seed(0)
    adapter = attach(sd15, LilyConfig(r=4, num_B=2, routing="static"))
    optimizer = torch.optim.AdamW(adapter.parameters(), 1e-2)
    for _ in range(5):
        loss = (sd15(**inputs(sd15)).sample - 1).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert any((B[0] - B[1]).abs().max() > 1e-4 for B in adapter.lily_B)


def test_dropout_acts_in_training_only(sd15):
    adapter = awaken(attach(sd15, LilyConfig(r=4, dropout=0.5)))
    x, layer = torch.randn(1, 5, 32), adapter.groups[0].layers[0]
    assert not adapter.training, "as the model is"
    adapter.train()
    assert not torch.equal(adapter(layer, x), adapter(layer, x))
    adapter.eval()
    assert torch.equal(adapter(layer, x), adapter(layer, x))
