"""The step clock hears every step of every kind of scheduler, and leaves no trace."""

import copy
import gc
import inspect
import pickle
import weakref

import diffusers
import pytest
import torch

from lily_diffusion import (
    LilyConfig,
    attach,
    base_model,
    delete_adapters,
    get_adapter_weights,
    set_adapters,
    unload_lily_weights,
)
from lily_diffusion.step_clock import StepClock

from .conftest import awaken

WITH_SCALING = (
    "DDIMScheduler",
    "DDPMScheduler",
    "DPMSolverMultistepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "LCMScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)
STEPS = 5


def loop(scheduler, heard, steps=STEPS, scale=True, first=0):
    """What a pipeline does with its scheduler; returns the fractions that were in force at each model call."""
    scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps
    if first and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    sample, seen = torch.randn(1, 4, 8, 8), []
    for t in timesteps[first:]:
        x = scheduler.scale_model_input(sample, t) if scale else sample
        seen.append(heard[-1])
        sample = scheduler.step(x, t, sample).prev_sample
    return seen


@pytest.mark.parametrize("name", [*WITH_SCALING, "FlowMatchEulerDiscreteScheduler"])
def test_fractions_rise_from_0_to_1(name):
    scheduler = getattr(diffusers, name)()
    plain, heard = type(scheduler), []
    pipe = Pipe(scheduler)
    clock = StepClock(pipe, heard.append)
    clock.watch()
    scale = name in WITH_SCALING
    seen = loop(scheduler, heard, scale=scale)
    if name == "PNDMScheduler":  # repeats one timestep
        assert seen[0] == 0 and seen[-1] == 1 and sorted(seen) == seen
    else:
        assert seen == pytest.approx([i / (STEPS - 1) for i in range(STEPS)])
    assert loop(scheduler, heard, scale=scale)[0] == 0  # the next picture starts anew
    assert isinstance(scheduler, plain) and type(scheduler).__name__ == name
    assert inspect.signature(scheduler.step) == inspect.signature(plain().step)
    clock.stop()
    count = len(heard)
    loop(scheduler, heard, scale=scale)
    assert type(scheduler) is plain and len(heard) == count


class Pipe:
    def __init__(self, scheduler):
        self.scheduler = scheduler


@pytest.mark.parametrize("name", ["DDIMScheduler", "FlowMatchEulerDiscreteScheduler"])
def test_a_picture_that_starts_late(name):
    pipe, heard = Pipe(getattr(diffusers, name)()), []
    clock = StepClock(pipe, heard.append)
    clock.watch()
    assert loop(pipe.scheduler, heard, first=2, scale=name == "DDIMScheduler") == pytest.approx([0.5, 0.75, 1.0])


def test_another_scheduler_is_followed_and_copies_are_not():
    pipe, heard = Pipe(diffusers.DDIMScheduler()), []
    clock = StepClock(pipe, heard.append)
    clock.watch()
    first, count = pipe.scheduler, len(heard)
    for copied in (copy.deepcopy(first), pickle.loads(pickle.dumps(first))):
        assert type(copied) is diffusers.DDIMScheduler
        loop(copied, [0])
    assert len(heard) == count
    pipe.scheduler = diffusers.EulerDiscreteScheduler()
    clock.watch()
    assert type(first) is diffusers.DDIMScheduler
    assert loop(pipe.scheduler, heard)[-1] == 1
    gone = weakref.ref(pipe)
    del pipe
    gc.collect()
    assert gone() is None
    clock.watch()  # nothing to follow any more


def test_two_pipelines_with_one_scheduler():
    scheduler, heard = diffusers.DDIMScheduler(), ([], [])
    pipes = [Pipe(scheduler), Pipe(scheduler)]
    clocks = [StepClock(pipe, ear.append) for pipe, ear in zip(pipes, heard, strict=True)]
    for clock in clocks:
        clock.watch()
    assert loop(scheduler, heard[0]) == loop(scheduler, heard[1]) == pytest.approx([i / 4 for i in range(5)])
    clocks[0].stop()
    count = len(heard[0])
    assert loop(scheduler, heard[1])[-1] == 1 and len(heard[0]) == count
    clocks[1].stop()
    assert type(scheduler) is diffusers.DDIMScheduler


