"""What training keeps in memory, and in which type."""

from __future__ import annotations

import weakref

import torch
from transformers import T5Config, T5EncoderModel

from lily_diffusion.training import loop, train
from lily_diffusion.training.build import _cast, build
from lily_diffusion.training.checks import complete
from lily_diffusion.training.dry_run import memory

from .training_base import arguments, base, pictures  # noqa: F401


def test_the_base_is_gone_after_training(arguments, monkeypatch):  # noqa: F811
    models = []

    def watched(args):
        built = build(args)
        models.append(weakref.ref(built.family.denoiser))
        return built

    monkeypatch.setattr(loop, "build", watched)
    train(arguments(validation_prompt="a cat", validation_inference_steps=1))
    assert models[0]() is None


def test_a_dry_run_counts_the_bytes_of_a_quantised_base(arguments):  # noqa: F811
    runs = [build(complete(arguments(**flags))) for flags in ({}, {"quantize_base": "int8"})]
    plain, quantised = (memory(run, 0)["base model"] for run in runs)
    weights = sum(m.weight.numel() for m in runs[0].family.denoiser.modules() if isinstance(m, torch.nn.Linear))
    assert plain - 4 * weights < quantised < plain - 2 * weights  # one byte each, their scales, the rest as before
    assert "base model" in train(arguments(dry_run=True, quantize_base="int8")).message


def test_t5_keeps_in_float32_what_overflows_in_float16():
    encoder = T5EncoderModel(T5Config(vocab_size=8, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2))
    before = {name: tensor.clone() for name, tensor in encoder.named_parameters()}
    _cast(encoder, torch.float16)
    types = {name: p.dtype for name, p in encoder.named_parameters()}
    assert {t for name, t in types.items() if ".wo." in name} == {torch.float32}
    assert {t for name, t in types.items() if ".wo." not in name} == {torch.float16}
    assert all(torch.equal(p, before[name]) for name, p in encoder.named_parameters() if ".wo." in name)
    _cast(encoder, torch.bfloat16)
    assert {p.dtype for p in encoder.parameters()} == {torch.bfloat16}
