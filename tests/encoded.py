"""Tiny pipelines with adapters that have parts on the denoiser and on the text encoders."""

import importlib

import pytest
import torch

from lily_diffusion import LilyConfig, attach, unload_lily_weights
from lily_diffusion.components import parts

from .conftest import awaken

CONFIG = LilyConfig(r=4, stride_A=2, num_B=2)
FAMILIES = {
    "stable_diffusion": ["unet", "text_encoder"],
    "stable_diffusion_xl": ["unet", "text_encoder", "text_encoder_2"],
    "stable_diffusion_3": ["transformer", "text_encoder", "text_encoder_2"],
}


class Encoded:
    """A tiny pipeline, and the picture that it draws (as numbers) with nothing attached."""

    def __init__(self, family):
        torch.manual_seed(0)
        self.family, self.components = family, FAMILIES[family]
        self.pipe = importlib.import_module(f"tests.tiny_pipelines.{family}").make()
        self.pipe.set_progress_bar_config(disable=True)
        for model in self.models.values():
            model.eval()
            for name, tensor in model.named_parameters():  # a text should change the picture more than by rounding
                if "token_embedding" in name or "position_embedding" in name:
                    tensor.data.normal_(generator=torch.Generator().manual_seed(1))
        self.base = self.draw()
        self.traces = self.look()

    @property
    def models(self):
        return parts(self.pipe)

    def draw(self, **more):
        generator = torch.Generator("cpu").manual_seed(3)
        call = {"prompt": "a sks robot", "num_inference_steps": 2, "guidance_scale": 2.0, "output_type": "pt"}
        size = {"height": 16, "width": 16}
        return self.pipe(**{**call, **size, **more}, generator=generator).images

    def adapt(self, name="a", seed=0, config=CONFIG, components=None):
        """Attach an adapter that does something to these components, or to all."""
        for i, component in enumerate(components or self.components):
            awaken(attach(self.models[component], config, name), seed=seed + i, std=0.5)
        return self.draw()

    def look(self):
        """All that a user could notice of an adapter, besides the pictures."""
        return [
            (
                component,
                list(model.state_dict()),
                [t.clone() for t in model.state_dict().values()],
                [sorted(m.__dict__) for m in model.modules()],
                sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.modules()),
            )
            for component, model in self.models.items()
        ]

    def is_untouched(self):
        now = self.look()
        same = all(a[:2] == b[:2] and a[3:] == b[3:] for a, b in zip(now, self.traces, strict=True))
        return same and all(
            torch.equal(x, y) for a, b in zip(now, self.traces, strict=True) for x, y in zip(a[2], b[2], strict=True)
        )

    def clear(self):
        unload_lily_weights(self.pipe)
        for model in self.models.values():
            model.__dict__.pop("_lily_target_rank", None)


@pytest.fixture(scope="module")
def pipelines():
    return {family: Encoded(family) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def case(request, pipelines):
    yield pipelines[request.param]
    pipelines[request.param].clear()
    assert pipelines[request.param].is_untouched()


@pytest.fixture
def sd(pipelines):
    yield pipelines["stable_diffusion"]
    pipelines["stable_diffusion"].clear()
    assert pipelines["stable_diffusion"].is_untouched()