def test_a_scheduler_made_from_a_listening_one():
    pipe, heard = Pipe(diffusers.DDIMScheduler()), []
    clock = StepClock(pipe, heard.append)
    clock.watch()
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    clock.watch()
    assert loop(pipe.scheduler, heard)[-1] == 1
    clock.stop()
    assert type(pipe.scheduler) is diffusers.DDIMScheduler


def test_no_scheduler_is_one_sentence():
    with pytest.raises(ValueError, match="need a pipeline with a scheduler"):
        StepClock(Pipe(None), print)


@pytest.fixture(scope="module")
def pipe():
    pipe = base_model.load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, **more):
    more = {"prompt": "a cat on a red background", "num_inference_steps": 4, "output_type": "latent", **more}
    return pipe(**more, generator=torch.Generator().manual_seed(0)).images


def test_a_pipeline_follows_the_keyframes(pipe):
    awaken(attach(pipe.unet, LilyConfig(r=4), "a"))
    try:
        weights = [1.0, 2 / 3, 1 / 3, 0.0]

        def next_weight(pipe, step, timestep, tensors):
            set_adapters(pipe, "a", weights[min(step + 1, 3)])
            return tensors

        set_adapters(pipe, "a", 1.0)
        constant = draw(pipe)
        expected = draw(pipe, callback_on_step_end=next_weight)
        set_adapters(pipe, "a", "1@0,0@1")
        plain = type(pipe.scheduler).__bases__[0]
        assert torch.allclose(draw(pipe), expected, atol=1e-5) and not torch.allclose(expected, constant, atol=1e-2)
        pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config)
        assert torch.equal(draw(pipe), draw(pipe))  # its first picture starts at the first step too
        assert get_adapter_weights(pipe) == {"a": "1@0,0@1"}
        set_adapters(pipe, "a", 1.0)
        assert type(pipe.scheduler) is diffusers.EulerDiscreteScheduler
        pipe.scheduler = plain.from_config(pipe.scheduler.config)
        set_adapters(pipe, "a", {"unet": {"mid": "0@0,1@1"}})
        assert type(pipe.scheduler) is not plain
    finally:
        unload_lily_weights(pipe)
    assert type(pipe.scheduler) is plain


def test_a_copied_model_says_that_it_hears_no_step(pipe):
    awaken(attach(pipe.unet, LilyConfig(r=4), "a"))
    set_adapters(pipe, "a", "1@0,0@1")
    twin = pickle.loads(pickle.dumps(pipe.unet))
    with pytest.raises(RuntimeError, match="call set_adapters with the copy's own pipeline"):
        twin(torch.zeros(1, 8, 16, 16), 1, torch.zeros(1, 24, 256))
    twin = copy.deepcopy(pipe)
    set_adapters(twin, "a", "1@0,0@1")
    assert torch.equal(draw(twin), draw(pipe))
    attach(pipe.unet, LilyConfig(r=4), "b")
    plain = type(diffusers.DDIMScheduler.from_config(pipe.scheduler.config))
    delete_adapters(pipe, "a")
    assert type(pipe.scheduler) is plain  # nothing changes by step any more
    unload_lily_weights(pipe)


def test_saved_pipelines_name_the_plain_scheduler(pipe, tmp_path):
    awaken(attach(pipe.unet, LilyConfig(r=4), "a"))
    set_adapters(pipe, "a", "1@0,0@1")
    pipe.scheduler.save_pretrained(tmp_path)
    unload_lily_weights(pipe)
    assert type(diffusers.DDIMScheduler.from_pretrained(tmp_path)) is diffusers.DDIMScheduler
    assert '"_class_name": "DDIMScheduler"' in (tmp_path / "scheduler_config.json").read_text()
