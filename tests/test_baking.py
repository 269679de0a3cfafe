"""Freezing the routers: the stand-in is the least-squares matrix of what a layer was asked, and knows its error."""

import copy

import pytest
import torch
import torch.nn.functional as F

from lily_diffusion import (
    LilyConfig,
    attach,
    base_model,
    detach,
    functional,
    fuse_lily,
    get_adapter_weights,
    set_adapters,
    unload_lily_weights,
)
from lily_diffusion.baking import METHODS, bake_lily, calibrate, compare, freeze, layer_errors
from lily_diffusion.frozen import factors, is_frozen
from lily_diffusion.sharing import find_projections
from lily_diffusion.state import get_adapters

from .conftest import awaken, inputs, run

ROUTED = ["sample", "batch", "token"]


def adapted(unet, routing, r=4):
    torch.manual_seed(0)
    adapter = awaken(attach(unet, LilyConfig(r=r, stride_A=2, num_B=3, scaling=1.5, routing=routing), "a"))
    with torch.no_grad():
        for router in adapter.lily_router.parameters():
            router.mul_(8)  # decided routers, so that freezing them costs something
    return adapter


def watched(unet, adapter):
    """Statistics of two calls, and each layer's own inputs and updates."""
    asked = {}

    def keep(adapter, arguments):
        layer, x, *_ = arguments
        update = functional.delta(x, *adapter.tensors(layer), 1.0, adapter.config.routing)
        asked.setdefault(layer, []).append((x.flatten(0, -2), update.flatten(0, -2)))

    hook = adapter.register_forward_pre_hook(keep)
    with calibrate(adapter) as statistics, torch.no_grad():
        for seed in (1, 2):
            unet(**inputs(unet, batch=3, seed=seed))
    hook.remove()
    pairs = {layer: [torch.cat(parts).double() for parts in zip(*calls, strict=True)] for layer, calls in asked.items()}
    return statistics, pairs


@pytest.mark.parametrize("routing", ROUTED)
def test_the_fit_is_least_squares_and_its_errors_are_true(unet, routing):
    adapter = adapted(unet, routing)
    statistics, asked = watched(unet, adapter)
    frozen = {method: freeze(adapter, statistics, method) for method in METHODS}
    errors = {method: layer_errors(adapter, statistics, method) for method in METHODS}
    for layer, (x, y) in asked.items():
        A = adapter.tensors(layer)[0].detach().double()
        best = torch.linalg.lstsq(x @ A.T, y).solution
        for method in METHODS:
            down, up = (t.double() for t in factors(frozen[method], layer))
            got = x @ down.T @ up.T / 1.5
            assert (got - y).norm() / y.norm() == pytest.approx(errors[method][layer], rel=1e-3, abs=1e-5)
        least = (x @ A.T @ best - y).norm() / y.norm()
        assert errors["fit"][layer] == pytest.approx(float(least), rel=2e-2, abs=1e-4)
        assert errors["fit"][layer] <= errors["mean"][layer] + 1e-6
    assert max(errors["mean"].values()) > 0.05  # there was something to lose


def test_a_rank_above_a_layers_width(sd15):
    adapter = adapted(sd15, "sample", r=40)
    statistics, asked = watched(sd15, adapter)
    frozen, errors = freeze(adapter, statistics), layer_errors(adapter, statistics)
    narrow = next(layer for layer in adapter.layers if "down_blocks.0" in layer)  # 32 wide
    x, y = asked[narrow]
    down, up = (t.double() for t in factors(frozen, narrow))
    assert (x @ down.T @ up.T / 1.5 - y).norm() / y.norm() == pytest.approx(errors[narrow], rel=1e-2, abs=1e-4)


def test_a_layer_that_saw_only_zeros_keeps_the_mean(sd15):
    adapter = adapted(sd15, "sample")
    layer = adapter.layers[0]
    with torch.no_grad():
        adapter.tensors(layer)[0].zero_()
    statistics, _ = watched(sd15, adapter)
    frozen = freeze(adapter, statistics)
    assert all(torch.isfinite(p).all() for p in frozen.parameters()) and layer_errors(adapter, statistics)[layer] == 0


def test_a_compiled_model_can_be_watched(small):
    names = [p.name for p in find_projections(small)][:2]
    adapter = awaken(attach(small, LilyConfig(r=4, target_modules=names)))
    expected, _ = watched(small, adapter)
    torch._dynamo.reset()
    compiled = torch.compile(small, backend="eager")
    with torch.no_grad():
        compiled(**inputs(small, batch=3, seed=1))
        with calibrate(adapter) as statistics:
            for seed in (1, 2):
                compiled(**inputs(small, batch=3, seed=seed))
    assert statistics.keys() == expected.keys()
    torch.testing.assert_close(statistics[names[1]].moments, expected[names[1]].moments)


