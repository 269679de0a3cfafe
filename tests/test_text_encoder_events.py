"""What comes after attaching to a text encoder: training, compiling, copying, other layers, LoRA beside it."""

import copy

import pytest
import torch

from lily_diffusion import LilyConfig, attach, detach, set_adapters
from lily_diffusion.interchange.lora import write_lora
from lily_diffusion.sharing import find_projections

from .conftest import awaken
from .encoded import CONFIG, Encoded
from .tiny_pipelines import clip

IDS = torch.tensor([[3, 5, 7, 9]])


class Text:
    """A text encoder, with what it answers with nothing attached and with an adapter."""

    def __init__(self):
        torch.manual_seed(0)
        self.model = clip()[0].eval()
        self.base = self.run()
        self.adapter = awaken(attach(self.model, CONFIG, "a"), std=0.5)
        self.adapted = self.run()
        assert not torch.allclose(self.base, self.adapted, atol=1e-2)

    def run(self, model=None):
        with torch.no_grad():
            return (self.model if model is None else model)(IDS).last_hidden_state


@pytest.fixture
def text():
    return Text()


def test_gradients_are_the_same_when_checkpointed(text):
    model = text.model.train().requires_grad_(False)
    gradients = []
    for _ in range(2):
        text.adapter.requires_grad_(True).zero_grad()
        model(IDS).last_hidden_state[..., 0].sum().backward()
        gradients.append([p.grad.clone() for p in text.adapter.parameters()])
        model.gradient_checkpointing_enable()
    assert all(g.any() for g in gradients[0])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain)


def test_a_compiled_text_encoder_has_its_adapter(text):
    compiled = torch.compile(text.model, backend="eager", fullgraph=True)
    torch.testing.assert_close(text.run(compiled), text.adapted)
    with torch._dynamo.config.patch(error_on_recompile=True):
        set_adapters(compiled, "a", 0.0)
        torch.testing.assert_close(text.run(compiled), text.base)


def test_a_copy_has_an_adapter_of_its_own(text):
    copied = copy.deepcopy(text.model)
    detach(text.model)
    assert torch.equal(text.run(), text.base) and torch.equal(text.run(copied), text.adapted)
    detach(copied)
    assert torch.equal(text.run(copied), text.base)


def test_projections_may_be_replaced(text):
    for p in find_projections(text.model):
        attention, _, name = p.name.rpartition(".")
        linear = copy.deepcopy(text.model.get_submodule(p.name))
        linear._forward_hooks.clear()
        setattr(text.model.get_submodule(attention), name, linear)
    assert torch.equal(text.run(), text.adapted)
    detach(text.model)
    assert torch.equal(text.run(), text.base)
    assert not any(module._forward_hooks for module in text.model.modules())


def test_lora_beside_it_comes_and_goes(tmp_path):
    case = Encoded("stable_diffusion")
    adapted = case.adapt("a", config=LilyConfig(r=4, num_B=2, routing="static"))
    adapters = {c: model.__dict__["_lily"].adapters["a"] for c, model in case.models.items()}
    text = {"text_encoder": adapters["text_encoder"]}
    path = write_lora(adapters["unet"], tmp_path / "l.safetensors", component="unet", text_encoders=text)
    set_adapters(case.pipe, "a", 2.0)
    twice = case.draw()
    set_adapters(case.pipe, "a", 1.0)
    case.pipe.load_lora_weights(path)
    torch.testing.assert_close(case.draw(), twice, rtol=1e-3, atol=1e-3)
    for component, model in case.models.items():  # again, so that the LoRA's own layers are what is hooked
        detach(model)
        attach(model, adapters[component], "a")
    torch.testing.assert_close(case.draw(), twice, rtol=1e-3, atol=1e-3)
    case.pipe.unload_lora_weights()
    torch.testing.assert_close(case.draw(), adapted, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(adapted, twice, rtol=1e-2, atol=1e-2)
