"""What the routers do and how large the updates are, measured against the definitions."""

import math

import pytest
import torch

from lily_diffusion import LilyAdapter, LilyConfig, attach, functional
from lily_diffusion.frozen import from_factors
from lily_diffusion.inspection import (
    RoutingRecorder,
    effective_rank,
    expert_similarity,
    group_facts,
    mean_cosine,
    rank_at_energy,
    record_routing,
    relative_entropy,
    routing_by_step,
    singular_values,
    spectra,
)
from lily_diffusion.sharing import Group, Projection

from .conftest import awaken, run

LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


def heard(*calls: list) -> RoutingRecorder:
    """A recorder that has heard these calls of a layer named "x"."""
    recorder = RoutingRecorder()
    for p in calls:
        recorder.see("x", torch.tensor(p))
    return recorder


def test_usage_and_entropy(sd15):
    adapter = awaken(attach(sd15, LilyConfig(r=4, num_B=3, routing="static")))
    with record_routing(sd15) as recorder:
        run(sd15)
    usage, entropy = recorder.usage(), recorder.entropy()
    assert set(usage) == set(entropy) == set(adapter.layers)
    for layer in adapter.layers:
        p = adapter.tensors(layer)[2].softmax(0)
        torch.testing.assert_close(torch.tensor(usage[layer]), p.detach())
        assert entropy[layer] == pytest.approx(-(p * p.log()).sum().item() / math.log(3), abs=1e-5)
    assert adapter.recorder is None


def test_recording_changes_nothing(sd15):
    awaken(attach(sd15, LilyConfig(r=4)))
    before = run(sd15)
    with record_routing(sd15):
        assert torch.equal(run(sd15), before)


@pytest.mark.parametrize(("routing", "samples"), [("sample", 2), ("token", 2), ("batch", 1), ("static", 1)])
def test_the_recorder_keeps_every_call_of_every_sample(sd15, routing, samples):
    """Two calls with batches of two; the first layer's input is caught, so that the routing can be made again."""
    adapter = awaken(attach(sd15, LilyConfig(r=4, num_B=3, routing=routing)))
    inputs = []
    attention = sd15.get_submodule(LAYER.removesuffix(".to_q"))
    hook = attention.register_forward_pre_hook(lambda _, args, kwargs: inputs.append(args[0]), with_kwargs=True)
    with record_routing(sd15) as recorder:
        run(sd15)
        run(sd15, timestep=500)
    hook.remove()
    assert set(recorder.layers) == set(adapter.layers)
    assert recorder.layers[0] == LAYER
    calls, entropies = recorder.calls(LAYER), recorder.entropies(LAYER)
    assert (calls.shape, calls.dtype, entropies.shape) == ((2, samples, 3), torch.float32, (2, samples))
    A, _, router = adapter.tensors(LAYER)
    for call, x in enumerate(inputs):
        p = functional.route(x @ A.T, router, routing).detach()
        entropy = relative_entropy(p)
        if routing == "token":
            p, entropy = p.mean(1), entropy.mean(1)
        torch.testing.assert_close(calls[call], p.view(samples, 3))
        torch.testing.assert_close(entropies[call], entropy.view(samples))
    torch.testing.assert_close(recorder.mean(LAYER), calls.mean((0, 1)))
    assert recorder.entropy()[LAYER] == pytest.approx(entropies.mean().item())


def test_a_router_that_always_takes_the_second_expert():
    recorder = heard([[0.0, 1.0, 0.0]] * 2, [[0.0, 1.0, 0.0]] * 2)
    assert recorder.usage() == {"x": [0, 1, 0]}
    assert recorder.entropy() == {"x": 0}
    assert recorder.spread("x").tolist() == [0, 0, 0]


def test_mean_and_spread_are_over_calls_and_samples():
    recorder = heard([[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]])
    assert recorder.mean("x").tolist() == [0.5, 0.5]
    assert recorder.spread("x").tolist() == pytest.approx([math.sqrt(0.125)] * 2)
    assert recorder.entropies("x").tolist() == [[0, 1], [0, 1]]
    assert recorder.entropy() == {"x": 0.5}


def test_the_entropy_of_tokens_is_not_that_of_their_mean():
    recorder = heard([[[1.0, 0.0], [0.0, 1.0]]])  # one sample whose two tokens are decided, each for another expert
    assert recorder.calls("x").tolist() == [[[0.5, 0.5]]]
    assert recorder.entropies("x").tolist() == [[0]]


def test_one_expert_leaves_nothing_to_choose():
    assert heard([1.0]).entropy() == {"x": 0}


def test_what_a_recorder_refuses():
    recorder = heard([[0.5, 0.5]], [[0.5, 0.5], [1.0, 0.0]])
    assert recorder.mean("x").tolist() == pytest.approx([2 / 3, 1 / 3])
    with pytest.raises(ValueError, match=r"'x' had batches of different sizes: \[1, 2\]"):
        recorder.calls("x")
    with pytest.raises(ValueError, match="not heard layer 'y': it heard 1 layers"):
        recorder.mean("y")
    with pytest.raises(ValueError, match="ran x 3 times in 2 steps"):
        routing_by_step(heard([[1.0]], [[1.0]], [[1.0]]), 2)


