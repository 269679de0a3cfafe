"""A UNet and a DiT with an adapter that does something, for tests of what comes after attaching."""

import copy

import torch

from lily_diffusion import LilyConfig, attach, detach

from .conftest import awaken, inputs, small_unet
from .zoo import build

CONFIG = LilyConfig(r=4, stride_A=2, num_B=2, target_modules=("attention", "feed-forward"))
NAMES = {
    "unet": "UNet2DConditionModel (Stable Diffusion 1.5)",
    "dit": "FluxTransformer2DModel",
    "sd3": "SD3Transformer2DModel",
    "pixart": "PixArtTransformer2DModel",
}


class Case:
    """A model with its inputs; what it draws with nothing attached, and with `adapter`."""

    def __init__(self, kind):
        self.kind = kind
        if kind == "small unet":
            self.model = small_unet()
            self.inputs = inputs(self.model)
        else:
            self.model, self.inputs = build(NAMES[kind])
        self.base = self.run()
        self.adapter = awaken(attach(copy.deepcopy(self.model), CONFIG))
        self.attach()
        self.adapted = self.run()
        assert not torch.allclose(self.adapted, self.base, rtol=1e-2, atol=1e-3)

    def attach(self):
        attach(self.model, self.adapter, "a")

    def run(self, **more):
        with torch.no_grad():
            return self.model(**{**self.inputs, **more}, return_dict=False)[0]

    def still_there(self, exactly=False):
        if exactly:
            assert torch.equal(self.run(), self.adapted)
        else:
            torch.testing.assert_close(self.run(), self.adapted, rtol=1e-4, atol=1e-5)

    def same_in_either_order(self, event, **more):
        """Event after attaching = event before attaching, and not the event alone."""
        event(self.model)
        after = self.run(**more)
        detach(self.model)
        alone = self.run(**more)
        self.attach()
        torch.testing.assert_close(self.run(**more), after, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(after, alone, rtol=1e-2, atol=1e-3)
        return after
