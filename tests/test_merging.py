"""Frozen adapters merged into one, with PEFT's add_weighted_adapter as the oracle, and brought to smaller ranks."""

import sys

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from lily_diffusion import LilyConfig, attach, detach, set_adapters
from lily_diffusion.frozen import factors, from_factors, projections
from lily_diffusion.interchange.merging import PRUNED, merge_adapters
from lily_diffusion.interchange.rank import reduce_rank
from lily_diffusion.sharing import Projection

from .conftest import awaken, run

SHAPES = {"first": (8, 12), "second": (12, 12), "third": (12, 5)}  # in, out; "third" is adapted in y alone
WEIGHTS = {"x": 0.7, "y": -0.4}


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(*shape) for shape in SHAPES.values())

    def forward(self, x):
        return self.third(self.second(self.first(x)))


def peft_model():
    """Two LoRAs of PEFT's own on one small model: ranks 2 and 3, alphas that are no ranks."""
    torch.manual_seed(0)
    more = {"init_lora_weights": False}
    model = get_peft_model(Model(), LoraConfig(r=2, lora_alpha=3, target_modules=["first", "second"], **more), "x")
    model.add_adapter("y", LoraConfig(r=3, lora_alpha=2, target_modules=list(SHAPES), **more))
    return model


def layers_of(model, adapter):
    return {
        name: getattr(model.base_model.model, name)
        for name in SHAPES
        if adapter in getattr(model.base_model.model, name).lora_A
    }


def ours(model):
    """The same adapters in our form."""
    adapters = {}
    for name in WEIGHTS:
        parts = {}
        for layer, module in layers_of(model, name).items():
            down, up = module.lora_A[name].weight.detach(), module.lora_B[name].weight.detach()
            parts[Projection(layer, layer, *SHAPES[layer])] = down, up * module.scaling[name]
        adapters[name] = from_factors(parts)
    return adapters


def update(adapter, layer):
    down, up = factors(adapter, layer)
    return up @ down


CASES = [
    ("cat", "cat", {}),
    ("svd", "svd", {"rank": 12}),
    ("svd", "svd", {"rank": 2}),
    ("magnitude_prune", "magnitude_prune_svd", {"rank": 12, "density": 0.4}),
    ("ties", "ties_svd", {"rank": 12, "density": 0.4}),
    ("ties", "ties_svd", {"rank": 3, "density": 0.6, "majority_sign_method": "frequency"}),
    ("dare", "dare_linear_svd", {"rank": 12, "density": 0.5, "seed": 5}),
    ("dare_linear", "dare_linear_svd", {"rank": 2, "density": 0.5, "seed": 6}),
    ("dare_ties", "dare_ties_svd", {"rank": 12, "density": 0.5, "seed": 7}),
    ("dare_ties", "dare_ties_svd", {"rank": 12, "density": 0.7, "seed": 8, "majority_sign_method": "frequency"}),
]


@pytest.mark.parametrize("method, combination, options", CASES)
def test_peft_merges_to_the_same_updates(monkeypatch, method, combination, options):
    model = peft_model()
    merged, errors = merge_adapters(ours(model), WEIGHTS, method, **options)
    seed = options.pop("seed", 0)
    if "rank" in options:
        options["svd_rank"] = options.pop("rank")
    # PEFT draws initial values for the new adapter first: the seed is set after that
    monkeypatch.setattr("peft.tuners.lora.model._freeze_adapter", lambda *_: torch.manual_seed(seed))
    model.base_model.add_weighted_adapter(
        list(WEIGHTS), list(WEIGHTS.values()), "merged", combination, svd_full_matrices=False, **options
    )
    for layer, module in layers_of(model, "merged").items():
        want = module.get_delta_weight("merged").detach()
        assert want.norm() > 0.01
        torch.testing.assert_close(update(merged, layer), want, rtol=1e-5, atol=1e-6)
    assert set(merged.layers) == set(errors) == set(SHAPES)


def static(unet, seed, **more):
    torch.manual_seed(seed)
    config = LilyConfig(**{"r": 4, "stride_A": 2, "num_B": 3, "routing": "static", "scaling": 1.3, **more})
    adapter = awaken(attach(unet, config), seed)
    detach(unet)
    return adapter


