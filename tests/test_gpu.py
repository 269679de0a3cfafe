"""What only a GPU can run. Without one these tests are skipped, and nothing here has been shown."""

import math

import pytest
import torch

from lily_diffusion import LilyConfig, attach, base_model, load_lily_weights, save_lily_weights, set_adapters
from lily_diffusion.state import get_adapters
from lily_diffusion.training import train

from .conftest import awaken
from .zoo import build

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
pytest_plugins = ("tests.training_base",)  # its fixtures: base, pictures, arguments
CONFIG = LilyConfig(r=4, stride_A=2, num_B=2)
NAMES = ["UNet2DConditionModel (Stable Diffusion 1.5)", "FluxTransformer2DModel"]


@pytest.fixture(params=NAMES, ids=["unet", "dit"])
def case(request):
    """(model on the GPU with an awake adapter, inputs there, what it puts out on the CPU)"""
    model, inputs = build(request.param)
    awaken(attach(model, CONFIG))
    with torch.no_grad():
        expected = model(**inputs, return_dict=False)[0]
    return model.cuda(), {k: v.cuda() if torch.is_tensor(v) else v for k, v in inputs.items()}, expected


def run(model, inputs):
    with torch.no_grad():
        return model(**inputs, return_dict=False)[0].float().cpu()


def near(got, expected, tolerance=1e-3):
    assert (got - expected).abs().max() < tolerance * expected.abs().max()


def test_the_adapter_follows_the_model(case):
    model, inputs, expected = case
    near(run(model, inputs), expected)
    near(run(model.cpu(), {k: v.cpu() if torch.is_tensor(v) else v for k, v in inputs.items()}), expected)


def test_following_the_model_in_inference_mode_leaves_the_adapter_trainable(case):
    model, inputs, _ = case
    with torch.inference_mode():
        run(model, inputs)
    (adapter,) = get_adapters(model).values()
    assert all(p.is_cuda and not p.is_inference() for p in adapter.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(case, dtype):
    model, inputs, expected = case
    half = {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items() if torch.is_tensor(v)}
    near(run(model.to(dtype), half), expected, 0.1)


def test_xformers(case):
    pytest.importorskip("xformers", reason="xformers has no build for every platform")
    model, inputs, expected = case
    model.enable_xformers_memory_efficient_attention()
    near(run(model, inputs), expected)
    model.disable_xformers_memory_efficient_attention()
    near(run(model, inputs), expected)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled(case, mode):
    model, inputs, expected = case
    compiled = torch.compile(model, mode=mode)
    for weight in (0.3, 1.0):
        set_adapters(model, "default", weight)
        for _ in range(3):
            got = run(compiled, inputs)
    near(got, expected)


def test_group_offload_with_streams(case):
    model, inputs, expected = case
    model.enable_group_offload(
        onload_device=torch.device("cuda"),
        offload_device=torch.device("cpu"),
        offload_type="leaf_level",
        use_stream=True,
    )
    near(run(model, inputs), expected)


@pytest.mark.parametrize("offload", ["enable_model_cpu_offload", "enable_sequential_cpu_offload"])
def test_offloaded_pipeline(offload, tmp_path):
    def picture(pipe):
        generator = torch.Generator().manual_seed(0)
        return pipe("a cat", num_inference_steps=2, generator=generator, output_type="pt").images.float().cpu()

    pipe = base_model.load_pipeline().to("cuda")
    awaken(attach(pipe.unet, CONFIG))
    path, expected = save_lily_weights(pipe, tmp_path), picture(pipe)
    other = base_model.load_pipeline()
    getattr(other, offload)()
    load_lily_weights(other, path)
    near(picture(other), expected, 0.02)


@pytest.mark.parametrize("precision", ["no", "fp16", "bf16"])
def test_training(arguments, precision):
    result = train(arguments(mixed_precision=precision, max_train_steps=4))
    assert result.steps == 4 and all(math.isfinite(loss) for loss in result.losses)


def test_training_with_8_bit_adamw(arguments):
    assert all(math.isfinite(loss) for loss in train(arguments(use_8bit_adam=True, max_train_steps=4)).losses)
