"""Which layers are found, in which order, and who shares what."""

import pytest
import torch

from lily_diffusion import LilyConfig, attach, group_table
from lily_diffusion.sharing import find_linear_layers, find_projections, plan_groups, select

from .zoo import build


def groups_of(unet, **config):
    config = LilyConfig(**{"r": 4, **config})
    return plan_groups(select(unet, config.target_modules), config)


def test_every_attention_projection_once(unet):
    names = [p.name for p in find_projections(unet)]
    expected = [n for n, m in unet.named_modules() if hasattr(m, "in_features") and (".attn1." in n or ".attn2." in n)]
    assert sorted(names) == sorted(expected)
    assert len(set(names)) == len(names)


def test_forward_order_is_down_mid_up(unet):
    blocks = [p.name.split(".")[0] for p in find_projections(unet)]
    assert list(dict.fromkeys(blocks)) == ["down_blocks", "mid_block", "up_blocks"]
    called = []
    for name, module in unet.named_modules():
        if name.endswith("attn1.to_q"):
            module.register_forward_hook(lambda m, a, o, name=name: called.append(name))
    from .conftest import run

    run(unet)
    assert called == [p.name for p in find_projections(unet) if p.name.endswith("attn1.to_q")]


def test_groups_have_one_projection_and_shape(unet):
    groups = groups_of(unet)
    sizes = {p.name: (p.attribute, p.in_features, p.out_features) for p in find_projections(unet)}
    assert sorted(n for g in groups for n in g.layers) == sorted(sizes)
    for g in groups:
        assert {sizes[n] for n in g.layers} == {(g.projection, g.in_features, g.out_features)}


@pytest.mark.parametrize("stride", [1, 2, 3, 100])
def test_stride_A_gives_runs_of_neighbours(unet, stride):
    for g in groups_of(unet, stride_A=stride):
        assert g.A_of_layer == tuple(i // stride for i in range(len(g.layers)))


@pytest.mark.parametrize("num_A", [1, 2, 3])
def test_num_A_gives_that_many(unet, num_A):
    for g in groups_of(unet, num_A=num_A):
        assert g.num_A == min(num_A, len(g.layers))
        assert list(g.A_of_layer) == sorted(g.A_of_layer)
        counts = [g.A_of_layer.count(a) for a in range(g.num_A)]
        assert max(counts) - min(counts) <= 1


def test_groups_do_not_depend_on_the_spelling_of_targets(unet):
    by_suffix = groups_of(unet, target_modules=["to_q", "to_k", "to_v", "to_out.0"])
    by_name = groups_of(unet, target_modules=[p.name for p in reversed(find_projections(unet))])
    assert by_suffix == by_name == groups_of(unet)
    assert groups_of(unet, target_modules=["attn2.to_q", "to_q"]) == groups_of(unet, target_modules=["to_q"])


def test_parameter_count_is_the_formula(unet):
    config = LilyConfig(r=8, stride_A=2, num_B=3)
    adapter = attach(unet, config)
    expected = sum(
        -(-len(g.layers) // 2) * g.in_features * 8 + 3 * 8 * g.out_features + len(g.layers) * 8 * 3
        for g in adapter.groups
    )
    assert adapter.num_parameters() == expected
    assert f"{expected:,} parameters" in group_table(adapter)


def test_near_misses_are_named(sd15):
    with pytest.raises(ValueError, match=r"'to_qq' names no linear layer: did you mean .*to_q"):
        groups_of(sd15, target_modules=["to_k", "to_qq"])
    with pytest.raises(ValueError, match="names no linear layer"):
        groups_of(sd15, target_modules=["conv_in"])


def attributes(model, *targets):
    return {p.attribute for p in select(model, targets)}


def test_kinds_of_layers(unet):
    attention = {"to_q", "to_k", "to_v", "to_out.0"}
    assert select(unet, ("attention",)) == select(unet, None) == find_projections(unet)
    assert attributes(unet, "feed-forward") == {"ff.net.0.proj", "ff.net.2"}
    assert attributes(unet, "feed-forward", "attention", "to_q") == attention | {"ff.net.0.proj", "ff.net.2"}
    every = [n for n, m in unet.named_modules() if isinstance(m, torch.nn.Linear)]
    assert sorted(p.name for p in find_linear_layers(unet)) == sorted(every)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("FluxTransformer2DModel", "ff.net.0.proj ff.net.2 ff_context.net.0.proj ff_context.net.2 proj_mlp proj_out"),
        ("ZImageTransformer2DModel", "feed_forward.w1 feed_forward.w2 feed_forward.w3"),
        ("QwenImageTransformer2DModel", "img_mlp.net.0.proj img_mlp.net.2 txt_mlp.net.0.proj txt_mlp.net.2"),
        ("WanAnimate2Transformer3DModel", "ffn.0 ffn.2"),
        ("Krea2Transformer2DModel", "ff.gate ff.up ff.down"),
        (
            "NucleusMoEImageTransformer2DModel",  # its gates deal out the tokens to experts
            "img_mlp.net.0.proj img_mlp.net.2 img_mlp.shared_expert.net.0.proj img_mlp.shared_expert.net.2",
        ),
        ("PRXTransformer2DModel", "gate_proj up_proj down_proj"),
        (
            "HiDreamImageTransformer2DModel",  # whose experts see a part of the tokens
            "ff_i.shared_experts.w1 ff_i.shared_experts.w2 ff_i.shared_experts.w3 ff_t.w1 ff_t.w2 ff_t.w3",
        ),
    ],
)
def test_feed_forward_layers_of_a_model(name, layers):
    model = build(name)[0]
    found = select(model, ("feed-forward",))
    assert {p.attribute for p in found} == set(layers.split())
    if name.startswith("Flux"):
        assert "proj_out" not in {p.name for p in found}  # the model's own last layer


def test_a_model_without_linear_feed_forward_layers():
    sana = build("SanaTransformer2DModel")[0]
    assert select(sana, ("attention", "feed-forward")) == find_projections(sana)
    with pytest.raises(ValueError, match="'feed-forward' names no linear layer"):
        select(sana, ("feed-forward",))


def test_other_linear_layers_by_their_names(sd15):
    embedding = {"time_embedding.linear_2", "resnets.0.time_emb_proj", "resnets.1.time_emb_proj"}
    assert (
        attributes(sd15, "time_embedding.linear_2", "resnets.0.time_emb_proj", "resnets.1.time_emb_proj") == embedding
    )
    groups = groups_of(sd15, target_modules=["resnets.0.time_emb_proj"])
    assert {g.projection for g in groups} == {"resnets.0.time_emb_proj"}
    assert all(layer.endswith("resnets.0.time_emb_proj") for g in groups for layer in g.layers)
