"""Frozen adapters inside the model's weights: the same outputs, and every bit back afterwards."""

import copy
from dataclasses import replace

import pytest
import torch

from lily_diffusion import (
    LilyConfig,
    attach,
    delete_adapters,
    detach,
    disable_lily,
    fuse_lily,
    get_adapter_weights,
    get_fused_adapters,
    set_adapters,
    unfuse_lily,
    unload_lily_weights,
)

from .cases import CONFIG, Case
from .conftest import awaken
from .test_quantised import by_bitsandbytes, by_torchao

STATIC = replace(CONFIG, scaling=1.5, routing="static")


class Fusable(Case):
    """A UNet or a DiT with two frozen adapters."""

    def __init__(self, kind):
        super().__init__(kind)
        detach(self.model)
        self.before = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        for seed, name in enumerate("ab"):
            awaken(attach(self.model, STATIC, name), seed=seed)

    def is_untouched(self):
        now = self.model.state_dict()
        return now.keys() == self.before.keys() and all(torch.equal(now[k], t) for k, t in self.before.items())


@pytest.fixture(params=["unet", "dit"])
def case(request):
    return Fusable(request.param)


def test_fused_outputs_are_the_same_and_every_bit_comes_back(case):
    set_adapters(case.model, ["a", "b"], [0.8, {"to_v": 0.5}])
    expected = case.run()
    fuse_lily(case.model)
    assert not case.is_untouched()
    assert (case.run() - expected).norm() / (expected - case.base).norm() < 1e-5
    assert get_fused_adapters(case.model) == ["a", "b"] and get_adapter_weights(case.model) == {}
    unfuse_lily(case.model)
    assert case.is_untouched() and get_fused_adapters(case.model) == []
    assert torch.equal(case.run(), expected)
    assert get_adapter_weights(case.model) == {"a": 0.8, "b": "to_v=0.5"}


def test_one_fused_beside_one_that_runs(case):
    set_adapters(case.model, ["a", "b"], [0.8, -0.5])
    expected = case.run()
    fuse_lily(case.model, adapter_names="a")
    assert get_adapter_weights(case.model) == {"b": -0.5}
    assert (case.run() - expected).norm() / (expected - case.base).norm() < 1e-5
    set_adapters(case.model, "b", 0)
    alone = case.run()
    unfuse_lily(case.model)
    set_adapters(case.model, ["a"], [0.8])
    torch.testing.assert_close(case.run(), alone, rtol=1e-4, atol=1e-5)


def test_lily_scale(case):
    set_adapters(case.model, ["a", "b"], [0.4, 0.2])
    expected = case.run()
    set_adapters(case.model, ["a", "b"], [0.8, 0.4])
    fuse_lily(case.model, lily_scale=0.5)
    torch.testing.assert_close(case.run(), expected, rtol=1e-4, atol=1e-5)
    unfuse_lily(case.model)
    assert get_adapter_weights(case.model) == {"a": 0.8, "b": 0.4}


def test_unloading_takes_fused_adapters_out(case):
    fuse_lily(case.model)
    unload_lily_weights(case.model)
    assert case.is_untouched() and torch.equal(case.run(), case.base)
    unfuse_lily(case.model)  # nothing is fused, nothing happens


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_comes_back_too(sd15, dtype):
    sd15.to(dtype)
    awaken(attach(sd15, STATIC, "a"))
    before = copy.deepcopy(sd15.state_dict())
    fuse_lily(sd15)
    changed = [k for k, t in sd15.state_dict().items() if not torch.equal(t, before[k])]
    assert len(changed) == len(sd15.__dict__["_lily"].adapters["a"].layers)
    unfuse_lily(sd15)
    assert all(torch.equal(t, before[k]) for k, t in sd15.state_dict().items())


def test_projections_that_the_model_fuses_afterwards(case):
    fuse_lily(case.model)
    case.model.fuse_qkv_projections()
    unfuse_lily(case.model)
    unload_lily_weights(case.model)
    torch.testing.assert_close(case.run(), case.base, rtol=1e-4, atol=1e-5)


