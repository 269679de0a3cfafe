"""Every family: its loss falls, only the adapter learns, and the saved file draws what was trained."""

from __future__ import annotations

import math

import pytest
import torch

from lily_diffusion import base_model, load_lily_weights, unload_lily_weights
from lily_diffusion.state import get_adapters
from lily_diffusion.training import TrainingError, train
from lily_diffusion.training.build import build
from lily_diffusion.training.checks import complete
from lily_diffusion.training.families import FAMILIES, family_class
from lily_diffusion.training.families.flow_matching import draw_levels, loss_weights, shifted
from lily_diffusion.training.objective import batch_loss

from .tiny_pipelines import resolution, save_pipeline
from .training_base import arguments, base, pictures  # noqa: F401

NAMES = [kind.__module__.rpartition(".")[2] for kind in FAMILIES]
STEPS = 40  # enough for each of the tiny denoisers to halve its loss


@pytest.fixture(params=NAMES)
def family(request, tmp_path):
    """Where a tiny pipeline of the family lies, and how large the pictures are that it is trained on."""
    folder = save_pipeline(request.param, tmp_path / "base")
    return {"pretrained_model_name_or_path": folder, "resolution": resolution(request.param)}


def frozen(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_the_loss_of_one_batch_falls_by_half_and_the_base_stays(arguments, family):  # noqa: F811
    flags = {"rank": 8, "scaling": 8.0, "learning_rate": 5e-3, "cache_latents": True, "train_batch_size": 1}
    if "max_sequence_length" in family_class(arguments(**family)).flags:
        flags["max_sequence_length"] = 32  # fast
    run = build(complete(arguments(**family, **flags)))
    before, losses = frozen(run.family.denoiser), []
    for _ in range(STEPS):
        loss = batch_loss(run, 0)  # always of the same positions: the same pictures, noise and timesteps
        losses.append(loss.item())
        run.accelerator.backward(loss)
        run.optimizer.step()
        run.optimizer.zero_grad()
    assert losses[-1] < 0.5 * losses[0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in run.family.denoiser.state_dict().items())


def draw(pipe, edge):
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    size = {"height": edge, "width": edge, "num_inference_steps": 2}
    prompt = "a sks robot on a red background"
    return torch.tensor(pipe(prompt=prompt, **size, output_type="np", generator=generator).images)


def test_the_saved_file_draws_what_was_trained(arguments, family):  # noqa: F811
    folder, edge = str(family["pretrained_model_name_or_path"]), family["resolution"]
    base_pictures = draw(base_model.load_pipeline(folder), edge)
    flags = {"validation_prompt": ["a sks robot"], "num_validation_images": 1, "validation_inference_steps": 1}
    result = train(arguments(**family, scaling=8.0, **flags))
    assert (result.output_dir / "samples" / "step-4.png").is_file()
    pipe = base_model.load_pipeline(folder)
    load_lily_weights(pipe, result.weights, "x")
    loaded = draw(pipe, edge)
    assert not torch.allclose(loaded, base_pictures, atol=1e-3)
    adapter = get_adapters(getattr(pipe, "transformer", None) or pipe.unet)["x"]
    assert any(B.any() for B in adapter.lily_B)
    unload_lily_weights(pipe)
    assert torch.equal(draw(pipe, edge), base_pictures)


def test_a_flag_of_another_family_is_refused(arguments, tmp_path):  # noqa: F811
    folder = save_pipeline("stable_diffusion_3", tmp_path / "sd3")
    with pytest.raises(TrainingError, match="--snr_gamma does nothing for a StableDiffusion3Pipeline"):
        train(arguments(pretrained_model_name_or_path=folder, snr_gamma=5))
    with pytest.raises(TrainingError, match="--weighting_scheme does nothing for a StableDiffusionPipeline"):
        train(arguments("other", weighting_scheme="mode"))


@pytest.mark.parametrize("scheme", ["none", "logit_normal", "mode"])
def test_noise_levels(scheme):
    u = (torch.arange(10_000) + 0.5) / 10_000
    level = draw_levels(u, scheme, 0.5, 1.0, 1.29)
    assert level.min() > 0 and level.max() < 1
    if scheme == "logit_normal":
        assert torch.logit(level).mean() == pytest.approx(0.5, abs=1e-2)
        assert torch.logit(level).std() == pytest.approx(1.0, abs=1e-2)
    if scheme == "mode":
        expected = [1 - x - 1.29 * (math.cos(math.pi * x / 2) ** 2 - 1 + x) for x in (0.25, 0.5)]
        assert [level[2500].item(), level[5000].item()] == pytest.approx(expected, abs=1e-3)
    assert shifted(level, 1.0).equal(level) and (shifted(level, 3.0) > level).all()
    assert shifted(torch.tensor(0.5), 3.0).item() == pytest.approx(0.75)


def test_loss_weights():
    sigma = torch.tensor([0.25, 0.5, 1.0])
    assert loss_weights(sigma, "sigma_sqrt").tolist() == pytest.approx([16, 4, 1])
    assert loss_weights(sigma, "cosmap")[1].item() == pytest.approx(4 / torch.pi)
    assert loss_weights(sigma, "logit_normal").tolist() == [1, 1, 1]
