"""torch.compile, full graph: nothing is lost, and neither other weights nor other prompts compile anything anew."""

import copy

import pytest
import torch

from lily_diffusion import (
    LilyConfig,
    attach,
    detach,
    load_lily_weights,
    refresh,
    save_lily_weights,
    set_adapters,
    unload_lily_weights,
)
from lily_diffusion.sharing import KINDS, attention_modules

from .cases import CONFIG, Case
from .conftest import awaken


@pytest.fixture(params=["small unet", "dit"])
def case(request):
    return Case(request.param)


def count_programs(model, **options):
    """(compiled model, list that grows by one with every program that is made)."""
    made = []

    def backend(graph, inputs):
        made.append(graph)
        return graph.forward

    torch._dynamo.reset()
    return torch.compile(model, fullgraph=True, backend=backend, **options), made


def test_compiled_once_for_all_weights(case):
    attach(case.model, awaken(attach(copy.deepcopy(case.model), CONFIG, "x"), seed=9), "b")
    compiled, made = count_programs(case.model)
    for weights in ([1.0, 0.5], [0.3, -2.0], [{"to_q": 0.2}, "1,to_v=0"], [0.0, 1.0], ["0.5@0,1@1", 1], [1.0, 0.0]):
        set_adapters(case.model, ["a", "b"], weights)
        with torch.no_grad():
            got = compiled(**case.inputs, return_dict=False)[0]
        torch.testing.assert_close(got, case.run(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(got, case.adapted, rtol=1e-4, atol=1e-5)
    other = {**case.inputs, "encoder_hidden_states": torch.randn_like(case.inputs["encoder_hidden_states"])}
    with torch.no_grad():
        compiled(**other, return_dict=False)
    assert len(made) == 1


@pytest.mark.slow
def test_attached_after_compiling(case):
    detach(case.model)
    compiled, _ = count_programs(case.model)
    with torch.no_grad():
        assert torch.equal(compiled(**case.inputs, return_dict=False)[0], case.base)
        case.attach()
        torch.testing.assert_close(compiled(**case.inputs, return_dict=False)[0], case.adapted, rtol=1e-4, atol=1e-5)
        case.model.fuse_qkv_projections()
        torch.testing.assert_close(compiled(**case.inputs, return_dict=False)[0], case.adapted, rtol=1e-4, atol=1e-5)


def test_compiled_before_loading(case, tmp_path):
    """As pipelines do it: ``pipe.unet = torch.compile(pipe.unet)``, then load; names in the file know nothing of it."""
    path = save_lily_weights(case.model, tmp_path)
    detach(case.model)
    compiled, _ = count_programs(case.model)
    load_lily_weights(compiled, path, "a")
    with torch.no_grad():
        torch.testing.assert_close(compiled(**case.inputs, return_dict=False)[0], case.adapted, rtol=1e-4, atol=1e-5)
    unload_lily_weights(compiled)
    assert torch.equal(case.run(), case.base)


def test_replaced_processor_in_a_compiled_model(case):
    compiled, _ = count_programs(case.model)
    with torch.no_grad():
        compiled(**case.inputs)
        for _, attention in attention_modules(case.model):
            attention.processor = type(attention.get_processor())()
        with pytest.raises(Exception, match="refresh"):
            compiled(**case.inputs)
        refresh(case.model)
        torch.testing.assert_close(compiled(**case.inputs, return_dict=False)[0], case.adapted, rtol=1e-4, atol=1e-5)


def test_another_adapter_of_the_same_name_adapts_feed_forward_layers_too():
    """What was compiled for the first knows nothing of the hooks of the second."""
    case = Case("dit")
    detach(case.model)
    compiled, _ = count_programs(case.model, dynamic=True)
    for targets in ("attention", KINDS):
        awaken(attach(case.model, LilyConfig(r=4, num_B=2, target_modules=targets), "x"))
        with torch.no_grad():
            torch.testing.assert_close(compiled(**case.inputs, return_dict=False)[0], case.run(), rtol=1e-4, atol=1e-5)
        detach(case.model)
