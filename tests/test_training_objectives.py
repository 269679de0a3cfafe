"""Every family against its own pipeline, without repeating a formula of either.

While the pipeline draws, an oracle stands in for the denoiser. It answers whatever makes the family's training loss 0
for a known picture and the noise that the pipeline began with. The pipeline must then hand that very picture to the
autoencoder, and at every step it must tell the denoiser what training tells it at the same timestep.
"""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest
import torch

from lily_diffusion.training.checks import complete
from lily_diffusion.training.families import FAMILIES, load_family
from lily_diffusion.training.validation import without_text

from .tiny_pipelines import resolution, save_pipeline
from .training_base import arguments, base, pictures  # noqa: F401

OTHERS = ["pixart_alpha", "edm_v", "stable_diffusion_3_t5"]  # other members of the same families
NAMES = [*(kind.__module__.rpartition(".")[2] for kind in FAMILIES), *OTHERS]
PROMPT = "a sks robot on a red background"
COUNT, STEPS = 2, 4
NO_GUIDANCE = {"z_image": 0.0}  # where it is not 1
TOLERANCE = 1e-2  # Sana's scheduler cuts timesteps off to whole numbers of 1000; others are nearer


@pytest.fixture
def tiny(request, arguments, tmp_path):  # noqa: F811
    """The family of a tiny pipeline, with what the tests need beside it."""
    name = getattr(request, "param", "lumina_2")
    folder = save_pipeline(name, tmp_path / "base")
    edge = resolution(name)
    family = load_family(complete(arguments(pretrained_model_name_or_path=folder, resolution=edge)))
    family.pipe.set_progress_bar_config(disable=True)
    encoded = family.encode_prompts([PROMPT, ""], torch.device("cpu"))
    return SimpleNamespace(
        family=family, edge=edge, prompt=encoded[PROMPT], empty=encoded[""], no_guidance=NO_GUIDANCE.get(name, 1.0)
    )


every_family = pytest.mark.parametrize("tiny", NAMES, indirect=True)


def leaves(value) -> list:
    """What is in nested dicts, lists and tuples, without what is empty."""
    if isinstance(value, dict):
        return [leaf for key in sorted(value) for leaf in leaves(value[key])]
    if isinstance(value, list | tuple):
        return [leaf for part in value for leaf in leaves(part)]
    return [] if value is None else [value]


def shaped(flat, like):
    """A flat tensor's numbers in the structure of `like`: a tensor, or a list of tensors."""
    parts = flat.split([leaf.numel() for leaf in leaves(like)])
    parts = [part.view_as(leaf) for part, leaf in zip(parts, leaves(like), strict=True)]
    return parts[0] if torch.is_tensor(like) else parts