def test_routing_by_step_averages_calls_and_takes_the_half_that_is_asked_for():
    first, second = [[1.0, 0.0], [0.2, 0.8]], [[0.0, 1.0], [0.4, 0.6]]
    recorder = heard(first, second, second, second)
    whole = routing_by_step(recorder, 2)["x"]
    torch.testing.assert_close(whole.usage, torch.tensor([[0.4, 0.6], [0.2, 0.8]]))
    unconditional, conditional = (routing_by_step(recorder, 2, half)["x"] for half in (0, 1))
    torch.testing.assert_close(unconditional.usage, torch.tensor([[0.5, 0.5], [0.0, 1.0]]))
    torch.testing.assert_close(conditional.usage, torch.tensor([[0.3, 0.7], [0.4, 0.6]]))
    assert unconditional.entropy.tolist() == [0, 0]
    alone = routing_by_step(heard([0.2, 0.8]), 1, 1)["x"]  # "batch" routing has one sample and no halves
    torch.testing.assert_close(alone.usage, torch.tensor([[0.2, 0.8]]))


def test_nothing_to_listen_to(sd15):
    with pytest.raises(ValueError, match="Say which adapter: there is none"), record_routing(sd15):
        pass
    attach(sd15, LilyConfig(r=4), "a")
    attach(sd15, LilyConfig(r=4), "b")
    with pytest.raises(ValueError, match="Say which adapter: there is 'a', 'b'"), record_routing(sd15):
        pass
    with record_routing(sd15, "b") as recorder:
        run(sd15)
    assert recorder.calls(LAYER).shape == (1, 2, 4)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_effective_rank_of_k_equal_values_is_k(k):
    rotation = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).Q
    values = torch.linalg.svdvals(0.3 * rotation[:, :k] @ rotation[:k])
    assert effective_rank(values) == pytest.approx(k)
    assert rank_at_energy(values, 0.999) == k


def test_ranks_of_known_values():
    assert effective_rank(torch.tensor([3.0, 1.0])) == pytest.approx(
        math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    )
    assert rank_at_energy(torch.tensor([3.0, 1.0]), 0.9) == 1  # 9 of 10
    assert rank_at_energy(torch.tensor([3.0, 1.0]), 0.91) == 2
    assert (effective_rank(torch.zeros(4)), rank_at_energy(torch.zeros(4), 0.9)) == (0, 0)


def small_adapter(routing: str, scaling: float = -1.5) -> LilyAdapter:
    """Two groups; in the second, r is larger than the input is wide."""
    groups = (
        Group("to_q", 12, 10, ("a", "b", "c"), (0, 0, 1)),
        Group("to_k", 3, 9, ("d",), (0,)),
    )
    adapter = LilyAdapter(LilyConfig(r=5, num_B=3, routing=routing, scaling=scaling), groups)
    return awaken(adapter, std=1.0)


def dense(adapter: LilyAdapter, layer: str, p: torch.Tensor) -> torch.Tensor:
    A, B, _ = adapter.tensors(layer)
    return adapter.config.scaling * torch.einsum("e,ero,ri->oi", p, B, A).detach().double()


@pytest.mark.parametrize("choice", ["equal", "static", "given"])
def test_singular_values_are_those_of_the_dense_matrix(choice):
    adapter = small_adapter("static" if choice == "static" else "sample")
    given = {"a": torch.tensor([0.7, 0.2, 0.1]), "d": torch.tensor([0.0, 0.0, 1.0])}
    found = singular_values(adapter, given if choice == "given" else None)
    figures = spectra(adapter, given if choice == "given" else None)
    assert list(found) == ["a", "b", "c", "d"]
    for layer, values in found.items():
        p = adapter.tensors(layer)[2].softmax(0) if choice == "static" else torch.full((3,), 1 / 3)
        matrix = dense(adapter, layer, given.get(layer, p) if choice == "given" else p)
        torch.testing.assert_close(values, torch.linalg.svdvals(matrix)[: len(values)], rtol=1e-5, atol=1e-5)
        assert len(values) == (3 if layer == "d" else 5)
        assert figures[layer].norm == pytest.approx(matrix.norm().item(), rel=1e-6)
        assert figures[layer].effective_rank == pytest.approx(effective_rank(torch.linalg.svdvals(matrix)), rel=1e-4)


def test_the_form_of_a_lora_has_the_figures_of_its_matrices():
    down, up = torch.randn(4, 12), torch.randn(10, 4)
    adapter = from_factors({Projection("x", "to_q", 12, 10): (down, up)})
    assert spectra(adapter)["x"].norm == pytest.approx((up @ down).norm().item(), rel=1e-5)


def test_a_fresh_adapter_has_no_update():
    fresh = LilyAdapter(LilyConfig(r=4), (Group("to_q", 8, 8, ("a",), (0,)),))
    assert spectra(fresh)["a"] == (0, 0, 0, 0)


def test_expert_similarity(sd15):
    adapter = attach(sd15, LilyConfig(r=4, num_B=3))
    assert set(expert_similarity(adapter).values()) == {0.0}
    with torch.no_grad():
        for B in adapter.lily_B:
            B.copy_(torch.randn(1, *B.shape[1:]).expand_as(B))
    assert all(abs(v - 1) < 1e-5 for v in expert_similarity(adapter).values())


def test_group_facts():
    adapter = small_adapter("sample")
    with torch.no_grad():
        adapter.lily_B[0].zero_()
        adapter.lily_B[0][1, 0, 0], adapter.lily_B[0][2, 0, 0] = 3, -2
        adapter.lily_A[0][1].copy_(2 * adapter.lily_A[0][0])
    first, second = group_facts(adapter)
    assert first.expert_norms == [0, 3, 2]
    assert first.expert_similarity == pytest.approx(-1 / 3)  # one of three pairs is opposite, two have a zero
    assert first.A_similarity == pytest.approx(1)
    assert second.A_similarity == 1  # there is only one
    assert second.expert_similarity == pytest.approx(expert_similarity(adapter)["to_k 3->9"])


def test_mean_cosine_of_known_vectors():
    vectors = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]], [[3.0, 3.0]]])
    assert mean_cosine(vectors) == pytest.approx((0 + 2 * math.sqrt(0.5)) / 3)
