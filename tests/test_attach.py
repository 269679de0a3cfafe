"""Attaching changes nothing until trained; detaching leaves no trace; what users do in between loses nothing."""

import copy
import pickle

import peft
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

from lily_diffusion import LilyAttnProcessor, LilyConfig, attach, detach, set_adapters
from lily_diffusion.sharing import find_linear_layers, find_projections
from lily_diffusion.state import get_adapters

from .conftest import awaken, inputs, run
from .zoo import build

CONFIG = LilyConfig(r=4, stride_A=2, num_B=2, target_modules=("attention", "feed-forward"))


def traces(unet):
    """All that a user could notice of an adapter, besides the outputs."""
    return (
        {name: id(p) for name, p in unet.attn_processors.items()},
        {name: sorted(m.__dict__) for name, m in unet.named_modules()},
        list(unet.state_dict()),
        [(n, p.requires_grad) for n, p in unet.named_parameters()],
        len(unet._forward_pre_hooks),
    )


@pytest.mark.parametrize("routing", ["sample", "batch", "token", "static"])
def test_fresh_adapter_changes_no_bit(unet, routing):
    before = run(unet)
    attach(unet, LilyConfig(r=4, routing=routing))
    assert torch.equal(run(unet), before)


def test_attach_leaves_keys_flags_and_parameters(unet):
    for i, p in enumerate(unet.parameters()):
        p.requires_grad_(i % 2 == 0)
    keys, flags = list(unet.state_dict()), [p.requires_grad for p in unet.parameters()]
    values = [p.clone() for p in unet.parameters()]
    attach(unet, CONFIG)
    assert list(unet.state_dict()) == keys
    assert [p.requires_grad for p in unet.parameters()] == flags
    assert all(torch.equal(a, b) for a, b in zip(unet.parameters(), values, strict=True))
    assert all(isinstance(m.processor, LilyAttnProcessor) for m in unet.modules() if hasattr(m, "processor"))


def test_detach_restores_everything(unet):
    before, output = traces(unet), run(unet)
    objects = list(unet.attn_processors.values())
    awaken(attach(unet, CONFIG, "a"))
    awaken(attach(unet, CONFIG, "b"))
    assert not torch.equal(run(unet), output)
    detach(unet, "a")
    assert not torch.equal(run(unet), output)
    detach(unet, "b")
    assert traces(unet) == before
    assert all(a is b for a, b in zip(unet.attn_processors.values(), objects, strict=True))
    assert torch.equal(run(unet), output)


def test_detach_of_all(unet):
    output = run(unet)
    awaken(attach(unet, CONFIG, "a"))
    awaken(attach(unet, CONFIG, "b"))
    detach(unet)
    assert torch.equal(run(unet), output) and get_adapters(unet) == {}
    detach(unet)


def test_failed_attach_changes_nothing(sd15):
    before = traces(sd15)
    with pytest.raises(ValueError):
        attach(sd15, LilyConfig(r=4, target_modules=["nothing"]))
    with pytest.raises(ValueError):
        attach(sd15, LilyConfig(r=65))
    assert traces(sd15) == before


def test_users_see_their_own_processors(unet):
    mine = AttnProcessor()
    output = run(unet)
    awaken(attach(unet, CONFIG))
    adapted = run(unet)
    unet.set_attn_processor(mine)
    assert all(p is mine for p in unet.attn_processors.values())
    torch.testing.assert_close(run(unet), adapted, rtol=1e-4, atol=1e-5)
    unet.set_default_attn_processor()
    torch.testing.assert_close(run(unet), adapted, rtol=1e-4, atol=1e-5)
    detach(unet)
    torch.testing.assert_close(run(unet), output, rtol=1e-4, atol=1e-5)


def test_directly_assigned_processors_are_wrapped_again(unet):
    awaken(attach(unet, CONFIG))
    adapted = run(unet)
    for module in unet.modules():
        if hasattr(module, "processor"):
            module.processor = AttnProcessor2_0()
    assert torch.equal(run(unet), adapted)


