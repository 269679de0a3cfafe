"""Adapters with parts on text encoders: attached, weighted, switched and fused under one name."""

import importlib

import pytest
import torch

from lily_diffusion import (
    LilyConfig,
    attach,
    delete_adapters,
    detach,
    disable_lily,
    enable_lily,
    fuse_lily,
    get_active_adapters,
    get_adapter_weights,
    get_fused_adapters,
    get_list_adapters,
    load_lily_weights,
    save_lily_weights,
    set_adapters,
    unfuse_lily,
    unload_lily_weights,
)
from lily_diffusion.components import denoiser, parts
from lily_diffusion.sharing import find_projections, group_table
from lily_diffusion.testing import check_model

from .encoded import CONFIG, FAMILIES, Encoded, case, pipelines, sd  # noqa: F401
from .tiny_pipelines import clip
from .tiny_pipelines.gemma import gemma
from .tiny_pipelines.words import t5

STATIC = LilyConfig(r=4, stride_A=2, num_B=2, routing="static")
ENCODERS = {
    "CLIP": lambda: clip()[0],
    "CLIP with projection": lambda: clip(importlib.import_module("transformers").CLIPTextModelWithProjection)[0],
    "T5": lambda: t5()[0],
    "Gemma": lambda: gemma()[0],
    "Qwen": lambda: importlib.import_module("tests.tiny_pipelines.z_image").make().text_encoder,
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_check_passes_on_text_encoders(kind):
    torch.manual_seed(0)
    model = ENCODERS[kind]().eval()
    ids = torch.tensor([[3, 5, 7, 9, 11], [4, 6, 8, 10, 12]])
    report = check_model(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    assert report.ok, str(report)
    assert len(report.projections) >= 6 and set(report.projections.values()) == {report.attentions}


def test_projections_are_in_forward_order_and_grouped_by_name():
    model = clip()[0]
    attributes = [p.attribute for p in find_projections(model)]
    assert attributes == ["q_proj", "k_proj", "v_proj", "out_proj"] * 2
    adapter = attach(model, CONFIG)
    table = group_table(adapter).splitlines()
    assert [line.split()[0] for line in table[1:5]] == attributes[:4] and table[-1].startswith("8 layers in 4 groups")


def test_what_sees_is_left_alone():
    pipe = importlib.import_module("tests.tiny_pipelines.flux_2").make()
    names = [p.name for p in find_projections(pipe.text_encoder)]
    assert len(names) == 4 * 30 and all("language_model" in name for name in names)


def test_parts_of_a_pipeline_a_mapping_and_a_model(case):
    assert list(parts(case.pipe)) == case.components
    assert list(parts({"text_encoder": case.pipe.text_encoder, case.components[0]: None})) == ["text_encoder"]
    assert parts(case.pipe.text_encoder) == {"text_encoder": case.pipe.text_encoder}
    with pytest.raises(ValueError, match="or its UNet or transformer, not CLIPText"):
        denoiser(case.pipe.text_encoder)
    with pytest.raises(ValueError, match="'vae' is no part of a pipeline that Lily adapts"):
        parts({"vae": case.pipe.vae})


def test_a_fresh_part_changes_no_bit_and_an_awake_one_does(case):
    for component in case.components[1:]:
        attach(case.models[component], CONFIG, "fresh")
    assert torch.equal(case.draw(), case.base)
    detach(case.models["text_encoder"], "fresh")
    assert not torch.equal(case.adapt("a", components=["text_encoder"]), case.base)
    assert list(case.pipe.text_encoder.state_dict()) == case.traces[1][1]  # the base keeps its keys


def test_every_part_matters_and_has_a_weight_of_its_own(case):
    everything = case.adapt()
    zero = dict.fromkeys(case.components, 0)
    set_adapters(case.pipe, "a", [zero])
    assert torch.equal(case.draw(), case.base)
    pictures = [case.base, everything]
    for component in case.components:
        set_adapters(case.pipe, "a", [{**zero, component: 0.5}])
        pictures.append(case.draw())
    assert all(not torch.equal(a, b) for i, a in enumerate(pictures) for b in pictures[:i])
    set_adapters(case.pipe, "a", 0.0)
    assert torch.equal(case.draw(), case.base)
    set_adapters(case.pipe, "a")
    assert torch.equal(case.draw(), everything)


@pytest.mark.parametrize(
    ("weight", "levels", "shown"),
    [
        (0.5, (0.5, 0.5, 0.5), 0.5),
        ({"text_encoder": 0.5}, (1, 1, 0.5), "1,text_encoder=0.5"),
        ({"unet": {"up": 0.5}, "text_encoder": 0}, (1, 0.5, 0), "up=0.5,text_encoder=0"),
        ({"up": 0.5, "text_encoder": 0.25}, (1, 0.5, 0.25), "up=0.5,text_encoder=0.25"),
        ({"unet": 0.5}, (0.5, 0.5, 1), "0.5,text_encoder=1"),
        ({"all": 0.8, "text_encoder": 0.5}, (0.8, 0.8, 0.5), "0.8,text_encoder=0.5"),
        ("0.8,text_encoder=0.5", (0.8, 0.8, 0.5), "0.8,text_encoder=0.5"),
        ({"up": 0.5, "all": 0.8}, (0.8, 0.4, 0.8), "up=0.5,all=0.8"),
        ({"unet": {"all": 0.8, "up": 0.5}}, (0.8, 0.4, 1), "0.8,up=0.5,text_encoder=1"),
        ("0.6@0,0@0.5", (0.6, 0.6, 0.6), "0.6@0,0@0.5"),
        ("0.6@0,0@0.5,text_encoder=0.2", (0.6, 0.6, 0.2), "0.6@0,0@0.5,text_encoder=0.2"),
        (
            {"text_encoder": {"layers.1": 0.5, "q_proj": 0}},
            (1, 1, 0),
            "1,text_encoder.layers.1=0.5,text_encoder.q_proj=0",
        ),
    ],
    ids=str,
)
def test_weights_by_part(sd, weight, levels, shown):
    sd.adapt()
    set_adapters(sd.pipe, "a", [weight])

    def level(component, piece):
        return next(v for k, v in sd.models[component].__dict__["_lily"].levels["a"].items() if piece in k)

    found = level("unet", "down_blocks"), level("unet", "up_blocks"), level("text_encoder", "q_proj")
    assert found == pytest.approx(levels)
    assert get_adapter_weights(sd.pipe) == {"a": shown}
    set_adapters(sd.pipe, "a", [shown])
    again = level("unet", "down_blocks"), level("unet", "up_blocks"), level("text_encoder", "q_proj")
    assert again == found


def test_a_stepped_number_leaves_the_text_at_its_start(sd):
    sd.adapt()
    set_adapters(sd.pipe, "a", "0.6@0,0@1")
    drawn = sd.draw()
    assert torch.equal(sd.draw(), drawn)
    state = sd.pipe.text_encoder.__dict__["_lily"]
    assert state.clock is None and set(state.levels["a"].values()) == {0.6}
    set_adapters(sd.pipe, "a", "0.6@0,0@1,text_encoder=0.6")
    assert torch.equal(sd.draw(), drawn)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ({"text_encoder_2": 0.5}, "'a': 'text_encoder_2' is no part of the adapter, which has unet, text_encoder"),
        ({"transformer": 0.5}, "'transformer' is no part of the adapter"),
        ("1,text_encoder=1@0,0@0.5", "text is encoded before the first step, so text_encoder cannot change by step"),
        ({"unet": {"up": 0.5}, "up": 0.2}, "'up' is given two weights"),
        ({"text_encoder": {"down": 0.5}}, "'down' names no adapted layer"),
        ({"text_encoder": "much"}, "must be a finite number"),
    ],
    ids=str,
)
def test_bad_weights_change_nothing(sd, weight, message):
    adapted = sd.adapt()
    with pytest.raises(ValueError, match=message):
        set_adapters(sd.pipe, "a", [weight])
    assert torch.equal(sd.draw(), adapted)


