"""The methods that are compared: how each is put on a base model, at which size, and how large its file is."""

from __future__ import annotations

import copy
import functools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor, nn

from lily_diffusion import LilyAdapter, LilyConfig, attach, save_lily_weights
from lily_diffusion.sharing import KINDS, select

BUDGETS = {"least": 14_000, "tiny": 27_500, "small": 55_000, "medium": 220_000}  # trained; LoRA: 27,520 a rank
ONE_SIZE = "small"
PLACEHOLDER = "<sks>"  # the token of textual inversion, which stands for "sks"


@dataclass
class Learner:
    """A method on a base model, ready to be trained."""

    trained: list[nn.Parameter]
    file_bytes: Callable[[], int]  # of the file that the method's own tool writes, in float32
    word: str = "sks"  # that stands for the subject in prompts
    paces: list[float] | None = None  # multipliers of the learning rate, one for each of `trained`
    falls: bool = False  # the learning rate, to zero; otherwise it stays
    adapters: dict[str, LilyAdapter] = field(default_factory=dict)  # that are no part of the model they are put on

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.trained)


@dataclass(frozen=True)
class Method:
    """`put` takes a pipeline, whose models it may change, and one of `sizes`."""

    name: str
    put: Callable[[Any, Any], Learner]
    sizes: Sequence[Any]  # what may be chosen, from which the one nearest to the budget is taken
    rate: float  # learning rate at which the search begins
    sized: bool = True  # False: it has one size, and stands with the methods of ONE_SIZE


def denoiser(pipe: Any) -> Any:
    return getattr(pipe, "transformer", None) or pipe.unet


def attributes(model: nn.Module, *targets: str) -> list[str]:
    """The attention projections, or what else is meant, by the ends of their names, as PEFT's users write them."""
    return sorted({p.attribute for p in select(model, targets or None)})


def lily(pipe: Any, r: int, **options: Any) -> Learner:
    """Ours; on the denoiser alone."""
    model = denoiser(pipe)
    adapter = attach(model, LilyConfig(r=r, **{"stride_A": 4, "num_B": 4, "scaling": 2.0, **options}))
    trained = list(adapter.requires_grad_(True).parameters())
    return Learner(trained, lambda: _size(lambda f: save_lily_weights(model, f)), adapters={"denoiser": adapter})


def by_peft(kind: str, knob: str, pipe: Any, size: Any, **options: Any) -> Learner:
    """One of PEFT's methods: `kind` is its config, `knob` the option that sets its size."""
    model = denoiser(pipe)
    sizes = size if isinstance(size, dict) else {knob: size}
    config = getattr(peft, kind)(**{"target_modules": attributes(model), **options, **sizes})
    wrapped = peft.get_peft_model(model, config)
    return Learner([p for p in model.parameters() if p.requires_grad], lambda: _size(wrapped.save_pretrained))


def lora(pipe: Any, r: int, **options: Any) -> Learner:
    return by_peft("LoraConfig", "r", pipe, r, lora_alpha=r, **options)


def on(put: Callable[..., Learner], *targets: str, **options: Any) -> Callable[..., Learner]:
    """A method on these kinds of layers."""
    return lambda pipe, size: put(pipe, size, target_modules=attributes(denoiser(pipe), *targets), **options)


def full(pipe: Any, _: Any) -> Learner:
    """Every weight of the denoiser."""
    model = denoiser(pipe).requires_grad_(True)
    return Learner(list(model.parameters()), lambda: 4 * sum(p.numel() for p in model.parameters()))


def textual_inversion(pipe: Any, _: Any) -> Learner:
    """One new token, which starts as the last of those that "sks" is made of; each text encoder has its own."""
    trained = []
    for part, words in (("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")):
        encoder, tokenizer = getattr(pipe, part, None), getattr(pipe, words, None)
        if encoder is None or tokenizer is None:
            continue
        like = tokenizer("sks", add_special_tokens=False).input_ids[-1]
        tokenizer.add_tokens(PLACEHOLDER)
        encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        embeddings, row = encoder.get_input_embeddings(), tokenizer.convert_tokens_to_ids(PLACEHOLDER)
        token = nn.Parameter(embeddings.weight[like].detach().clone())
        embeddings.register_forward_hook(functools.partial(_put_token, token, row))
        trained.append(token)
    return Learner(trained, lambda: 4 * sum(token.numel() for token in trained), PLACEHOLDER)


def _put_token(token: Tensor, row: int, _: nn.Module, args: tuple[Tensor], embedded: Tensor) -> Tensor:
    return torch.where((args[0] == row).unsqueeze(-1), token.to(embedded.dtype), embedded)