def test_attention_slicing_and_fused_projections(unet):
    awaken(attach(unet, CONFIG))
    adapted = run(unet)
    unet.set_attention_slice(1)
    torch.testing.assert_close(run(unet), adapted, rtol=1e-4, atol=1e-5)
    unet.set_attn_processor(AttnProcessor2_0())
    unet.fuse_qkv_projections()
    torch.testing.assert_close(run(unet), adapted, rtol=1e-4, atol=1e-5)
    unet.unfuse_qkv_projections()
    torch.testing.assert_close(run(unet), adapted, rtol=1e-4, atol=1e-5)


def test_hooks_on_a_projection_keep_what_the_layer_itself_answered(unet):
    plain, kept = [], []
    projection = unet.get_submodule(find_projections(unet)[0].name)
    hook = projection.register_forward_hook(lambda module, args, y: plain.append(y))
    run(unet)
    hook.remove()
    awaken(attach(unet, CONFIG))
    projection.register_forward_hook(lambda module, args, y: kept.append(y))
    run(unet)
    assert torch.equal(kept[0], plain[0])


def test_fused_before_attach(unet):
    reference = copy.deepcopy(unet)
    adapter = awaken(attach(reference, CONFIG))
    unet.fuse_qkv_projections()
    attach(unet, copy.deepcopy(adapter))
    torch.testing.assert_close(run(unet), run(reference), rtol=1e-4, atol=1e-5)
    unet.unfuse_qkv_projections()
    torch.testing.assert_close(run(unet), run(reference), rtol=1e-4, atol=1e-5)


def test_function_and_slotted_processors(sd15):
    class Slotted:
        __slots__ = ()

        def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
            return AttnProcessor2_0()(attn, hidden_states, encoder_hidden_states, attention_mask, temb)

    def function(attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        return AttnProcessor2_0()(attn, hidden_states, encoder_hidden_states, attention_mask, temb)

    awaken(attach(sd15, CONFIG))
    adapted = run(sd15)
    for processor in (Slotted(), function):
        sd15.set_attn_processor(processor)
        assert torch.equal(run(sd15), adapted)
        assert all(p is processor for p in sd15.attn_processors.values())


MASK = torch.zeros(2, 2)  # a name in a processor's code may be anything


def test_what_a_processor_keeps_on_the_module_stays_there(sd15):
    class Counting(AttnProcessor2_0):
        def __call__(self, attn, *args, **kwargs):
            attn.calls = getattr(attn, "calls", 0) + len(MASK)
            return super().__call__(attn, *args, **kwargs)

    sd15.set_attn_processor(Counting())
    awaken(attach(sd15, CONFIG))
    run(sd15)
    run(sd15)
    assert {module.calls for module in sd15.modules() if hasattr(module, "processor")} == {4}


def test_copies_are_independent(unet):
    output = run(unet)
    awaken(attach(unet, CONFIG, "a"))
    adapted = run(unet)
    for other in (copy.deepcopy(unet), pickle.loads(pickle.dumps(unet))):
        assert torch.equal(run(other), adapted)
        set_adapters(other, "a", 0.0)
        assert torch.equal(run(other), output) and torch.equal(run(unet), adapted)
        detach(other)
        assert torch.equal(run(other), output) and torch.equal(run(unet), adapted)


def test_batch_invariance(unet):
    """An image alone and among seven others: no further apart than the base model's own rounding."""
    given = inputs(unet, batch=8)
    one = {k: ({n: t[:1] for n, t in v.items()} if isinstance(v, dict) else v[:1]) for k, v in given.items()}

    def gap():
        with torch.no_grad():
            return (unet(**given).sample[:1] - unet(**one).sample).abs().max().item()

    base = gap()
    awaken(attach(unet, CONFIG), std=0.3)
    assert gap() <= 2 * base + 1e-6
    detach(unet)
    awaken(attach(unet, LilyConfig(r=4, stride_A=2, num_B=2, routing="batch")), std=0.3)
    assert gap() > 100 * (base + 1e-7)  # the measure does see the coupling of the published routing


def test_a_vector_for_each_image_is_routed_by_itself(sd15):
    layer = sd15.time_embedding.linear_2
    x = torch.randn(4, layer.in_features)
    before = layer(x)
    awaken(attach(sd15, LilyConfig(r=4, num_B=2, target_modules="time_embedding.linear_2")), std=0.3)
    torch.testing.assert_close(layer(x)[:1], layer(x[:1]))
    assert layer(x).shape == before.shape and not torch.allclose(layer(x), before, rtol=1e-2)


def test_the_rows_of_a_matrix_are_the_tokens_of_one_sample_in_feed_forward_layers(sd15):
    layer = sd15.mid_block.attentions[0].transformer_blocks[0].ff.net[2]
    x = torch.randn(5, layer.in_features)
    awaken(attach(sd15, LilyConfig(r=4, num_B=2, target_modules="ff.net.2")), std=0.3)
    torch.testing.assert_close(layer(x), layer(x[None])[0])
    assert not torch.allclose(layer(x)[:1], layer(x[:1]), rtol=1e-2)


def test_layers_that_are_called_by_keyword():
    model, given = build("UNetMotionModel")
    adapter = attach(model, LilyConfig(r=4, num_B=2, target_modules="motion_modules.0.proj_in"))
    with torch.no_grad():
        before = model(**given).sample
        awaken(adapter)
        assert not torch.allclose(model(**given).sample, before, rtol=1e-2)


def test_convolutions_with_another_tools_adapter_are_no_linear_layers():
    model, _ = build("SanaTransformer2DModel")
    before = find_linear_layers(model)
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q", "conv_point"]))
    assert find_linear_layers(model) == before


def test_an_adapter_on_a_model_without_attention(sd15):
    adapter = attach(sd15, LilyConfig(r=4))
    with pytest.raises(ValueError, match=r"The adapter is for another base: .* layers are not in this Sequential"):
        attach(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU()), adapter)


