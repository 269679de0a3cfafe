"""The math against the formula written out sample by sample, token by token."""

import pytest
import torch

from lily_diffusion import functional


def by_hand(x, A, B, router, scaling, routing):
    h = x @ A.T
    if routing == "static":
        p = router.softmax(0).expand(*h.shape[:-1], -1)
    else:
        p = (h @ router.T).softmax(-1)
        if routing == "batch":
            p = p.mean((0, 1), keepdim=True).expand_as(p)
        if routing == "sample":
            p = p.mean(1, keepdim=True).expand_as(p)
    out = torch.zeros(*x.shape[:2], B.shape[-1], dtype=x.dtype)
    for b in range(x.shape[0]):
        for n in range(x.shape[1]):
            mixed = sum(p[b, n, e] * B[e] for e in range(len(B)))
            out[b, n] = scaling * (h[b, n] @ mixed)
    return out


@pytest.mark.parametrize("routing", functional.ROUTINGS)
def test_delta_is_the_formula(routing):
    torch.manual_seed(0)
    x, A, B = torch.randn(3, 5, 8).double(), torch.randn(4, 8).double(), torch.randn(3, 4, 6).double()
    router = (torch.randn(3) if routing == "static" else torch.randn(3, 4)).double()
    got = functional.delta(x, A, B, router, 1.7, routing)
    torch.testing.assert_close(got, by_hand(x, A, B, router, 1.7, routing), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("routing", functional.ROUTINGS)
def test_probabilities_sum_to_one(routing):
    router = torch.randn(3) if routing == "static" else torch.randn(3, 4)
    p = functional.route(torch.randn(2, 5, 4), router, routing)
    torch.testing.assert_close(p.sum(-1), torch.ones(p.shape[:-1]))


@pytest.mark.parametrize("routing", ["sample", "token", "static"])
def test_a_sample_does_not_see_its_batch_mates(routing):
    x, A, B = torch.randn(4, 5, 8).double(), torch.randn(4, 8).double(), torch.randn(3, 4, 6).double()
    router = torch.randn(3).double() if routing == "static" else torch.randn(3, 4).double()
    together = functional.delta(x, A, B, router, 1.0, routing)
    alone = torch.cat([functional.delta(x[i : i + 1], A, B, router, 1.0, routing) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)


def test_batch_routing_couples_the_samples_as_published():
    x, A, B, router = torch.randn(4, 5, 8), torch.randn(4, 8), torch.randn(3, 4, 6), torch.randn(3, 4)
    together = functional.delta(x, A, B, router, 1.0, "batch")[:1]
    assert not torch.allclose(together, functional.delta(x[:1], A, B, router, 1.0, "batch"), atol=1e-3)


@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 5, 8)])
@pytest.mark.parametrize("routing", functional.ROUTINGS)
def test_inputs_of_two_and_four_dimensions(routing, shape):
    x, A, B = torch.randn(shape), torch.randn(4, 8), torch.randn(3, 4, 6)
    router = torch.randn(3) if routing == "static" else torch.randn(3, 4)
    flat = x.reshape(1, 5, 8) if len(shape) == 2 else x.flatten(1, 2)
    expected = functional.delta(flat, A, B, router, 1.0, routing).reshape(*shape[:-1], 6)
    torch.testing.assert_close(functional.delta(x, A, B, router, 1.0, routing), expected)


@pytest.mark.parametrize("routing", functional.ROUTINGS)
def test_gradients(routing):
    torch.manual_seed(0)
    tensors = [torch.randn(2, 3, 4), torch.randn(2, 4), torch.randn(3, 2, 4)]
    tensors.append(torch.randn(3) if routing == "static" else torch.randn(3, 2))
    tensors = [t.double().requires_grad_() for t in tensors]
    assert torch.autograd.gradcheck(lambda *t: functional.delta(*t, 0.5, routing), tensors)


SHAPES = {"y": (3, 5, 7), "x": (3, 5, 6), "A": (4, 6), "B": (2, 4, 7)}


def tensors(routing, dtype=torch.float64, middle=(3, 5)):
    torch.manual_seed(0)
    shapes = {**SHAPES, "y": (*middle, 7), "x": (*middle, 6), "router": (2,) if routing == "static" else (2, 4)}
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes.values()]


