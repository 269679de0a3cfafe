"""EDM: which pipelines are trained so, at which noise levels, and that the loss is the paper's."""

from __future__ import annotations

import pytest
import torch
from diffusers import EDMEulerScheduler, StableDiffusionPipeline

from lily_diffusion.training import TrainingError
from lily_diffusion.training.build import build
from lily_diffusion.training.checks import complete
from lily_diffusion.training.draws import generator_for
from lily_diffusion.training.families import family_class, load_family
from lily_diffusion.training.families.edm import EDM
from lily_diffusion.training.families.stable_diffusion_xl import StableDiffusionXL
from lily_diffusion.training.held_out import LEVELS, timesteps_at

from .tiny_pipelines import save_pipeline
from .training_base import arguments, base, pictures  # noqa: F401

KINDS = {"edm": (0.5, 1), "edm_v": (1.0, -1)}  # the tiny schedulers' sigma_data, and the sign of their c_out


@pytest.fixture
def load(arguments, tmp_path):  # noqa: F811
    """A function that loads a tiny pipeline as training does."""

    def make(name, **flags):
        folder = save_pipeline(name, tmp_path / name)
        return load_family(complete(arguments(pretrained_model_name_or_path=folder, **flags)))

    return make


@pytest.mark.parametrize(("name", "kind"), [("edm", EDM), ("edm_v", EDM), ("stable_diffusion_xl", StableDiffusionXL)])
def test_the_scheduler_decides(arguments, tmp_path, name, kind):  # noqa: F811
    folder = save_pipeline(name, tmp_path / name)
    assert family_class(arguments(pretrained_model_name_or_path=folder)) is kind


def test_flags_and_pipelines_that_edm_does_not_know(arguments, base, load, tmp_path):  # noqa: F811
    with pytest.raises(TrainingError, match="--snr_gamma does nothing for a StableDiffusionXLPipeline"):
        load("edm", snr_gamma=5)
    pipe = StableDiffusionPipeline.from_pretrained(base)
    pipe.scheduler = EDMEulerScheduler()
    pipe.save_pretrained(tmp_path / "sd")
    with pytest.raises(TrainingError, match="the scheduler EDMEulerScheduler is not one of epsilon or v prediction"):
        load_family(complete(arguments(pretrained_model_name_or_path=tmp_path / "sd")))


def test_noise_levels_are_log_normal(load):
    family = load("edm")
    timesteps = family.timesteps((torch.arange(10_000) + 0.5) / 10_000)
    assert (4 * timesteps).mean() == pytest.approx(-1.2, abs=1e-2)
    assert (4 * timesteps).std() == pytest.approx(1.2, abs=1e-2)
    assert timesteps.dtype == torch.float32 and (timesteps.diff() > 0).all()
    family.pipe.scheduler.register_to_config(sigma_min=0.1, sigma_max=2.0)
    ends = family.timesteps(torch.tensor([0.0, 1 - 1e-7]))
    assert torch.exp(4 * ends).tolist() == pytest.approx([0.1, 2.0])  # no more than the pipeline draws with
    held_out = timesteps_at(load("edm"), torch.tensor(LEVELS))  # quantiles: the middles of the quarters
    assert torch.allclose(held_out, timesteps.view(4, -1).median(1).values, atol=1e-3)


def paper_loss(x0, noise, sigma, answer, sigma_data, sign):
    """Equations 2, 7 and 8 and table 1 of the paper; for v prediction, F answers the other way around."""
    spread = (sigma**2 + sigma_data**2).sqrt()
    c_skip, c_out, c_in = sigma_data**2 / spread**2, sign * sigma * sigma_data / spread, 1 / spread
    x = x0 + sigma * noise
    denoised = c_skip * x + c_out * answer(c_in * x, 0.25 * sigma.log())
    weight = (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
    return (weight * (denoised - x0) ** 2).flatten(1).mean(1)


@pytest.mark.parametrize("name", KINDS)
def test_the_loss_is_the_papers(load, name):
    family = load(name)
    torch.manual_seed(0)
    x0, noise = torch.randn(2, 5, 4, 8, 8)
    sigma = torch.tensor([0.002, 0.1, 0.5, 3.0, 80.0]).view(-1, 1, 1, 1)
    condition = family.encode("a robot", torch.device("cpu"))

    def answer(scaled, c_noise):
        return scaled.roll(1, 2) * (1 + c_noise.view(-1, 1, 1, 1))

    timesteps = 0.25 * sigma.flatten().log()
    given = family.losses(lambda x, t, *_, **__: answer(x, t), x0, noise, timesteps, family.batch([condition] * 5))
    expected = paper_loss(x0.double(), noise.double(), sigma.double(), answer, *KINDS[name])
    torch.testing.assert_close(given.double(), expected, rtol=1e-3, atol=0)


def test_half_precision_sees_what_is_learnt_at_small_sigmas(load):
    """Rounding the right answer costs next to nothing; rounding the denoised picture would, a thousand times more."""
    family = load("edm")
    family.denoiser.bfloat16()
    torch.manual_seed(0)
    x0, noise = torch.randn(2, 1, 4, 8, 8)
    timesteps = 0.25 * torch.tensor([0.002]).log()
    _, target, _ = family.noised(x0, noise, timesteps)
    prompts = family.batch([family.encode("a robot", torch.device("cpu"))])
    ours = family.losses(lambda *_, **__: target.bfloat16(), x0, noise, timesteps, prompts).item()
    rounding = (x0.bfloat16().float() - x0).square().mean() * (0.002**2 + 0.5**2) / (0.002 * 0.5) ** 2
    assert ours < 1e-4 and rounding > 1000 * ours and rounding > 0.3


def test_the_held_out_loss_is_the_papers_too(arguments, pictures, tmp_path):  # noqa: F811
    held_out = tmp_path / "held_out"
    held_out.mkdir()
    for file in pictures.glob("red.*"):
        file.rename(held_out / file.name)
    folder = save_pipeline("edm", tmp_path / "edm")
    run = build(complete(arguments(pretrained_model_name_or_path=folder, validation_data_dir=held_out)))
    [sample], told = run.held_out.samples, run.family.batch([run.prompts["a sks robot on a red background"]])
    for place, level in enumerate(LEVELS):
        sigma = torch.exp(-1.2 + 1.2 * torch.special.ndtri(torch.tensor(level))).view(1, 1, 1, 1)
        noise = torch.randn(1, *sample.latents.shape, generator=generator_for(0, "held out", place))

        def answer(scaled, c_noise):
            return run.family.predict(run.trained, scaled, c_noise.flatten(), told)

        with torch.no_grad():
            expected = paper_loss(sample.latents[None], noise, sigma, answer, *KINDS["edm"])
        assert run.held_out.losses(run.trained)[level] == pytest.approx(expected.item(), rel=1e-3)