def test_blocks_need_a_part_on_the_denoiser(sd):
    sd.adapt(components=["text_encoder"])
    set_adapters(sd.pipe, "a", 0.5)
    assert get_adapter_weights(sd.pipe) == {"a": 0.5}
    with pytest.raises(ValueError, match="'up' is for a denoiser, and the adapter has only text_encoder"):
        set_adapters(sd.pipe, "a", [{"up": 0.5}])


def test_one_name_stands_for_all_parts(case):
    adapted = case.adapt("a")
    case.adapt("b", seed=5, components=["text_encoder"])
    assert get_list_adapters(case.pipe) == {c: ["a", "b"] if c == "text_encoder" else ["a"] for c in case.components}
    assert get_active_adapters(case.pipe) == ["a", "b"]
    set_adapters(case.pipe, "b")
    assert get_active_adapters(case.pipe) == ["b"]
    only_b = case.draw()
    disable_lily(case.pipe)
    assert get_active_adapters(case.pipe) == [] and torch.equal(case.draw(), case.base)
    enable_lily(case.pipe)
    assert torch.equal(case.draw(), only_b) and not torch.equal(only_b, case.base)
    set_adapters(case.pipe, "a")
    assert torch.equal(case.draw(), adapted)
    with pytest.raises(ValueError, match="no adapter named 'c'; there is 'a', 'b'"):
        delete_adapters(case.pipe, ["a", "c"])
    delete_adapters(case.pipe, "a")
    assert get_list_adapters(case.pipe) == {"text_encoder": ["b"]}
    unload_lily_weights(case.pipe)
    assert case.is_untouched() and torch.equal(case.draw(), case.base)


