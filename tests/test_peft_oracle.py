"""PEFT's own Lily as oracle: with the published routing and the same tensors, outputs and gradients agree."""

import copy

import pytest
import torch
from peft import LilyConfig as PeftLilyConfig
from peft import get_peft_model, inject_adapter_in_model
from torch.utils._pytree import tree_map

from lily_diffusion import LilyAdapter, LilyConfig, attach, detach, save_lily_weights
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
    adapter = LilyAdapter(config, tuple(groups)).to(first.lily_B["default"].weight.dtype)
    adapter.load_state_dict({k: v.detach().clone() for k, v in tensors.items()})
    return adapter, tensors


@pytest.mark.parametrize("stride_A", [1, 2, 3])
def test_outputs_and_gradients_equal_peft(unet, stride_A):
    torch.manual_seed(0)
    config = LilyConfig(r=8, stride_A=stride_A, num_B=3, scaling=1.5, routing="batch")
    reference = copy.deepcopy(unet)
    theirs = PeftLilyConfig(r=8, stride_A=stride_A, num_B=3, scaling=1.5, target_modules=TARGETS, init_weights=False)
    inject_adapter_in_model(theirs, reference)
    for model in (reference, unet):  # in float32, some routers' gradients are near their own rounding
        model.double()
    adapter, tensors = same_adapter(reference, config)
    assert set(adapter.layers) == set(peft_layers(reference))
    unet.requires_grad_(False)
    attach(unet, adapter)
    given = tree_map(lambda t: t.double() if t.is_floating_point() else t, inputs(unet, batch=3))
    expected, got = reference(**given).sample, unet(**given).sample
    assert (got - expected).norm() / expected.norm() < 1e-12
    expected.square().mean().backward()
    got.square().mean().backward()
    ours = dict(adapter.named_parameters())
    for name, parameter in ours.items():
        their_gradient = tensors[name].grad if tensors[name].is_leaf else None
        if their_gradient is None:  # B is a view of PEFT's matrix
            i = int(name.split(".")[1])
            layer = peft_layers(reference)[adapter.groups[i].layers[0]]
            their_gradient = layer.lily_B["default"].weight.grad.view_as(parameter)
        assert (parameter.grad - their_gradient).norm() <= 1e-9 * their_gradient.norm(), name
    assert set(ours) == set(tensors)


def theirs_in_diffusers(unet, num_B=2):
    """PEFT's Lily attached by diffusers' own call."""
    config = PeftLilyConfig(r=8, stride_A=4, num_B=num_B, target_modules=TARGETS, init_weights=False)
    unet.add_adapter(config, adapter_name="theirs")
    return unet


def test_what_the_readme_says_of_pefts_lily_in_diffusers(sd15, tmp_path):
    """When one of these stops to raise, the README's comparison has to change."""
    unet = theirs_in_diffusers(sd15)
    with pytest.raises(AttributeError):
        unet.set_adapters(["theirs"], [0.5])
    with pytest.raises(AttributeError), torch.no_grad():
        unet(**inputs(unet), cross_attention_kwargs={"scale": 0.5})
    with pytest.raises(NotImplementedError):
        unet.fuse_lora()
    with pytest.raises(RuntimeError, match="share memory"):
        unet.save_lora_adapter(tmp_path, adapter_name="theirs")


def test_pefts_lily_couples_the_samples_of_a_batch(sd15):
    unet, given = theirs_in_diffusers(sd15), inputs(sd15)
    with torch.no_grad():
        together = unet(**given).sample[:1]
        alone = unet(**{k: v[:1] for k, v in given.items()}).sample
    assert (together - alone).abs().max() > 1e-3 * together.abs().max()


def test_pefts_file_repeats_what_is_shared(sd15, tmp_path):
    config = LilyConfig(r=8, stride_A=4, num_B=2)
    adapter = attach(sd15, config)
    ours = save_lily_weights(sd15, tmp_path / "ours").stat().st_size
    detach(sd15)
    theirs = PeftLilyConfig(r=8, stride_A=4, num_B=2, target_modules=TARGETS)
    get_peft_model(sd15, theirs).save_pretrained(tmp_path / "theirs")
    size = (tmp_path / "theirs" / "adapter_model.safetensors").stat().st_size
    assert size > 2 * 4 * adapter.num_parameters() and ours <= 4 * adapter.num_parameters() + 64 * 1024
