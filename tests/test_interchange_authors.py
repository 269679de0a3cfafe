"""Files as the authors' script writes them: parameters by name, each once, from modules that are really shared."""

import pickle

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from lily_diffusion import attach
from lily_diffusion.interchange.authors import read_authors
from lily_diffusion.sharing import find_projections

from .conftest import inputs, run, tiny_sd15, tiny_sdxl

SUFFIXES = ("to_k", "to_q", "to_v", "to_out.0")


class TheirLinear(nn.Module):
    """A projection with the formula of section 3 of the paper as the authors compute it, in their words."""

    def __init__(self, base, lp, hp, ne_2):
        super().__init__()
        self.base, self.lily_lp, self.lily_hp = base, lp, hp
        self.lily_router = nn.Linear(lp.out_features, ne_2, bias=False)

    def forward(self, x, *args):
        hidden = self.lily_lp(x)
        p = self.lily_router(hidden).softmax(-1).mean((0, 1))
        experts = self.lily_hp.weight.reshape(len(p), -1, self.lily_hp.in_features)
        return self.base(x) + hidden @ torch.einsum("e,ero->ro", p, experts)


def theirs(unet, ne_1, ne_2, r=4):
    """Replace the projections; N layers of a family start a new lp every N // ne_1, in order of registration."""
    torch.manual_seed(0)
    families = {}
    for name, module in unet.named_modules():
        suffix = next((s for s in SUFFIXES if name.endswith(s)), None)
        if suffix:
            families.setdefault((suffix, module.weight.shape), []).append((name, module))
    for (_, (n_out, n_in)), layers in families.items():
        hp = nn.Linear(n_out, ne_2 * r, bias=False)
        for i, (name, module) in enumerate(layers):
            if i % (len(layers) // ne_1) == 0:
                lp = nn.Linear(n_in, r, bias=False)
            parent, _, child = name.rpartition(".")
            setattr(unet.get_submodule(parent), child, TheirLinear(module, lp, hp, ne_2))
    return unet


def save(unet, path):
    torch.save({n: p for n, p in unet.named_parameters() if "lily_" in n}, path)
    return path


def same(got, expected):
    return (got - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize(("ne_1", "ne_2"), [(1, 2), (2, 2), (3, 4), (4, 4), (5, 2), (7, 3), (24, 2), (4, 1)])
def test_their_file_runs_to_their_numbers(ne_1, ne_2, tmp_path):
    reference, unet = theirs(tiny_sdxl(), ne_1, ne_2), tiny_sdxl()
    file = save(reference, tmp_path / "lily_layers.pt")
    adapter = read_authors(file, unet)
    assert adapter.num_parameters() == sum(
        (p.numel() if ne_2 > 1 or "router" not in n else 1) for n, p in reference.named_parameters() if "lily_" in n
    )
    assert adapter.config.num_B == ne_2 and adapter.config.stride_A == 24 // ne_1
    assert adapter.config.routing == ("batch" if ne_2 > 1 else "static")
    given = inputs(unet, batch=3)
    expected, base = run(reference, **given), run(unet, **given)
    assert not same(base, expected)
    attach(unet, adapter)
    assert same(run(unet, **given), expected)


def narrow_text():
    """A UNet whose text is narrower than its pictures, so that to_k and to_v make two families each."""
    torch.manual_seed(0)
    return UNet2DConditionModel.from_config({**tiny_sdxl().config, "cross_attention_dim": 48}).eval()


def test_families_of_different_sizes_scaling_and_routing(tmp_path):
    reference, unet = theirs(narrow_text(), 7, 3), narrow_text()
    file = save(reference, tmp_path / "lily_layers.pt")
    sizes = {(len(g.layers), g.num_A) for g in read_authors(file, unet).groups}
    assert sizes == {(24, 8), (12, 12)}  # strides of 24 // 7 and 12 // 7
    attach(unet, read_authors(file, unet, scaling=0.5, routing="sample"))
    with torch.no_grad():
        for hp in {module.lily_hp for module in reference.modules() if isinstance(module, TheirLinear)}:
            hp.weight.div_(2)
    one = inputs(unet, batch=1)
    assert same(run(unet, **one), run(reference, **one))


def test_a_file_in_which_every_layer_has_its_own(tmp_path):
    reference, unet = theirs(tiny_sdxl(), 2, 2), tiny_sdxl()
    once = read_authors(save(reference, tmp_path / "once.pt"), unet)
    torch.save({k: v for k, v in reference.state_dict().items() if "lily_" in k}, tmp_path / "all.pt")
    assert read_authors(tmp_path / "all.pt", unet).groups == once.groups


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("form", ["torch.save", "pickle"])
def test_a_hostile_file_is_refused_before_anything_in_it_runs(form, tmp_path):
    trace, file = tmp_path / "trace", tmp_path / "lily_layers.pt"
    bad = {"a.lily_lp.weight": Hostile(trace)}
    torch.save(bad, file) if form == "torch.save" else file.write_bytes(pickle.dumps(bad, protocol=2))
    with pytest.raises(ValueError, match=r"lily_layers.pt is refused: it is damaged, or asks for more than tensors"):
        read_authors(file, tiny_sd15())
    assert not trace.exists()
    if form == "pickle":
        pickle.loads(file.read_bytes())["a.lily_lp.weight"].close()
        assert trace.exists()  # so it was hostile


FIRST = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    unet = theirs(tiny_sd15(), 1, 2)
    return {n: p.detach() for n, p in unet.named_parameters() if "lily_" in n}


BAD = {
    "no tensors": (lambda t: {"a": 1}, "does not map names to tensors"),
    "a list": (lambda t: list(t.values()), "does not map names to tensors"),
    "nothing": (lambda t: {}, "does not map names to tensors"),
    "sparse": (lambda t: {**t, f"{FIRST}.lily_lp.weight": torch.eye(4).to_sparse()}, "does not map names to tensors"),
    "a checkpoint": (lambda t: {"conv.weight": torch.ones(1)}, r"has no lily_lp \(first: conv.weight\)"),
    "other tensors": (
        lambda t: {**t, "conv.weight": torch.ones(1)},
        "tensors that are not Lily's, such as conv.weight",
    ),
    "other layers": (
        lambda t: {k.replace("attn1", "attn9"): v for k, v in t.items()},
        r"24 of the 48 layers in lily_layers.pt are no linear layers of this UNet2DCond.*, first .*attn9",
    ),
    "no lp": (
        lambda t: without(t, f"{FIRST}.lily_lp.weight"),
        r"lacks tensors: .*; no ne_1 explains it for the targets",
    ),
    "no hp": (lambda t: without(t, f"{FIRST}.lily_hp.weight"), r"lacks tensors: .* of the lily_Bs, .* should have it"),
    "no router": (lambda t: without(t, f"{FIRST}.lily_router.weight"), r"lacks tensors: .*_routers, .* should have it"),
    "no routers": (lambda t: {k: v for k, v in t.items() if "router" not in k}, "has no routers of two dimensions"),
    "odd router": (lambda t: {**t, f"{FIRST}.lily_router.weight": torch.ones(2)}, "has no routers of two dimensions"),
    "odd lp": (
        lambda t: {**t, f"{FIRST}.lily_lp.weight": torch.ones(3, 32)},
        r"of shape \(3, 32\), and \(4, 32\) is wa",
    ),
    "not finite": (
        lambda t: {**t, f"{FIRST}.lily_hp.weight": torch.full((8, 32), torch.inf)},
        "values that are not fin",
    ),
}


def without(tensors, key):
    assert key in tensors
    return {k: v for k, v in tensors.items() if k != key}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_is_one_sentence(what, sound, tmp_path):
    file, unet = tmp_path / "lily_layers.pt", tiny_sd15()
    torch.save(sound, file)
    read_authors(file, unet)
    spoil, sentence = BAD[what]
    torch.save(spoil(sound), file)
    with pytest.raises(ValueError, match=sentence):
        read_authors(file, unet)


def test_what_is_no_file_of_torch(sound, tmp_path):
    unet, file = tiny_sd15(), tmp_path / "lily_layers.pt"
    with pytest.raises(FileNotFoundError, match=r"There is no file .*lily_layers.pt"):
        read_authors(file, unet)
    for content in (b"", b"hello", b"\x10\x00\x00\x00\x00\x00\x00\x00{}"):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"is no file of torch.save, so it is not a Lily file of the authors"):
            read_authors(file, unet)
    torch.save(sound, file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"lily_layers.pt is refused: it is damaged, or asks for more than tensors"):
        read_authors(file, unet)


def test_layers_are_all_the_projections(sound, tmp_path):
    unet = tiny_sd15()
    torch.save(sound, tmp_path / "a.pt")
    assert set(read_authors(tmp_path / "a.pt", unet).layers) == {p.name for p in find_projections(unet)}