def lowest(form, start):
    """Where a quadratic form, as curved in all directions that it depends on, is lowest: one step down its gradient."""

    def slope(x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(form(x), x)[0]

    down = slope(start)
    bend = down - slope(start - down)  # what the gradient loses along itself
    return start - down * (down.square().sum() / (down * bend).sum())


class Oracle:
    """Replaces the forward of a family's denoiser."""

    def __init__(self, tiny, pipe, latents):
        self.family, self.pipe, self.latents = tiny.family, pipe, latents
        self.prompts = tiny.family.batch([tiny.prompt] * COUNT)
        self.noise = None
        self.calls = 0
        self.real = tiny.family.denoiser.forward
        self.signature = inspect.signature(self.real)

    def heard(self, args, kwargs):
        given = self.signature.bind(*args, **kwargs).arguments
        return {name: value for name, value in given.items() if name != "return_dict" and leaves(value)}

    def training(self, noise, timesteps, answer=None):
        """The loss of training, and what it tells the denoiser, if that gives this answer."""
        told = []

        def model(*args, **kwargs):
            told.append(self.heard(args, kwargs))
            real = self.real(*args, **kwargs, return_dict=False)[0]
            return real if answer is None else shaped(answer, real)

        loss = self.family.losses(model, self.latents, noise, timesteps, self.prompts).sum()
        return loss, told[0]

    def __call__(self, *args, **kwargs):
        drawn = self.heard(args, kwargs)
        timesteps = self.pipe.scheduler.timesteps[self.calls].expand(COUNT)
        self.calls += 1
        if self.noise is None:
            self.noise = self.noise_of(drawn, timesteps)
        _, trained = self.training(self.noise, timesteps)
        self.compare(drawn, trained)
        real = self.real(*args, **kwargs)[0]
        start = torch.randn(sum(leaf.numel() for leaf in leaves(real)))  # parts that training ignores stay so
        answer = lowest(lambda x: self.training(self.noise, timesteps, x)[0], start)
        assert self.training(self.noise, timesteps, answer)[0] < 1e-6
        return (shaped(answer, real),)

    def noise_of(self, drawn, timesteps):
        """The noise with which training tells the denoiser what it hears now; at first that is noise alone."""

        def distance(noise):
            _, trained = self.training(noise, timesteps)
            pairs = zip(leaves(trained), leaves(drawn), strict=True)
            return sum((a - b).square().sum() for a, b in pairs if torch.is_tensor(a) and a.requires_grad)

        return lowest(distance, torch.zeros_like(self.latents))

    def compare(self, drawn, trained):
        assert drawn.keys() == trained.keys()
        for name in drawn:
            for a, b in zip(leaves(trained[name]), leaves(drawn[name]), strict=True):
                if not torch.is_tensor(a):
                    assert a == b, name
                    continue
                b = b.expand_as(a) if b.ndim == 0 else b
                message = f"{name} at call {self.calls}"
                assert a.shape == b.shape, message
                assert torch.allclose(a.float(), b.float(), rtol=1e-4, atol=TOLERANCE), message


def known_picture(tiny, monkeypatch):
    """What the autoencoder pretends to see in every picture, and the latents that training makes of it."""
    vae, encode, seen = tiny.family.pipe.vae, tiny.family.pipe.vae.encode, []

    def pretend(pixels):
        real = encode(pixels)
        like = real.latent if hasattr(real, "latent") else real.latent_dist.mean
        seen.append(torch.randn_like(like))
        moments = SimpleNamespace(mean=seen[0], std=torch.zeros_like(like))
        return SimpleNamespace(latent=seen[0], latent_dist=moments)

    monkeypatch.setattr(vae, "encode", pretend)
    mean, std = tiny.family.posterior(torch.zeros(COUNT, 3, tiny.edge, tiny.edge))
    assert mean.shape[1:] == tiny.family.latent_shape(tiny.edge, tiny.edge)
    return seen[0], tiny.family.latents(mean, std, torch.randn_like(mean))


def drawn_picture(tiny, monkeypatch) -> float:
    """How far from the known picture that is which the pipeline draws with the oracle's answers."""
    torch.manual_seed(0)
    picture, latents = known_picture(tiny, monkeypatch)
    pipe, decoded = without_text(tiny.family), []
    pipe.set_progress_bar_config(disable=True)
    decode = pipe.vae.decode
    monkeypatch.setattr(pipe.vae, "decode", lambda x, *a, **k: decoded.append(x) or decode(x, *a, **k))
    monkeypatch.setattr(tiny.family.denoiser, "forward", Oracle(tiny, pipe, latents))
    asked = tiny.family.call_arguments(tiny.prompt, tiny.empty, COUNT, tiny.no_guidance)
    pipe(**asked, height=tiny.edge, width=tiny.edge, num_inference_steps=STEPS, output_type="np")
    return (decoded[0] - picture).abs().max().item()


@every_family
def test_the_answer_that_training_asks_for_draws_the_picture(tiny, monkeypatch):
    assert drawn_picture(tiny, monkeypatch) < TOLERANCE


def mistaken(predict, latents, mistake):
    """The two functions of a family, one of them wrong."""
    wrong = {
        "sign": (lambda model, x, t, prompts: -predict(model, x, t, prompts), latents),
        "time": (lambda model, x, t, prompts: predict(model, x, 999 - t, prompts), latents),
        "axes": (lambda model, x, t, prompts: predict(model, x.mT, t, prompts).mT, latents),
        "scale": (predict, lambda *moments: 1.1 * latents(*moments)),
    }
    return wrong[mistake]


@pytest.mark.parametrize("mistake", ["sign", "time", "axes", "scale"])
def test_the_oracle_notices_mistakes(tiny, monkeypatch, mistake):
    predict, latents = mistaken(tiny.family.predict, tiny.family.latents, mistake)
    monkeypatch.setattr(tiny.family, "predict", predict)
    monkeypatch.setattr(tiny.family, "latents", latents)
    with pytest.raises(AssertionError):
        assert drawn_picture(tiny, monkeypatch) < TOLERANCE


@every_family
def test_an_encoded_prompt_draws_what_the_prompt_draws(tiny):
    """Guided, so that the empty prompt counts too."""
    asked = tiny.family.call_arguments(tiny.prompt, tiny.empty, 1, 3.0)
    plain = {name: value for name, value in asked.items() if "prompt" not in name}
    takes_one = "negative_prompt" in inspect.signature(tiny.family.pipe.__call__).parameters
    if takes_one and not tiny.family.pipe.config.get("force_zeros_for_empty_prompt"):
        plain["negative_prompt"] = ""
    size = {"height": tiny.edge, "width": tiny.edge, "num_inference_steps": 2, "output_type": "np"}

    def draw(pipe, **flags):
        pipe.set_progress_bar_config(disable=True)
        return torch.tensor(pipe(**flags, **size, generator=torch.Generator().manual_seed(0)).images)

    expected = draw(tiny.family.pipe, prompt=PROMPT, **plain)
    tiny.family.free_text_encoder()
    assert torch.allclose(draw(without_text(tiny.family), **asked), expected, atol=1e-5)


CUT = ["stable_diffusion", "stable_diffusion_xl", "stable_diffusion_3", "stable_diffusion_3_t5", "flux", "pixart"]


@pytest.mark.parametrize("tiny", [*CUT, "sana", "lumina_2"], indirect=True)
def test_what_is_reported_as_cut_off_makes_no_difference(tiny):
    """To no text encoder; and what comes just before it does make one."""
    prompt = " ".join([PROMPT] * 80)
    rest = tiny.family.truncated(prompt)
    seen = prompt.removesuffix(rest)
    assert rest and seen != prompt and tiny.family.truncated(PROMPT) == ""

    def encoded(text):
        return leaves(tiny.family.encode_prompts([text], torch.device("cpu"))[text])

    assert all(map(torch.equal, encoded(prompt), encoded(seen + "robot " * 600)))
    assert not all(map(torch.equal, encoded(prompt), encoded(seen.rsplit(maxsplit=1)[0])))


@pytest.mark.parametrize(
    "tiny, middle", [("stable_diffusion_3", 750), ("sana", 750), ("lumina_2", 6000 / 7)], indirect=["tiny"]
)
def test_timesteps_are_shifted_as_the_scheduler_shifts_them(tiny, middle):
    """The tiny schedulers shift by 3, 3 and 6; without a shift the middle of the drawn timesteps is 500."""
    assert tiny.family.timesteps(torch.tensor([0.5])).item() == pytest.approx(middle)