def test_the_mean_mixes_by_mean_probabilities(sd15):
    adapter = adapted(sd15, "sample")
    statistics, _ = watched(sd15, adapter)
    frozen = freeze(adapter, statistics, "mean")
    layer = adapter.layers[3]
    p = statistics[layer].mean
    assert p.sum() == pytest.approx(1) and len(torch.cat(statistics[layer].probabilities)) == 6
    expected = 1.5 * torch.einsum("e,ero->or", p, adapter.tensors(layer)[1].detach())
    torch.testing.assert_close(factors(frozen, layer)[1], expected, rtol=1e-5, atol=1e-6)


def test_a_static_adapter_is_baked_exactly(unet):
    adapter = adapted(unet, "static")
    expected = run(unet)
    frozen = freeze(adapter, {})
    detach(unet)
    bare = run(unet)
    attach(unet, frozen)
    assert (run(unet) - expected).norm() / (expected - bare).norm() < 1e-5


def test_a_layer_that_was_never_asked(sd15):
    adapter = adapted(sd15, "sample")
    statistics, _ = watched(sd15, adapter)
    statistics.pop(adapter.layers[0])
    with pytest.raises(ValueError, match=r"1 of \d+ layers were not asked.*down_blocks"):
        freeze(adapter, statistics)
    with pytest.raises(ValueError, match="method must be one of fit, mean"):
        freeze(adapter, statistics, "best")


@pytest.fixture(scope="module")
def loaded():
    pipe = base_model.load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def pipe(loaded):
    torch.manual_seed(0)
    awaken(attach(loaded.unet, LilyConfig(r=4, num_B=2), "a"), std=0.2)
    yield loaded
    unload_lily_weights(loaded)


CALL = {"num_inference_steps": 2, "guidance_scale": 2.0}


def test_baking_leaves_the_pipeline_as_it_was(pipe):
    awaken(attach(pipe.unet, LilyConfig(r=4), "b"))
    set_adapters(pipe, ["a", "b"], [0.5, "1@0,0@1"])
    before = copy.deepcopy(pipe.unet.__dict__["_lily"].levels)
    baked = bake_lily(pipe, ["a cat", "two dogs"], "a", **CALL)
    assert get_adapter_weights(pipe) == {"a": 0.5, "b": "1@0,0@1"}
    assert pipe.unet.__dict__["_lily"].levels == before
    assert all(a.recorder is None for a in pipe.unet.__dict__["_lily"].adapters.values())
    assert is_frozen(baked.adapter) and baked.adapter.config.num_B == 1
    layers = baked.report["layers"]
    assert 0 < baked.report["error"] < 1 and len(layers) == len(baked.adapter.layers)
    first = next(iter(layers.values()))
    assert sum(first["probability"]) == pytest.approx(1, abs=1e-3)
    assert baked.report["error"] == pytest.approx(sum(x["error"] for x in layers.values()) / len(layers), abs=1e-4)


def test_pictures_are_compared_with_the_base_as_yardstick(pipe):
    baked = bake_lily(pipe, ["a cat on a red background"], **CALL)
    distances, rows = compare(pipe, ["a cat on a red background"], baked.adapter, **CALL)
    assert 0 < distances["frozen"] < distances["base"]
    assert len(rows) == 1 and [picture.size for picture in rows[0]] == [(64, 64)] * 3
    assert list(get_adapter_weights(pipe)) == ["a"]


def test_not_while_something_is_fused(pipe):
    awaken(attach(pipe.unet, LilyConfig(r=4, routing="static"), "b"))
    fuse_lily(pipe, adapter_names="b")
    static = get_adapters(pipe.unet)["b"]
    for action in (lambda: bake_lily(pipe, "a cat", "a"), lambda: compare(pipe, ["a cat"], static, "a")):
        with pytest.raises(ValueError, match="'b' is fused into the weights"):
            action()


def test_one_prompt_may_be_a_string(pipe):
    assert bake_lily(pipe, "a cat", **CALL).report["prompts"] == ["a cat"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([], "a"), "at least one prompt"),
        ((["a cat"], "b"), "no adapter named 'b'"),
        ((["a cat"], "a", "best"), "method must be one of"),
    ],
)
def test_bad_arguments(pipe, arguments, message):
    prompts, name, *method = arguments
    with pytest.raises(ValueError, match=message):
        bake_lily(pipe, prompts, name, **({"method": method[0]} if method else {}), **CALL)


def test_projection_sizes_are_kept(sd15):
    adapter = adapted(sd15, "sample")
    statistics, asked = watched(sd15, adapter)
    frozen = freeze(adapter, statistics)
    assert frozen.config.r == adapter.config.r and set(frozen.layers) == set(asked)
    x = torch.randn(1, 3, adapter.groups[0].in_features)
    assert F.mse_loss(frozen(adapter.layers[0], x), adapter(adapter.layers[0], x)) > 0
