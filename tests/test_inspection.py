"""What the routers do, measured against the definition."""

import math

import pytest
import torch

from lily_diffusion import LilyConfig, attach
from lily_diffusion.inspection import expert_similarity, record_routing

from .conftest import awaken, run


def test_usage_and_entropy(sd15):
    adapter = awaken(attach(sd15, LilyConfig(r=4, num_B=3, routing="static")))
    with record_routing(sd15) as recorder:
        run(sd15)
    usage, entropy = recorder.usage(), recorder.entropy()
    assert set(usage) == set(entropy) == set(adapter.layers)
    for layer in adapter.layers:
        p = adapter.tensors(layer)[2].softmax(0)
        torch.testing.assert_close(torch.tensor(usage[layer]), p.detach())
        assert entropy[layer] == pytest.approx(-(p * p.log()).sum().item() / math.log(3), abs=1e-5)
    assert adapter.recorder is None


def test_recording_changes_nothing(sd15):
    awaken(attach(sd15, LilyConfig(r=4)))
    before = run(sd15)
    with record_routing(sd15):
        assert torch.equal(run(sd15), before)


def test_expert_similarity(sd15):
    adapter = attach(sd15, LilyConfig(r=4, num_B=3))
    assert set(expert_similarity(adapter).values()) == {0.0}
    with torch.no_grad():
        for B in adapter.lily_B:
            B.copy_(torch.randn(1, *B.shape[1:]).expand_as(B))
    assert all(abs(v - 1) < 1e-5 for v in expert_similarity(adapter).values())


def test_nothing_to_listen_to(sd15):
    with pytest.raises(ValueError, match="no adapter"), record_routing(sd15):
        pass
