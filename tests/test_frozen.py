"""A frozen adapter's update is one matrix, and an adapter in the form of a LoRA is that matrix again."""

import pytest
import torch

from lily_diffusion import LilyConfig, attach, get_active_adapters
from lily_diffusion.frozen import factors, from_factors, is_frozen, projections

from .conftest import awaken


def static_adapter(unet, **more):
    torch.manual_seed(0)
    return awaken(attach(unet, LilyConfig(r=6, stride_A=2, num_B=3, scaling=1.5, routing="static", **more)))


def test_factors_are_the_update(unet):
    adapter = static_adapter(unet)
    assert is_frozen(adapter)
    for p in projections(adapter)[::5]:
        down, up = factors(adapter, p.name)
        x = torch.randn(2, 5, p.in_features)
        torch.testing.assert_close(x @ down.T @ up.T, adapter(p.name, x), rtol=1e-5, atol=1e-6)


def test_from_factors_gives_the_same_updates(unet):
    adapter = static_adapter(unet)
    again = from_factors({p: factors(adapter, p.name) for p in projections(adapter)})
    assert again.config.num_B == 1 and is_frozen(again)
    for p in projections(adapter):
        x = torch.randn(1, 4, p.in_features)
        torch.testing.assert_close(again(p.name, x), adapter(p.name, x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n_in, n_out", [(8, 20), (20, 8)])
def test_a_rank_beyond_the_width_is_brought_down_exactly(sd15, n_in, n_out):
    p = projections(static_adapter(sd15))[0]
    p = type(p)(p.name, p.attribute, n_in, n_out)
    down, up = torch.randn(30, n_in), torch.randn(n_out, 30)
    again = from_factors({p: (down, up)})
    assert again.config.r == 8
    down2, up2 = factors(again, p.name)
    torch.testing.assert_close(up2 @ down2, up @ down)


def test_a_routed_adapter_has_no_factors(sd15):
    adapter = attach(sd15, LilyConfig(r=4))
    with pytest.raises(ValueError, match="bake it first"):
        factors(adapter, adapter.layers[0])


def test_one_expert_needs_static_routing(sd15):
    with pytest.raises(ValueError, match="routing='static'"):
        LilyConfig(num_B=1)
    attach(sd15, LilyConfig(r=4, num_B=1, routing="static"))
    assert get_active_adapters(sd15) == ["default"]


def test_nothing_is_drawn(sd15):
    adapter = static_adapter(sd15)
    state = torch.get_rng_state()
    from_factors({p: factors(adapter, p.name) for p in projections(adapter)})
    assert torch.equal(torch.get_rng_state(), state)