def test_what_is_loaded_while_all_is_off_stays_off(sd, tmp_path):
    sd.adapt("a")
    save_lily_weights(sd.pipe, tmp_path)
    detach(sd.pipe.text_encoder)
    disable_lily(sd.pipe)
    load_lily_weights(sd.pipe, tmp_path, "b")
    assert torch.equal(sd.draw(), sd.base)
    enable_lily(sd.pipe)
    assert not torch.equal(sd.draw(), sd.base)


def test_fused_parts_come_back_bit_by_bit(case):
    adapted = case.adapt(config=STATIC)
    fuse_lily(case.pipe)
    torch.testing.assert_close(case.draw(), adapted, rtol=1e-4, atol=1e-4)
    assert get_fused_adapters(case.pipe) == ["a"] and get_active_adapters(case.pipe) == []
    for component, before in zip(case.components, case.traces, strict=True):
        now = case.models[component].state_dict().values()
        assert not all(torch.equal(x, y) for x, y in zip(now, before[2], strict=True)), component
    with pytest.raises(ValueError, match="'a' is fused already"):
        fuse_lily(case.pipe)
    for action in (disable_lily, lambda pipe: delete_adapters(pipe, "a"), lambda pipe: set_adapters(pipe, "a")):
        with pytest.raises(ValueError, match="'a' is fused into the weights"):
            action(case.pipe)
    unfuse_lily(case.pipe)
    assert torch.equal(case.draw(), adapted)


def test_a_fusion_that_fails_on_one_part_changes_none(sd):
    sd.adapt("a", config=STATIC, components=["unet"])
    adapted = sd.adapt("a", components=["text_encoder"])
    with pytest.raises(ValueError, match=r"'a' chooses its experts by the input.*bake it first"):
        fuse_lily(sd.pipe)
    assert get_fused_adapters(sd.pipe) == [] and torch.equal(sd.draw(), adapted)


def test_an_unfusing_that_fails_on_one_part_changes_none(sd):
    sd.adapt("a", config=STATIC)
    fuse_lily(sd.pipe)
    fused, encoder = sd.draw(), sd.pipe.text_encoder
    linear = encoder.get_submodule(find_projections(encoder)[0].name)
    kept = linear.weight
    linear.weight = torch.nn.Parameter(torch.zeros(2, 2))
    for action in (unfuse_lily, unload_lily_weights):
        with pytest.raises(ValueError, match="another shape than when they were fused"):
            action(sd.pipe)
    linear.weight = kept
    assert torch.equal(sd.draw(), fused) and get_fused_adapters(sd.pipe) == ["a"]