def test_cat_and_svd_are_the_sum_at_run_time(sd15):
    """Layers that one adapter lacks, ranks that differ and a negative weight included."""
    adapters = {"a": static(sd15, 1), "b": static(sd15, 2, r=6, target_modules=("to_q", "attn2.to_v"))}
    for name, adapter in adapters.items():
        attach(sd15, adapter, name)
    set_adapters(sd15, ["a", "b"], [0.8, -0.5])
    want = run(sd15)
    detach(sd15)
    base = run(sd15)
    assert (want - base).norm() > 0.01 * base.norm()
    cat, none = merge_adapters(adapters, [0.8, -0.5])
    svd, errors = merge_adapters(adapters, {"b": -0.5, "a": 0.8}, "svd")
    ties, _ = merge_adapters(adapters, [0.8, -0.5], "ties", density=0.5)
    assert cat.config.r == svd.config.r == 10 and set(none.values()) == {0.0} and max(errors.values()) < 1e-12
    got = {}
    for name, merged in (("cat", cat), ("svd", svd), ("ties", ties)):
        attach(sd15, merged)
        got[name] = run(sd15)
        detach(sd15)
    assert (got["cat"] - want).norm() <= 1e-5 * want.norm()
    assert (got["svd"] - want).norm() <= 1e-5 * want.norm()
    assert (got["ties"] - want).norm() > 1e-3 * want.norm()


def test_the_error_of_the_truncation_is_reported():
    adapters = ours(peft_model())
    full, _ = merge_adapters(adapters, WEIGHTS, "ties", density=0.6, rank=12)
    merged, errors = merge_adapters(adapters, WEIGHTS, "ties", density=0.6)
    assert merged.config.r == 5 and max(errors.values()) > 0.05
    for layer in ("first", "second"):
        want = update(full, layer)
        off = (update(merged, layer) - want).norm() / want.norm()
        assert errors[layer] == pytest.approx(float(off), rel=1e-4)


def test_density_one_prunes_nothing(recwarn):
    adapters = ours(peft_model())
    cat, _ = merge_adapters(adapters, WEIGHTS)
    merged, _ = merge_adapters(adapters, WEIGHTS, "magnitude_prune", density=1)
    for layer in SHAPES:
        torch.testing.assert_close(update(merged, layer), update(cat, layer), rtol=1e-5, atol=1e-6)
    assert not [w for w in recwarn if "density" in str(w.message)]


def test_the_seed_repeats_dare_and_the_callers_draws_stay():
    adapters = ours(peft_model())
    torch.manual_seed(11)
    want = torch.rand(3)
    torch.manual_seed(11)
    one, again, other = (
        update(merge_adapters(adapters, WEIGHTS, "dare", density=0.5, seed=seed).adapter, "second")
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.rand(3), want)
    assert torch.equal(one, again) and not torch.allclose(one, other, atol=0.01)