@pytest.mark.parametrize("middle", [(5,), (3, 5), (2, 3, 5)])
@pytest.mark.parametrize("routing", functional.ROUTINGS)
@pytest.mark.parametrize("scaling", [1.7, torch.tensor(1.7, dtype=torch.float64)])
def test_add_is_y_and_delta_in_values_and_gradients(routing, middle, scaling):
    y, *given = tensors(routing, middle=middle)
    fast, plain = functional.add(y, *given, scaling, routing), y + functional.delta(*given, scaling, routing)
    torch.testing.assert_close(fast, plain, rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(y)
    ours, theirs = (torch.autograd.grad((out * weight).sum(), [y, *given]) for out in (fast, plain))
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("middle", [(5,), (3, 5), (2, 3, 5)])
@pytest.mark.parametrize("routing", functional.ROUTINGS)
def test_add_is_the_same_when_compiled(routing, middle):
    torch.compiler.reset()
    y, *given = tensors(routing, middle=middle)
    compiled = torch.compile(functional.add, fullgraph=True, backend="eager")(y, *given, 1.7, routing)
    plain = functional.add(y, *given, 1.7, routing)
    torch.testing.assert_close(compiled, plain, rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(y)
    ours, theirs = (torch.autograd.grad((out * weight).sum(), [y, *given]) for out in (compiled, plain))
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("routing", functional.ROUTINGS)
def test_add_with_half_precision_beside_float32_weights(routing):
    y, x, *weights = tensors(routing, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = functional.add(y.bfloat16(), x, *weights, 2.0, routing)
    alone = functional.add(y.bfloat16(), x.bfloat16(), *weights, 2.0, routing)
    expected = y + functional.delta(x, *weights, 2.0, routing)
    for got in (under_autocast, alone):
        assert got.dtype == torch.bfloat16
        assert (got - expected).norm() < 0.02 * expected.norm()
    limit = 0.1 if routing == "batch" else 0.05  # with one mixture, the router's gradient is what large sums differ by
    gradients = torch.autograd.grad(under_autocast.float().square().sum(), weights)
    for ours, theirs in zip(gradients, torch.autograd.grad(expected.square().sum(), weights), strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < limit * theirs.norm()


@pytest.mark.parametrize("middle", [(5,), (3, 5), (2, 3, 5)])
@pytest.mark.parametrize("routing", functional.ROUTINGS)
def test_add_gives_the_same_bits_in_place(routing, middle):
    y, *given = tensors(routing, torch.float32, middle)
    before = y.detach().clone()
    recorded = functional.add(y, *given, 1.7, routing)
    assert torch.equal(y, before)
    with torch.no_grad():
        assert torch.equal(functional.add(y, *given, 1.7, routing), recorded)


@pytest.mark.parametrize("routing", functional.ROUTINGS)
def test_add_changes_no_bit_where_the_experts_are_zero(routing):
    y, x, A, B, router = tensors(routing, torch.float32)
    assert torch.equal(functional.add(y, x, A, torch.zeros_like(B), router, 2.0, routing), y)


def test_add_takes_few_operators_and_keeps_little():
    y, x, A, B, router = tensors("sample", torch.float32)
    with torch.no_grad(), torch.profiler.profile() as record:
        functional.add(y, x, A, B, router, 2.0, "sample")
    compute = {"aten::mm", "aten::_softmax", "aten::mean", "aten::baddbmm_", "aten::mul", "aten::add", "aten::bmm"}
    assert sorted(e.name for e in record.events() if e.name in compute) == [
        "aten::_softmax", "aten::baddbmm_", "aten::mean", "aten::mm", "aten::mm", "aten::mm",
    ]  # fmt: skip

    def kept(function) -> int:
        sizes = {}
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.update({t.data_ptr(): t.numel()}) or t, id):
            function()
        return sum(sizes.values())

    plain = kept(lambda: y + 2.0 * functional.apply(h := x @ A.T, functional.route(h, router, "sample"), B, "sample"))
    assert kept(lambda: functional.add(y, x, A, B, router, 2.0, "sample")) <= plain
