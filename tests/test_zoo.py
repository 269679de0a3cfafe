"""Every denoiser that diffusers has: each check of `lily_diffusion.testing` on a tiny model of the real class."""

from pathlib import Path

import pytest
import torch
from torch import nn

from lily_diffusion.testing import check_model

from .zoo import LEFT_OUT, ZOO, build, denoisers

NO_CPU_BACKWARD = {"AnyFlowFARTransformer3DModel", "Kandinsky6SRTransformer3DModel"}  # flex attention
FAIL_CHECKPOINTED = {"HunyuanImageTransformer2DModel", "UVit2DModel", "WanAnimate2Transformer3DModel"}  # by themselves
ALTERNATING = {"Kandinsky3UNet", "UNetControlNetXSModel", "WanAnimateTransformer3DModel"}  # not in the listed order


@pytest.mark.parametrize("name", ZOO)
def test_denoiser(name):
    model, inputs = build(name)
    report = check_model(model, inputs)
    assert report.ok, report
    tried = {check for check, passed in report.passed.items() if passed}
    unsupported = set() if model._supports_gradient_checkpointing else {name}
    expected = {
        "every tensor has gradient": NO_CPU_BACKWARD,
        "gradient checkpointing": NO_CPU_BACKWARD | FAIL_CHECKPOINTED | unsupported,
        "in forward order": ALTERNATING,
    }
    assert set(report.passed) - tried == {check for check, names in expected.items() if name in names}


def test_no_class_is_forgotten():
    here = {name.split(" (")[0] for name in ZOO}
    assert denoisers() - here == set(LEFT_OUT)


def test_the_page_names_every_configuration():
    rows = (Path(__file__).parent.parent / "docs" / "models.md").read_text()
    assert [name for name in ZOO if f"| {name} |" not in rows] == []


class Attention(nn.Module):
    """Attention of nobody's making, whose output layer is called by its owner."""

    def __init__(self):
        super().__init__()
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(8, 8) for _ in range(4))
        self.processor = process

    def forward(self, x):
        return self.processor(self, x)


def process(attn, x):
    return nn.functional.scaled_dot_product_attention(attn.to_q(x), attn.to_k(x), attn.to_v(x))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Attention() for _ in range(3))
        self.calls, self.drift = 0, 0.0

    def forward(self, x):
        for block in self.blocks:
            x = x + block.to_out(block(x))
        self.calls += 1
        return x + self.drift * self.calls


def test_a_model_of_ones_own():
    torch.manual_seed(0)
    model = Model().eval()
    report = check_model(model, {"x": torch.randn(2, 5, 8)})
    assert report.ok and report.projections == {"to_q": 3, "to_k": 3, "to_v": 3, "to_out": 3}
    assert report.passed["gradient checkpointing"] is None
    assert "every tensor has gradient yes" in str(report)


def test_the_checks_can_fail():
    torch.manual_seed(0)
    model = Model().eval()
    model.drift = 1.0  # another output with each call: nothing is exact any more
    report = check_model(model, {"x": torch.randn(2, 5, 8)})
    assert not report.ok
    assert not report.passed["fresh adapter is exact"] and not report.passed["saved and loaded"]
    with pytest.raises(ValueError, match="no attention processors"):
        check_model(nn.Linear(2, 2), {})
