"""Weights by block and by step: what a text or a dict means, and that each layer's update is scaled by just that."""

import pytest
import torch

from lily_diffusion import LilyConfig, attach, get_adapter_weights, set_adapters
from lily_diffusion.adapter_weight import Keyframes, known_selectors, parse
from lily_diffusion.blend import set_fraction
from lily_diffusion.sharing import KINDS, select
from lily_diffusion.state import get_state

from .cases import Case
from .conftest import awaken, run
from .zoo import build

UNET = (
    "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k",
    "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0",
    "up_blocks.1.attentions.1.transformer_blocks.0.attn1.to_q",
    "up_blocks.10.attentions.0.transformer_blocks.0.attn1.to_q",
)
DIT = (
    "transformer_blocks.1.attn.to_q",
    "single_transformer_blocks.1.attn.to_q",
    "single_transformer_blocks.12.attn.to_k",
)


@pytest.mark.parametrize(
    ("layers", "spec", "expected"),
    [
        (UNET, 0.5, [0.5] * 5),
        (UNET, "all=0.5,mid=0", [0.5, 0.5, 0, 0.5, 0.5]),
        (UNET, "down.1=0.5,attn2=0.5", [1, 0.25, 0.5, 1, 1]),
        (UNET, {"up.1": -1, "to_out.0": 3}, [1, 1, 3, -1, 1]),
        (UNET, {"up": {"block_1": [2, 3]}, "down": 0.1}, [0.1, 0.1, 1, 3, 1]),
        (UNET, "up.2-=7", [1, 1, 1, 1, 7]),
        (UNET, f"{UNET[0]}=4", [4, 1, 1, 1, 1]),
        (DIT, "transformer_blocks.0-9=0", [0, 1, 1]),
        (DIT, "single_transformer_blocks.10-=0,to_q=2", [2, 2, 0]),
    ],
)
def test_weight_of_each_layer(layers, spec, expected):
    weight = parse(spec)
    assert list(weight.by_layer(layers).values()) == pytest.approx(expected)
    assert parse(str(weight)) == weight


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.7", [0.7] * 5),
        ("1@0,0@1", [1, 0.75, 0.5, 0.25, 0]),
        ("1@0.25,0@0.75", [1, 1, 0.5, 0, 0]),
        ("1@0,0@0.5,held", [1, 1, 0, 0, 0]),
        ("2@0.5,0@1", [2, 2, 2, 1, 0]),
    ],
)
def test_weight_of_each_step(text, expected):
    frames = dict(parse(text).parts)[""]
    assert [frames.at(i / 4) for i in range(5)] == pytest.approx(expected)
    assert parse(text).plain == (0.7 if text == "0.7" else text)


def test_keyframes_know_their_order():
    with pytest.raises(ValueError, match="rising fractions"):
        Keyframes(((0.5, 1.0), (0.5, 0.0)))


ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


def test_known_selectors_name_layers(unet):
    layers = [p.name for p in select(unet, KINDS)]
    known = known_selectors(layers)
    blocks = [name for name in known if name.split(".")[0] in ("down", "mid", "up")]
    assert known[len(blocks) :] == ["attn1", "attn2", "ff", *ATTENTION, "ff.net.0.proj", "ff.net.2"]
    for selector in known:
        parse({selector: 0.0}).check(layers)


def test_every_known_selector_of_a_model_with_layers_called_up_and_down():
    layers = [p.name for p in select(build("Krea2Transformer2DModel")[0], KINDS)]
    assert {"ff", "ff.up", "ff.down"} < set(known_selectors(layers))
    for selector in known_selectors(layers):
        parse({selector: 0.0}).check(layers)


@pytest.mark.parametrize("kind", ["unet", "dit"])
def test_a_blocked_layer_is_as_if_its_update_were_scaled(kind):
    case = Case(kind)
    block = "mid" if kind == "unet" else "single_transformer_blocks.1-"
    set_adapters(case.model, "a", {"all": 0.8, block: 0.5, "to_v": 0})
    got = case.run()
    weights = get_state(case.model).weights["a"].by_layer(case.adapter.layers)
    assert set(weights.values()) == {0.8, 0.4, 0.0}
    set_adapters(case.model, "a")
    plain = case.adapter.forward
    case.adapter.forward = lambda layer, x, y, scaling: plain(layer, x, y, scaling * weights[layer])
    torch.testing.assert_close(case.run(), got, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(got, case.adapted, atol=1e-3)


def test_steps_by_hand(unet):
    awaken(attach(unet, LilyConfig(r=4, stride_A=2, num_B=2), "a"))
    expected = {}
    for fraction, weight in ((0.0, 1.0), (0.5, 0.5), (1.0, 0.0)):
        set_adapters(unet, "a", weight)
        expected[fraction] = run(unet)
    set_adapters(unet, "a", "1@0,0@1")
    assert get_adapter_weights(unet) == {"a": "1@0,0@1"}
    for fraction in (0.5, 1.0, 0.0):
        set_fraction(unet, fraction)
        assert torch.equal(run(unet), expected[fraction])
    with pytest.raises(ValueError, match="from 0 to 1"):
        set_fraction(unet, 1.5)
