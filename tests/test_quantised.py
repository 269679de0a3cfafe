"""A quantised base stays quantised, and the adapter runs beside it in its own precision."""

import pytest
import torch
from torch import nn

from lily_diffusion.sharing import find_projections

from .cases import Case


def by_torchao(model):
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    names = {p.name for p in find_projections(model)}
    quantize_(model, Int8WeightOnlyConfig(), filter_fn=lambda module, name: name in names)


def by_bitsandbytes(bits):
    def quantise(model):
        import bitsandbytes

        for projection in find_projections(model):
            parent, _, name = projection.name.rpartition(".")
            linear = model.get_submodule(projection.name)
            sizes = (linear.in_features, linear.out_features, linear.bias is not None)
            if bits == 8:
                new = bitsandbytes.nn.Linear8bitLt(*sizes, has_fp16_weights=False)
            else:
                new = bitsandbytes.nn.Linear4bit(*sizes, compute_dtype=torch.float32, quant_type="nf4")
            new.load_state_dict(linear.state_dict())
            setattr(model.get_submodule(parent), name, new.to("cpu"))

    return quantise


@pytest.mark.parametrize("kind", ["unet", "dit"])
@pytest.mark.parametrize(
    "quantise", [by_torchao, by_bitsandbytes(8), by_bitsandbytes(4)], ids=["torchao int8", "bnb int8", "bnb nf4"]
)
def test_quantised_base(kind, quantise):
    case = Case(kind)
    case.same_in_either_order(quantise)
    case.model(**case.inputs, return_dict=False)[0].square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in case.adapter.parameters())
    for projection in find_projections(case.model):
        layer = case.model.get_submodule(projection.name)
        assert type(layer) is not nn.Linear or type(layer.weight.data) is not torch.Tensor
