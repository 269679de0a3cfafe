"""Which layers are found, in which order, and who shares what."""

import pytest

from lily_diffusion import LilyConfig, attach, group_table
from lily_diffusion.sharing import find_projections, plan_groups, select


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