def test_bad_arguments(sd15):
    adapters = ours(peft_model())
    for options, sentence in (
        ({"method": "linear"}, "method must be one of cat, svd, ties, dare_linear, .*, dare, not 'linear'"),
        ({"rank": 3}, "'cat' keeps every rank: leave rank out, or take method 'svd'"),
        ({"method": "svd", "rank": 0}, "rank must be a whole number of at least 1, not 0"),
        ({"method": "svd", "density": 0.5}, "'svd' drops nothing: leave density out"),
        ({"method": "ties"}, "'ties' needs density"),
        ({"method": "dare"}, "'dare_linear' needs density"),
        ({"method": "ties", "density": 0.0}, r"density must be above 0 and at most 1, not 0\.0"),
        ({"method": "ties", "density": 1.5}, r"density must be above 0 and at most 1, not 1\.5"),
        ({"method": "ties", "density": float("nan")}, "density must be above 0 and at most 1, not nan"),
        ({"majority_sign_method": "loud"}, "majority_sign_method must be one of total, frequency, not 'loud'"),
        ({"seed": -1}, r"seed must be a whole number from 0 to 2\*\*63 - 1, not -1"),
        ({"seed": 2**63}, "seed must be a whole number"),
        ({"weights": [1.0]}, "There are 2 adapters and 1 weights"),
        ({"weights": {"x": 1.0}}, "weights must name exactly x, y, not x"),
        ({"weights": [1.0, float("inf")]}, "A weight must be a finite number, not inf"),
        ({"weights": [1.0, "1"]}, "A weight must be a finite number, not '1'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            merge_adapters(adapters, **{"weights": WEIGHTS, **options})
    with pytest.raises(ValueError, match="There is no adapter to merge"):
        merge_adapters({}, [])
    routed = {"a": static(sd15, 1), "b": static(sd15, 1, routing="sample")}
    with pytest.raises(ValueError, match=r"adapter 'b' chooses .*routing='sample'.* lily-diffusion bake"):
        merge_adapters(routed, [1, 1])
    wider = from_factors({Projection("second", "second", 16, 12): (torch.ones(2, 16), torch.ones(12, 2))})
    with pytest.raises(ValueError, match="for different bases: second is 16->12 in 'wide' and 12->12 in 'x'"):
        merge_adapters({**adapters, "wide": wider}, [1, 1, 1])


@pytest.mark.parametrize("method", PRUNED)
def test_without_peft(monkeypatch, method):
    adapters = ours(peft_model())
    monkeypatch.setitem(sys.modules, "peft.utils", None)
    assert merge_adapters(adapters, WEIGHTS).adapter.config.r == 5
    with pytest.raises(ImportError, match=rf"'{method}' needs PEFT.*pip install 'lily-diffusion\[merge\]'"):
        merge_adapters(adapters, WEIGHTS, method, density=0.5)


@pytest.mark.parametrize("rank", [1, 3])
def test_a_smaller_rank_is_the_truncated_svd(sd15, rank):
    adapter = static(sd15, 3)
    reduced, errors = reduce_rank(adapter, rank)
    assert reduced.config.r == rank and set(errors) == set(adapter.layers)
    for p in projections(adapter):
        want = update(adapter, p.name).double()
        U, S, Vh = torch.linalg.svd(want)
        best = U[:, :rank] * S[:rank] @ Vh[:rank]
        torch.testing.assert_close(update(reduced, p.name), best.float(), rtol=1e-4, atol=1e-6)
        assert errors[p.name] == pytest.approx(float(S[rank:].norm() / S.norm()), rel=1e-6)
        assert errors[p.name] == pytest.approx(float((update(reduced, p.name) - want).norm() / want.norm()), rel=1e-4)


def test_the_true_rank_is_exact(sd15):
    adapter = static(sd15, 4)
    doubled, _ = merge_adapters({"a": adapter, "b": adapter}, [1, 1])
    assert doubled.config.r == 8
    for options, r in (({"rank": 4}, 4), ({"rank": 99}, 8), ({"error": 0}, 4)):
        reduced, errors = reduce_rank(doubled, **options)
        assert max(errors.values()) < 1e-12 and reduced.config.r == r
        for layer in adapter.layers:
            torch.testing.assert_close(update(reduced, layer), 2 * update(adapter, layer), rtol=1e-4, atol=1e-6)


def test_the_smallest_rank_for_an_error(sd15):
    adapter = static(sd15, 5)
    reduced, errors = reduce_rank(adapter, error=0.5)
    ranks = set()
    for layer in adapter.layers:
        S = torch.linalg.svdvals(update(adapter, layer).double())
        rank = int((factors(reduced, layer)[0] != 0).any(1).sum())
        ranks.add(rank)
        assert errors[layer] <= 0.5 and errors[layer] == pytest.approx(float(S[rank:].norm() / S.norm()), rel=1e-6)
        assert rank == 1 or S[rank - 1 :].norm() / S.norm() > 0.5
    assert len(ranks) > 1 and reduced.config.r == max(ranks)


def test_nothing_large_is_decomposed(sd15, monkeypatch):
    """The product of the factors is never made: what is decomposed is as small as the rank."""
    sizes = []
    svd = torch.linalg.svd
    monkeypatch.setattr(torch.linalg, "svd", lambda x, **more: sizes.append(max(x.shape)) or svd(x, **more))
    reduce_rank(static(sd15, 6), 2)
    assert sizes and max(sizes) == 4


def test_an_update_of_zero_stays_zero():
    p = Projection("a", "a", 8, 6)
    reduced, errors = reduce_rank(from_factors({p: (torch.ones(3, 8), torch.zeros(6, 3))}), error=0.1)
    assert errors == {"a": 0.0} and reduced.config.r == 1 and not update(reduced, "a").any()


def test_bad_ranks(sd15):
    adapter = static(sd15, 7)
    for options in ({}, {"rank": 2, "error": 0.1}):
        with pytest.raises(ValueError, match="takes either rank or error"):
            reduce_rank(adapter, **options)
    for rank in (0, 1.5, True):
        with pytest.raises(ValueError, match="rank must be a whole number of at least 1"):
            reduce_rank(adapter, rank)
    for error in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="error must be at least 0 and below 1"):
            reduce_rank(adapter, error=error)
    with pytest.raises(ValueError, match="bake it first"):
        reduce_rank(static(sd15, 7, routing="sample"), 2)
