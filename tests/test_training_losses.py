"""Targets and weights against the formulas of the papers, written out again with plain numbers."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDPMScheduler

from lily_diffusion.training.losses import (
    add_noise,
    denoising_loss,
    denoising_target,
    min_snr_weights,
    signal_to_noise,
    with_prior,
)

ABAR = torch.tensor([0.9, 0.5, 0.1, 0.0])  # the last one as in a zero-terminal-SNR schedule
T = torch.arange(4)


def test_noise_and_targets_are_the_formulas():
    x, eps = torch.randn(4, 2, 3, 3, dtype=torch.float64), torch.randn(4, 2, 3, 3, dtype=torch.float64)
    noisy = add_noise(x, eps, ABAR, T)
    v = denoising_target("v_prediction", x, eps, ABAR, T)
    assert denoising_target("epsilon", x, eps, ABAR, T) is eps
    for i, abar in enumerate(ABAR.double().tolist()):
        a, s = math.sqrt(abar), math.sqrt(1 - abar)
        assert torch.allclose(noisy[i], a * x[i] + s * eps[i])
        assert torch.allclose(v[i], a * eps[i] - s * x[i])
        assert torch.allclose(a * noisy[i] - s * v[i], x[i])  # what v means: it gives x_0 back
    with pytest.raises(ValueError, match="sample"):
        denoising_target("sample", x, eps, ABAR, T)


def test_they_agree_with_diffusers():
    scheduler = DDPMScheduler(
        beta_schedule="scaled_linear", prediction_type="v_prediction", rescale_betas_zero_snr=True
    )
    x, eps, t = torch.randn(5, 4, 8, 8), torch.randn(5, 4, 8, 8), torch.tensor([0, 10, 500, 900, 999])
    abar = scheduler.alphas_cumprod
    assert torch.allclose(add_noise(x, eps, abar, t), scheduler.add_noise(x, eps, t), atol=1e-6)
    velocity = scheduler.get_velocity(x, eps, t)
    assert torch.allclose(denoising_target("v_prediction", x, eps, abar, t), velocity, atol=1e-6)


def test_min_snr_weights_are_the_formulas():
    snr = signal_to_noise(ABAR, T)
    assert snr.tolist() == pytest.approx([9.0, 1.0, 1 / 9, 0.0], rel=1e-5)
    epsilon, v = min_snr_weights(snr, 5.0, "epsilon"), min_snr_weights(snr, 5.0, "v_prediction")
    for i, s in enumerate([9.0, 1.0, 1 / 9]):
        assert epsilon[i].item() == pytest.approx(min(s, 5) / s, rel=1e-5)
        assert v[i].item() == pytest.approx(min(s, 5) / (s + 1), rel=1e-5)
    assert v[3] == 0 and epsilon[3] == 1  # finite where nothing of the picture is left


def test_losses_are_means_per_sample_with_weights_and_prior():
    prediction, target = torch.zeros(3, 2, 2, 2), torch.ones(3, 2, 2, 2) * torch.tensor([1.0, 2, 3]).view(3, 1, 1, 1)
    losses = denoising_loss(prediction, target)
    assert losses.tolist() == [1, 4, 9]
    assert denoising_loss(prediction, target, torch.tensor([1.0, 0.5, 0])).tolist() == [1, 2, 0]
    assert with_prior(losses, 3, 7.0).item() == pytest.approx(14 / 3)
    assert with_prior(losses, 2, 0.5).item() == pytest.approx(2.5 + 0.5 * 9)
