"""PEFT's own Lily as oracle: with the published routing and the same tensors, outputs and gradients agree."""

import copy

import pytest
import torch
from peft import LilyConfig as PeftLilyConfig
from peft import inject_adapter_in_model

from lily_diffusion import LilyAdapter, LilyConfig, attach
from lily_diffusion.sharing import Group

from .conftest import inputs

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


def peft_layers(unet):
    return {
        n: m
        for n, m in unet.named_modules()
        if type(m).__module__.startswith("peft.tuners.lily") and hasattr(m, "lily_B")
    }


def same_adapter(reference, config):
    """Our adapter with PEFT's tensors, shared by the layers that share them there."""
    families = {}
    for name, layer in peft_layers(reference).items():
        families.setdefault(layer.lily_B["default"].weight.data_ptr(), {})[name] = layer
    groups, tensors = [], {}
    for i, family in enumerate(families.values()):
        As = {}
        for layer in family.values():
            As.setdefault(layer.lily_A["default"].weight.data_ptr(), layer.lily_A["default"].weight)
        order = list(As)
        first = next(iter(family.values()))
        places = tuple(order.index(layer.lily_A["default"].weight.data_ptr()) for layer in family.values())
        attribute = next(t for t in TARGETS if next(iter(family)).endswith(t))
        groups.append(Group(attribute, first.in_features, first.out_features, tuple(family), places))
        tensors |= {f"lily_A.{i}.{a}": A for a, A in enumerate(As.values())}
        tensors[f"lily_B.{i}"] = first.lily_B["default"].weight.view(config.num_B, config.r, -1)
        tensors |= {f"lily_router.{i}.{n}": x.lily_router["default"].weight for n, x in enumerate(family.values())}
    adapter = LilyAdapter(config, tuple(groups))
    adapter.load_state_dict({k: v.detach().clone() for k, v in tensors.items()})
    return adapter, tensors


@pytest.mark.parametrize("stride_A", [1, 2, 3])
def test_outputs_and_gradients_equal_peft(unet, stride_A):
    torch.manual_seed(0)
    config = LilyConfig(r=8, stride_A=stride_A, num_B=3, scaling=1.5, routing="batch")
    reference = copy.deepcopy(unet)
    theirs = PeftLilyConfig(r=8, stride_A=stride_A, num_B=3, scaling=1.5, target_modules=TARGETS, init_weights=False)
    inject_adapter_in_model(theirs, reference)
    adapter, tensors = same_adapter(reference, config)
    assert set(adapter.layers) == set(peft_layers(reference))
    unet.requires_grad_(False)
    attach(unet, adapter)
    given = inputs(unet, batch=3)
    expected, got = reference(**given).sample, unet(**given).sample
    with torch.no_grad():
        assert (expected - copy.deepcopy(unet)(**given).sample).abs().max() < 1e-4
    assert (got - expected).norm() / expected.norm() < 1e-5
    expected.square().mean().backward()
    got.square().mean().backward()
    ours = dict(adapter.named_parameters())
    names = {id(module_weight): name for name, module_weight in tensors.items()}
    for name, parameter in ours.items():
        their_gradient = tensors[name].grad if tensors[name].is_leaf else None
        if their_gradient is None:  # B is a view of PEFT's matrix
            i = int(name.split(".")[1])
            layer = peft_layers(reference)[adapter.groups[i].layers[0]]
            their_gradient = layer.lily_B["default"].weight.grad.view_as(parameter)
        assert (parameter.grad - their_gradient).norm() <= 1e-5 * their_gradient.norm(), name
    assert len(names) == len(ours)
