"""Blending is the exact weighted sum, and every mistake in asking for it is an error."""

import pytest
import torch

from lily_diffusion import (
    LilyConfig,
    attach,
    delete_adapters,
    detach,
    disable_lily,
    enable_lily,
    get_active_adapters,
    get_adapter_weights,
    get_list_adapters,
    set_adapters,
    unload_lily_weights,
)
from lily_diffusion.attention_processor import AttentionView
from lily_diffusion.state import get_state

from .conftest import awaken, run

A = LilyConfig(r=4, stride_A=2, num_B=2)
B = LilyConfig(r=8, stride_A=1, num_B=3, scaling=2.0, routing="token")


@pytest.fixture
def two(unet):
    awaken(attach(unet, A, "a"), seed=1)
    awaken(attach(unet, B, "b"), seed=2)
    return unet


def test_sum_of_single_effects_on_every_projection(two):
    state = get_state(two)
    for attention in state.attentions:
        view = AttentionView(attention)
        for attribute, layer in attention.__dict__["_lily"].layers.items():
            base = two.get_submodule(layer)
            x = torch.randn(2, 5, base.in_features)

            def projected(view=view, attribute=attribute, x=x):
                projection = view
                for part in attribute.split("."):
                    projection = projection[int(part)] if part.isdigit() else getattr(projection, part)
                return projection(x)

            y = base(x)
            effects = {}
            for name in "ab":
                set_adapters(two, name, 1.0)
                effects[name] = projected() - y
            set_adapters(two, ["a", "b"], [0.7, -0.4])
            expected = 0.7 * effects["a"] - 0.4 * effects["b"]
            torch.testing.assert_close(projected() - y, expected, rtol=1e-4, atol=1e-5)
            assert expected.abs().max() > 1e-3


def test_order_does_not_matter(two):
    set_adapters(two, ["a", "b"], [0.3, 0.9])
    first = run(two)
    set_adapters(two, ["b", "a"], [0.9, 0.3])
    assert torch.equal(run(two), first)


def test_order_of_loading_does_not_matter(sd15):
    adapters = {"a": awaken(attach(sd15, A, "a"), seed=1), "b": awaken(attach(sd15, B, "b"), seed=2)}
    first = run(sd15)
    detach(sd15)
    for name in "ba":
        attach(sd15, adapters[name], name)
    assert torch.equal(run(sd15), first)


def test_zero_is_not_loaded(two):
    set_adapters(two, ["a", "b"], [1.0, 0.0])
    with_zero = run(two)
    delete_adapters(two, "b")
    assert torch.equal(run(two), with_zero)


def test_set_adapters_activates_only_the_named(two):
    set_adapters(two, "b")
    assert get_active_adapters(two) == ["b"] and get_adapter_weights(two) == {"b": 1.0}
    component = next(iter(get_list_adapters(two)))
    assert get_list_adapters(two) == {component: ["a", "b"]}
    set_adapters(two, ["a", "b"], [None, 0.5])
    assert get_adapter_weights(two) == {"a": 1.0, "b": 0.5}
    set_adapters(two, ["a", "b"], 0.25)
    assert get_adapter_weights(two) == {"a": 0.25, "b": 0.25}
    set_adapters(two, [])
    assert get_active_adapters(two) == []


def test_call_scale_multiplies(two):
    set_adapters(two, ["a", "b"], [0.5, 0.25])
    half = run(two)
    set_adapters(two, ["a", "b"], [1.0, 0.5])
    torch.testing.assert_close(run(two, cross_attention_kwargs={"scale": 0.5}), half, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(run(two), half, atol=1e-4)  # one call's scale does not stay


def test_disable_and_enable(two):
    adapted = run(two)
    disable_lily(two)
    assert get_active_adapters(two) == []
    off = run(two)
    enable_lily(two)
    assert torch.equal(run(two), adapted)
    unload_lily_weights(two)
    assert torch.equal(run(two), off)


@pytest.mark.parametrize(
    ("names", "weights", "message"),
    [
        (["a", "c"], None, "no adapter named 'c'; there is 'a', 'b'"),
        (["a", "b"], [1.0], "2 adapter names and 1 weights"),
        (["a", "a"], [1.0, 0.5], "'a' is named twice"),
        ("a", float("nan"), "must be a finite number"),
        ("a", "half", "must be a finite number"),
        ("a", True, "must be a finite number"),
        (["a"], [{"downs": 0.5}], "'downs' names no adapted layer. Did you mean down.*Known: .*mid.*attn1.*to_q"),
        ("a", {"down": {"block_7": 0.5}}, "'down.7' names no adapted layer"),
        ("a", "0.5,mid=1,mid=2", "names a block twice"),
        ("a", "1@0,0.5", "needs its @fraction"),
        ("a", "1@0.5,0@0.2", "rising fractions"),
        ("a", "0.7@0.5", "one keyframe alone changes nothing: write 0.7"),
        ("a", "1@0,held", "one keyframe alone changes nothing: write 1"),
        ("a", "0=0.5", "'0' names no adapted layer"),
        ("a", "1@0,0@1.5", "from 0 to 1"),
        ("a", "1@x,0@1", "must be a finite number"),
        ("a", {}, "at least one block"),
        ("a", {"mid": "0.5,down=1"}, "number or keyframes"),
        ("a", {"mid": None}, "must be a finite number"),
    ],
)
def test_mistakes_change_nothing(two, names, weights, message):
    before = get_adapter_weights(two)
    with pytest.raises(ValueError, match=message):
        set_adapters(two, names, weights)
    assert get_adapter_weights(two) == before


def test_delete_is_all_or_nothing(two):
    with pytest.raises(ValueError, match="no adapter named 'c'"):
        delete_adapters(two, ["a", "c"])
    assert len(next(iter(get_list_adapters(two).values()))) == 2
    delete_adapters(two, ["a", "b"])
    assert get_list_adapters(two) == {}
