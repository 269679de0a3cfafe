"""Every family: its loss falls, only the adapter learns, and the saved file draws what was trained."""

from __future__ import annotations

import hashlib
import math

import pytest
import torch

from lily_diffusion import base_model, load_lily_weights, unload_lily_weights
from lily_diffusion.training import TrainingError, loop, objective, train
from lily_diffusion.training.build import build
from lily_diffusion.training.families import FAMILIES, Family
from lily_diffusion.training.families.flow_matching import draw_levels, loss_weights, shifted

from .tiny_pipelines import resolution, save_pipeline
from .training_base import arguments, base, pictures  # noqa: F401

NAMES = [kind.__module__.rpartition(".")[2] for kind in FAMILIES]
STEPS = 40  # enough for each of the tiny denoisers to halve its loss


@pytest.fixture(params=NAMES)
def name(request):
    """Of a family, and of its tiny pipeline."""
    return request.param


@pytest.fixture
def finished(monkeypatch):
    """A list that gets the `Run` of every training, whose pipeline keeps its text encoders; all steps are alike."""
    runs = []
    monkeypatch.setattr(loop, "build", lambda args: runs.append(build(args)) or runs[0])
    monkeypatch.setattr(Family, "free_text_encoder", lambda family: None)
    monkeypatch.setattr(objective, "micro_batch_positions", lambda *_: [0])  # same picture, noise and timestep
    return runs


def parts(pipe) -> dict[str, str]:
    """A hash of every tensor of every part of a pipeline."""
    models = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    return {
        f"{name}.{key}": hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
        for name, model in models.items()
        for key, tensor in model.state_dict().items()
    }


def draw(pipe, edge):
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    size = {"height": edge, "width": edge, "num_inference_steps": 2}
    prompt = "a sks robot on a red background"
    return torch.tensor(pipe(prompt=prompt, **size, output_type="np", generator=generator).images)


def test_what_is_trained_is_what_is_saved_and_nothing_else(arguments, finished, name, tmp_path):  # noqa: F811
    """The loss of one sample halves in 40 steps; no bit of the base changes; the file draws what the memory draws."""
    folder, edge = save_pipeline(name, tmp_path / "base"), resolution(name)
    flags = {"rank": 8, "scaling": 8.0, "learning_rate": 5e-3, "train_batch_size": 1, "max_train_steps": STEPS}
    flags |= {"validation_prompt": ["a sks robot"], "num_validation_images": 1, "validation_inference_steps": 1}
    result = train(arguments(pretrained_model_name_or_path=folder, resolution=edge, validation_steps=STEPS, **flags))
    assert len(result.losses) == STEPS and result.losses[-1] < 0.5 * result.losses[0]
    assert (result.output_dir / "samples" / f"step-{STEPS}.png").is_file()

    trained, fresh = finished[0].family.pipe, base_model.load_pipeline(str(folder))
    assert parts(trained) == parts(fresh) and len(parts(fresh)) > 50
    assert all(not p.requires_grad and p.grad is None for p in finished[0].family.denoiser.parameters())
    in_memory, of_the_base = draw(trained, edge), draw(fresh, edge)
    load_lily_weights(fresh, result.weights, "x")
    assert torch.equal(draw(fresh, edge), in_memory)
    assert not torch.allclose(in_memory, of_the_base, atol=1e-2)
    unload_lily_weights(fresh)
    assert torch.equal(draw(fresh, edge), of_the_base)


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
