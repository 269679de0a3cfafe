"""The denoising loss, its targets and its weights. Tensors in, tensors out; abar is the cumulated product of alphas."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PREDICTION_TYPES = ("epsilon", "v_prediction")


def signal_to_noise(alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """``SNR(t) = abar_t / (1 - abar_t)``, shape (B,). It is 0 where a zero-terminal-SNR schedule ends."""
    abar = alphas_cumprod.to(timesteps.device, torch.float32)[timesteps]
    return abar / (1 - abar)


def add_noise(latents: Tensor, noise: Tensor, alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    """``x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps``, all of shape (B, C, h, w)."""
    abar = _abar_like(latents, alphas_cumprod, timesteps)
    return abar.sqrt() * latents + (1 - abar).sqrt() * noise


def denoising_target(
    prediction_type: str, latents: Tensor, noise: Tensor, alphas_cumprod: Tensor, timesteps: Tensor
) -> Tensor:
    """What the denoiser has to answer: ``eps``, or ``v = sqrt(abar) eps - sqrt(1 - abar) x_0`` (Salimans & Ho 2022).

    Raises:
        ValueError: the prediction type is neither ``epsilon`` nor ``v_prediction``.
    """
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "v_prediction":
        abar = _abar_like(latents, alphas_cumprod, timesteps)
        return abar.sqrt() * noise - (1 - abar).sqrt() * latents
    raise ValueError(f"cannot train a model that predicts {prediction_type!r}, only {' or '.join(PREDICTION_TYPES)}")


def min_snr_weights(snr: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """The min-SNR-gamma weight of each sample (Hang et al. 2023, https://arxiv.org/abs/2303.09556), shape (B,).

    In terms of x_0 it is ``min(SNR, gamma)``; divided by SNR for epsilon and by SNR + 1 for v.
    """
    if prediction_type == "epsilon":
        return (gamma / snr).clamp(max=1.0)  # min(SNR, gamma) / SNR, finite where SNR is 0
    return snr.clamp(max=gamma) / (snr + 1)


def denoising_loss(
    prediction: Tensor, target: Tensor, weights: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """Mean squared error of each sample in float32, times its weight: (B, C, h, w) twice -> (B,).

    With a mask (B, 1, h, w) of weights in [0, 1] it is the weighted mean over places, so that a small subject counts
    as much as a large one.
    """
    errors = F.mse_loss(prediction.float(), target.float(), reduction="none")
    if mask is None:
        losses = errors.flatten(1).mean(1)
    else:
        losses = (errors.mean(1) * mask[:, 0]).flatten(1).sum(1) / mask.flatten(1).sum(1).clamp(min=1e-6)
    return losses if weights is None else losses * weights


def with_prior(losses: Tensor, num_instances: int, prior_loss_weight: float) -> Tensor:
    """Mean over the instances plus ``prior_loss_weight`` times the mean over the class pictures that follow them."""
    loss = losses[:num_instances].mean()
    if len(losses) > num_instances:
        loss = loss + prior_loss_weight * losses[num_instances:].mean()
    return loss


def _abar_like(latents: Tensor, alphas_cumprod: Tensor, timesteps: Tensor) -> Tensor:
    return alphas_cumprod.to(latents.device, latents.dtype)[timesteps].view(-1, 1, 1, 1)
