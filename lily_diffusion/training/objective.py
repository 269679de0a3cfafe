"""The loss of a batch: denoising, and what keeps the model from forgetting the class."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..blend import set_enabled
from .draws import micro_batch_positions, mixed_seed
from .losses import denoising_loss, with_prior
from .run import Run
from .sources import Sample, alike


def batch_loss(run: Run, micro_batch: int) -> Tensor:
    """The loss of the `micro_batch`-th part of the next step, a pure function of the seed and of the samples seen."""
    args, accelerator = run.args, run.accelerator
    rank, world_size = accelerator.process_index, accelerator.num_processes
    positions = micro_batch_positions(run.progress.samples_seen, micro_batch, args.train_batch_size, rank, world_size)
    samples = run.instances.samples(positions)
    if run.classes is not None:
        samples = samples + run.classes.samples(positions)
    torch.manual_seed(mixed_seed(run.progress.seed, "dropout", positions[0]))
    groups = alike([sample.latents for sample in samples])
    losses = torch.cat([sample_losses(run, [samples[row] for row in rows]) for rows in groups])
    order = torch.tensor([row for rows in groups for row in rows], device=losses.device).argsort()
    loss = with_prior(losses[order], len(positions), args.prior_loss_weight)
    if world_size > 1:  # DDP waits for a gradient of every tensor, and a model may not use all of its projections
        loss = loss + 0.0 * torch.stack([p.sum() for p in run.parameters]).sum()
    return loss


def sample_losses(run: Run, samples: list[Sample]) -> Tensor:
    """The loss of each of some samples of one shape, (B,)."""
    family = run.family
    latents = torch.stack([sample.latents for sample in samples])
    noise = torch.stack([sample.noise for sample in samples])
    timesteps = torch.stack([sample.timestep for sample in samples])
    mask = None
    if any(sample.mask is not None for sample in samples):  # class pictures have none
        everywhere = torch.ones_like(latents[0, :1])
        mask = torch.stack([everywhere if sample.mask is None else sample.mask for sample in samples])
    captions = [sample.caption for sample in samples]
    if not run.args.with_output_preservation:
        return family.losses(run.model, latents, noise, timesteps, conditions(run, captions), mask)

    class_captions = [run.args.class_prompt] * len(samples)
    noisy, target, weights = family.noised(latents, noise, timesteps)
    prompts = conditions(run, captions + class_captions)
    answers = family.ask(run.model, noisy.repeat(2, 1, 1, 1), timesteps.repeat(2), prompts)
    answer, class_answer = answers.chunk(2)
    with torch.no_grad(), adapters_off(run), run.accelerator.autocast():
        base_answer = family.ask(run.trained, noisy, timesteps, conditions(run, class_captions))
    kept = denoising_loss(class_answer, base_answer, weights)
    return denoising_loss(answer, target, weights, mask) + run.args.output_preservation_weight * kept


def conditions(run: Run, captions: list[str]) -> dict[str, Tensor]:
    """What the denoiser is told for these captions, side by side."""
    encoded = {caption: run.prompts[caption] for caption in dict.fromkeys(captions)}
    return run.family.batch([encoded[caption] for caption in captions])


@contextmanager
def adapters_off(run: Run) -> Iterator[None]:
    """The base model alone."""
    for model in run.parts.values():
        set_enabled(model, False)
    try:
        yield
    finally:
        for model in run.parts.values():
            set_enabled(model, True)