def test_only_the_adapted_layers_have_hooks(sd15):
    def hooked():
        return {name for name, module in sd15.named_modules() if module._forward_hooks}

    last, first = ({n for n, _ in sd15.named_modules() if n.endswith(end)} for end in ("ff.net.2", "ff.net.0.proj"))
    attach(sd15, LilyConfig(r=4, target_modules="to_q"), "attention")
    assert hooked() == set()
    attach(sd15, LilyConfig(r=4, target_modules="ff.net.2"), "last")
    attach(sd15, LilyConfig(r=4, target_modules="feed-forward"), "both")
    assert hooked() == first | last
    detach(sd15, "both")
    assert hooked() == last
    detach(sd15)
    assert hooked() == set()


def test_signature_is_the_processors_own(sd15):
    import inspect

    plain = inspect.signature(AttnProcessor2_0().__call__)
    attach(sd15, CONFIG)
    wrapped = [m.processor for m in sd15.modules() if hasattr(m, "processor")]
    assert all(inspect.signature(p.__call__) == plain for p in wrapped)


def test_compiles_without_a_break(small):
    awaken(attach(small, CONFIG))
    compiled = torch.compile(small, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(**inputs(small)).sample, run(small), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_base(unet, dtype):
    def half(value):
        if isinstance(value, dict):
            return {k: half(v) for k, v in value.items()}
        return value.to(dtype) if value.is_floating_point() else value

    awaken(attach(unet, CONFIG))
    full = run(unet)
    unet.to(dtype)
    got = run(unet, **{k: half(v) for k, v in inputs(unet).items()})
    assert got.dtype == dtype
    assert (got.float() - full).abs().max() < 0.1 * full.abs().max()
