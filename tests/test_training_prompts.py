"""What the families' denoisers are told in training: what the pipeline tells them, whatever else is in the batch."""

from __future__ import annotations

import inspect

import pytest
import torch

from lily_diffusion import LilyConfig, attach
from lily_diffusion.training import TrainingError
from lily_diffusion.training.checks import complete
from lily_diffusion.training.families import load_family
from lily_diffusion.training.families.base import unseen

from .conftest import awaken
from .tiny_pipelines import resolution, save_pipeline
from .training_base import arguments, base, pictures  # noqa: F401

NAMES = ["flux", "flux_2_klein", "flux_2", "z_image", "qwen_image"]
SHORT = "a sks robot"
LONG = " and ".join(["a photo of a sks robot on a red green blue background"] * 4)
CPU = torch.device("cpu")


@pytest.fixture
def load(arguments, tmp_path):  # noqa: F811
    """A function that loads the tiny pipeline of a family as training does."""

    def make(name, **flags):
        folder = save_pipeline(name, tmp_path / name)
        family = load_family(complete(arguments(pretrained_model_name_or_path=folder, **flags)))
        family.pipe.set_progress_bar_config(disable=True)
        return family

    return make


class Seen(Exception):
    """Ends a call when it has been seen."""


def told(family, call):
    """The arguments, by their names, with which `call` calls the denoiser."""
    signature, seen = inspect.signature(family.denoiser.forward), {}

    def forward(*args, **kwargs):
        seen.update(signature.bind(*args, **kwargs).arguments)
        raise Seen

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Seen):
        patch.setattr(family.denoiser, "forward", forward)
        call()
    return seen


@pytest.mark.parametrize("name", NAMES)
def test_training_tells_the_denoiser_what_the_pipeline_tells_it(load, name):
    family = load(name)
    guidance = 0.0 if name == "z_image" else 1.0  # no second, unguided half of the batch
    size = {"height": 16, "width": 16, "num_inference_steps": 1, "guidance_scale": guidance}
    drawing = told(family, lambda: family.pipe(prompt=[SHORT] * 2, **size))
    noisy = torch.randn(2, *family.latent_shape(16, 16))
    pure = torch.full((2,), float(family.pipe.scheduler.config.num_train_timesteps))
    prompts = family.batch([family.encode(SHORT, CPU)] * 2)
    training = told(family, lambda: family.predict(family.denoiser, noisy, pure, prompts))
    for key in (drawing.keys() | training.keys()) - {"return_dict", "joint_attention_kwargs", "attention_kwargs"}:
        ours, theirs = training.get(key), drawing.get(key)
        if isinstance(theirs, list) and isinstance(theirs[0], torch.Tensor):
            ours, theirs = torch.stack(ours), torch.stack(theirs)
        if not isinstance(theirs, torch.Tensor):
            assert ours == theirs, key
        elif key in ("hidden_states", "x"):
            assert ours.shape == theirs.shape
        else:
            torch.testing.assert_close(ours, theirs, msg=lambda text, key=key: f"{key}: {text}")


LENGTHS = {name: 60 for name in [*NAMES, "stable_diffusion_3_t5", "pixart", "sana"]} | {"lumina_2": 290}


