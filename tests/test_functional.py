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