def test_projections_that_the_model_fuses_for_a_while(case):
    case.model.fuse_qkv_projections()
    fuse_lily(case.model)
    case.model.unfuse_qkv_projections()
    unfuse_lily(case.model)
    now = case.model.state_dict()  # a UNet keeps the fused projections in it
    assert all(torch.equal(now[k], t) for k, t in case.before.items())


def refuses_to_unfuse(case, message):
    for action in (unfuse_lily, unload_lily_weights):
        with pytest.raises(ValueError, match=message):
            action(case.model)
    assert get_fused_adapters(case.model) == ["a", "b"]


def test_offloaded_after_fusing():
    case = Fusable("unet")
    fuse_lily(case.model)
    case.model.to("meta")
    refuses_to_unfuse(case, "offloaded: it cannot be unfused any more")


@pytest.mark.parametrize("quantise", [by_torchao, by_bitsandbytes(8), by_bitsandbytes(4)], ids=["ao", "int8", "nf4"])
def test_quantised_after_fusing(quantise):
    case = Fusable("unet")
    fuse_lily(case.model)
    quantise(case.model)
    refuses_to_unfuse(case, "quantised.*it cannot be unfused any more")


@pytest.mark.parametrize("kind", ["unet", "dit"])
def test_with_fused_projections_of_the_model(kind):
    case = Fusable(kind)
    case.model.fuse_qkv_projections()
    expected = case.run()
    base = copy.deepcopy(case.model.state_dict())
    fuse_lily(case.model)
    torch.testing.assert_close(case.run(), expected, rtol=1e-4, atol=1e-5)
    unfuse_lily(case.model)
    assert all(torch.equal(t, base[k]) for k, t in case.model.state_dict().items())


def refused(case, message, **more):
    before = get_adapter_weights(case.model)
    with pytest.raises(ValueError, match=message):
        fuse_lily(case.model, **more)
    assert case.is_untouched() and get_adapter_weights(case.model) == before


def test_what_cannot_be_fused(case):
    refused(case, "no adapter named 'c'", adapter_names=["c"])
    set_adapters(case.model, "a", "1@0,0@1")
    refused(case, "changes by step")
    set_adapters(case.model, [])
    refused(case, "no active adapter")
    awaken(attach(case.model, LilyConfig(r=4), "routed"))
    refused(case, "'routed' chooses its experts by the input.*bake", adapter_names=["routed"])
    set_adapters(case.model, "a", 1e300)
    refused(case, "not finite")
    refused(case, "lily_scale must be a finite number", lily_scale="x")
    set_adapters(case.model, "a")
    disable_lily(case.model)
    refused(case, "switched off; call enable_lily")


def test_what_a_fused_adapter_refuses(case):
    fuse_lily(case.model, adapter_names=["a"])
    actions = (
        lambda: set_adapters(case.model, "a", 0.5),
        lambda: delete_adapters(case.model, ["b", "a"]),
        lambda: disable_lily(case.model),
    )
    for action in actions:
        with pytest.raises(ValueError, match="'a' is fused into the weights; call unfuse_lily"):
            action()
    assert get_adapter_weights(case.model) == {"b": 1.0}
    with pytest.raises(ValueError, match="'a' is fused already"):
        fuse_lily(case.model)


@pytest.mark.parametrize(
    "quantise", [by_torchao, by_bitsandbytes(8), by_bitsandbytes(4)], ids=["torchao", "int8", "nf4"]
)
def test_quantised_weights_are_refused(quantise):
    case = Fusable("unet")
    quantise(case.model)
    with pytest.raises(ValueError, match=r"quantised.*fuse before that"):
        fuse_lily(case.model)


def test_without_adapters(sd15):
    with pytest.raises(ValueError, match="no active adapter"):
        fuse_lily(sd15)