@pytest.mark.parametrize("name", LENGTHS)
def test_no_sample_depends_on_its_batch_mates(load, name):
    family = load(name, max_sequence_length=LENGTHS[name])
    adapter = awaken(attach(family.denoiser, LilyConfig(r=4, stride_A=1, num_B=4, scaling=8.0)), std=1.0)
    for router in adapter.lily_router.parameters():
        router.data.mul_(20)
    conditions = [family.encode(prompt, CPU) for prompt in (LONG, SHORT, LONG)]
    edge = resolution(name)
    latents, noise = torch.randn(2, 3, *family.latent_shape(edge, edge))

    def losses(rows):
        def model(*args, **kwargs):
            return family.denoiser(*args, **kwargs, return_dict=False)[0]

        timesteps = family.timesteps(torch.tensor([0.3, 0.7, 0.5]))[rows]
        prompts = family.batch([conditions[row] for row in rows])
        with torch.no_grad():
            return family.losses(model, latents[rows], noise[rows], timesteps, prompts)

    alone = torch.cat([losses([row]) for row in range(3)])
    torch.testing.assert_close(losses([0, 1, 2]), alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_unseen_end_of_a_long_prompt(load, name):
    family = load(name)
    length = family.encode(SHORT, CPU)["prompt_embeds"].shape[0]
    assert family.truncated(SHORT) == family.truncated(LONG) == "" and (length == 512 or name in NAMES[3:])
    family = load(name, max_sequence_length=30)
    assert family.encode(LONG, CPU)["prompt_embeds"].shape[0] == 30
    rest = family.truncated(LONG)
    assert len(rest) > 20 and LONG.endswith(rest)


def test_what_one_of_several_text_encoders_sees_is_not_reported(load):
    """CLIP sees 24 tokens here, of which two are its own."""
    clip_alone = load("stable_diffusion_3").truncated(LONG)
    assert len(clip_alone) > 20 and LONG.endswith(clip_alone)
    assert load("stable_diffusion_3_t5").truncated(LONG) == ""
    few = load("stable_diffusion_3_t5", max_sequence_length=10)
    assert few.truncated(LONG) == clip_alone and unseen(few.pipe.tokenizer_3, LONG, LONG, 9) != clip_alone
    assert load("flux", max_sequence_length=10).truncated(LONG) == clip_alone
    thirty = load("stable_diffusion_3_t5", max_sequence_length=40).truncated(LONG)
    assert clip_alone.endswith(thirty) and len(clip_alone) > len(thirty) > 0


LIMITS = {  # the longest prompt; for the last two as many as the tiny denoisers have positions for
    "stable_diffusion_3": 512, "flux": 512, "qwen_image": 1024, "lumina_2": 299, "z_image": 576,
}  # fmt: skip


@pytest.mark.parametrize("name", LIMITS)
def test_the_longest_prompt_is_what_the_pipeline_can_draw(load, name):
    most, edge = LIMITS[name], resolution(name)
    family = load(name, max_sequence_length=most)
    prompt = " ".join([LONG] * 30)
    size = {"height": edge, "width": edge, "num_inference_steps": 1, "output_type": "latent"}
    assert family.pipe(prompt=prompt, max_sequence_length=most, **size).images.isfinite().all()
    with pytest.raises((ValueError, IndexError, RuntimeError)):
        family.pipe(prompt=prompt, max_sequence_length=most + 1, **size)
    sentence = f"--max_sequence_length {most + 1} is more than this \\w+Pipeline takes; give {most} or less$"
    with pytest.raises(TrainingError, match=sentence):
        load(name, max_sequence_length=most + 1)


def test_prompts_are_no_longer_than_their_text_encoder_has_positions(load):
    with pytest.raises(TrainingError, match=r"is more than this Flux2KleinPipeline takes; give 1100 or less$"):
        load("flux_2_klein", max_sequence_length=1101)
    assert load("flux_2_klein", max_sequence_length=1100).args.max_sequence_length == 1100
    assert load("pixart", max_sequence_length=2000).args.max_sequence_length == 2000  # T5 knows distances alone


def test_guidance_is_told_to_those_who_know_it_alone(load):
    family = load("flux", guidance_scale=3.5)
    noisy = torch.randn(2, *family.latent_shape(16, 16))
    prompts = family.batch([family.encode(SHORT, CPU)] * 2)
    predict = lambda: family.predict(family.denoiser, noisy, torch.ones(2), prompts)  # noqa: E731
    assert told(family, predict)["guidance"].tolist() == [3.5, 3.5]
    family.denoiser.register_to_config(guidance_embeds=False)
    assert told(family, predict)["guidance"] is None
    family.args.guidance_scale = 3.5
    with pytest.raises(TrainingError, match="--guidance_scale does nothing: this base model is not told any guidance"):
        type(family)(family.pipe, family.args)
    with pytest.raises(TrainingError, match="--guidance_scale does nothing for a ZImagePipeline"):
        load("z_image", guidance_scale=3.5)


@pytest.mark.parametrize("name", NAMES)
def test_a_resolution_that_cuts_a_patch_is_refused(load, name):
    with pytest.raises(TrainingError, match="--resolution 18 is not a multiple of 4, a latent's edge; take 16"):
        load(name).latent_shape(18, 18)