def _size(save: Callable[[str], Any]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        save(folder)
        return sum(file.stat().st_size for file in Path(folder).rglob("*.safetensors"))


RANKS = tuple(range(1, 129))
_lokr = functools.partial(by_peft, "LoKrConfig", "decompose_factor", r=1024, alpha=1024)
_vera = functools.partial(by_peft, "VeraConfig", "r", save_projection=False)
_randlora = functools.partial(by_peft, "RandLoraConfig", "r", save_projection=False)
METHODS = {
    method.name: method
    for method in (
        Method("lily", lily, RANKS, 2e-3),
        Method("lily-2-experts", functools.partial(lily, num_B=2, stride_A=8), RANKS, 5e-3),
        Method("lily-ff", on(lily, *KINDS), RANKS, 5e-3),
        Method("lily-ff-2-experts", on(lily, *KINDS, num_B=2, stride_A=8), RANKS, 5e-3),
        Method("lily-ff-only", on(lily, "feed-forward", num_B=2, stride_A=8), (1, 2, 4, 8, 16, 32), 5e-3),
        Method("lily-ff-only-token", on(lily, "feed-forward", num_B=2, stride_A=8, routing="token"),
               (1, 2, 4, 8, 16, 32), 5e-3),
        Method("lily-token", functools.partial(lily, routing="token"), RANKS, 2e-3),
        Method("lily-static", functools.partial(lily, routing="static"), RANKS, 2e-3),
        Method("peft-lily", functools.partial(  # the same as ours with routing="batch", but for the file
            by_peft, "LilyConfig", "r", stride_A=4, num_B=4, scaling=2.0), RANKS, 2e-3),
        Method("lora", lora, RANKS, 5e-3),
        Method("lora-q-v", functools.partial(lora, target_modules=["to_q", "to_v"]), RANKS, 1e-2),  # as its paper
        Method("lora-ff", on(lora, *KINDS), RANKS, 5e-3),  # the feed-forward layers too, as trainers for web UIs do
        Method("lora-ff-only", on(lora, "feed-forward"), RANKS, 1e-2),
        Method("lora-ff-out", on(lora, "net.2"), RANKS, 2e-2),  # the second half of each, for a smaller file still
        Method("rslora", functools.partial(lora, use_rslora=True), RANKS, 2e-3),
        Method("dora", functools.partial(lora, use_dora=True), RANKS, 5e-3),
        Method("lokr", _lokr, (2, 4, 8, 16), 5e-3),
        Method("lokr-ff-only", on(_lokr, "feed-forward"), (2, 4, 8, 16), 1e-2),
        Method("oft", functools.partial(by_peft, "OFTConfig", "oft_block_size", r=0), (2, 4, 8, 16, 32, 64), 5e-3),
        Method("hra", functools.partial(by_peft, "HRAConfig", "r"), range(2, 129, 2), 5e-3),
        Method("gralora", lambda pipe, r: by_peft("GraloraConfig", "r", pipe, r, alpha=r), range(2, 129, 2), 5e-3),
        Method("vera", _vera, (64, 128, 256, 512, 1024, 2560), 2e-2),
        Method("vera-ff-only", on(_vera, "feed-forward"), (64, 128, 256, 512, 1024, 2560), 2e-2),
        Method("randlora", _randlora, RANKS, 2e-3),
        # Its own start is a random update, which on projections as narrow as these destroys the model.
        Method("fourierft", functools.partial(by_peft, "FourierFTConfig", "n_frequency", init_weights=True),
               (172, 344, 687, 1375, 2750, 4096), 5e-2),
        Method("unilora", functools.partial(by_peft, "UniLoraConfig", "theta_d_length", r=32),
               tuple(BUDGETS.values()), 2e-2),
        Method("textual-inversion", textual_inversion, (1,), 2e-2, sized=False),
        Method("full", full, (1,), 2e-4, sized=False),
    )
}  # fmt: skip


def size_for(method: Method, pipe: Any, budget: str) -> Any:
    """The size whose number of trained parameters is nearest, as a ratio, to the budget."""
    if len(method.sizes) == 1:
        return method.sizes[0]

    @functools.cache
    def off(size: Any) -> float:
        try:
            count = method.put(copied(pipe), size).parameters
        except (ValueError, AssertionError):  # no such size on this model's widths
            return float("inf")
        return max(count / BUDGETS[budget], BUDGETS[budget] / count)

    sizes, low, high = list(method.sizes), 0, len(method.sizes) - 1
    if len(sizes) <= 8:
        return min(sizes, key=off)
    falls = method.put(copied(pipe), sizes[0]).parameters > method.put(copied(pipe), sizes[-1]).parameters
    while low < high:  # the count moves one way
        middle = (low + high) // 2
        too_few = method.put(copied(pipe), sizes[middle]).parameters < BUDGETS[budget]
        low, high = (middle + 1, high) if too_few != falls else (low, middle)
    return min(sizes[max(0, low - 2) : low + 3], key=off)


def copied(pipe: Any) -> Any:
    """The pipeline with models and tokenizers of its own, except for the autoencoder."""
    parts = {name: part if name == "vae" else copy.deepcopy(part) for name, part in pipe.components.items()}
    made = copy.copy(pipe)
    made.register_modules(**parts)
    made.set_progress_bar_config(disable=True)
    return made
