"""EDM on pipelines of SDXL's shape, such as Playground v2.5 (Karras et al. 2022, https://arxiv.org/abs/2206.00364).

Of x = x_0 + sigma noise, D = c_skip x + c_out F(c_in x, c_noise) shall be x_0, and the loss is (D - x_0)^2 / c_out^2.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from .stable_diffusion_xl import SDXLShaped

P_MEAN, P_STD = -1.2, 1.2  # of log(sigma) in training, table 1 of the paper


class EDM(SDXLShaped):
    """The pipeline's scheduler knows every c; its timesteps are c_noise = log(sigma) / 4.

    F is compared with (x_0 - c_skip x) / c_out, which is the same loss. With D itself, half precision would drown what
    is learnt at small sigma, where D is x but for a little and the weight 1 / c_out^2 is large.
    """

    schedulers = ("EDMDPMSolverMultistepScheduler", "EDMEulerScheduler")
    objective = "edm"
    flags: ClassVar[dict[str, Any]] = {"noise_offset": 0.0}
    default_guidance = 3.0

    def timesteps(self, u: Tensor) -> Tensor:
        """c_noise of log-normal sigmas, within what the pipeline draws with."""
        scheduler = self.pipe.scheduler
        sigma = (P_MEAN + P_STD * torch.special.ndtri(u.clamp(1e-5, 1 - 1e-5))).exp()
        return scheduler.precondition_noise(sigma.clamp(scheduler.config.sigma_min, scheduler.config.sigma_max))

    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        scheduler = self.pipe.scheduler
        sigma = (4 * timesteps).exp().view(-1, 1, 1, 1)
        noisy = latents + sigma * noise
        zeros = torch.zeros_like(noisy)
        skipped = scheduler.precondition_outputs(noisy, zeros, sigma)  # c_skip x
        c_out = scheduler.precondition_outputs(zeros, torch.ones_like(noisy), sigma)
        return scheduler.precondition_inputs(noisy, sigma), (latents - skipped) / c_out, None
