"""Folders of PEFT's Lily, there and back: PEFT itself writes them, loads them and says what must come out."""

import copy
import functools
import json
import os
import warnings

import pytest
import torch
from peft import LilyConfig as PeftLilyConfig
from peft import PeftConfig, PeftModel, get_peft_model, inject_adapter_in_model, set_peft_model_state_dict
from safetensors.torch import load_file, save_file

from lily_diffusion import Group, LilyAdapter, LilyConfig, attach, detach, load_lily_weights, save_lily_weights
from lily_diffusion.interchange.peft import read_peft, write_peft
from lily_diffusion.interchange.peft_sharing import wiring
from lily_diffusion.sharing import find_projections
from lily_diffusion.state import get_adapters

from .conftest import awaken, inputs, tiny_sd15, tiny_sdxl
from .zoo import build

SUFFIXES = ["to_q", "to_k", "to_v", "to_out.0"]
KINDS = ("sd15", "sdxl", "flux")


@functools.cache
def made(kind):
    """A tiny model, which no test changes, with its inputs for a batch."""
    if kind == "flux":
        return build("FluxTransformer2DModel")
    model = {"sd15": tiny_sd15, "sdxl": tiny_sdxl}[kind]()
    return model, inputs(model, batch=3)


def names(model):
    return [p.name for p in find_projections(model)]


TARGETS = {
    "suffixes": lambda model: SUFFIXES,
    "part of them": lambda model: ["to_q", "to_out.0"],
    "feed-forward too": lambda model: [*SUFFIXES, "ff.net.0.proj", "ff.net.2"],
    "by attention": lambda model: ["attn1.to_q", "attn2.to_q", "attn1.to_k"],
    "few full names": lambda model: names(model)[:7],
    "many full names": names,
    "regex": lambda model: r".*\.(to_q|to_k|to_v)",
}

WAYS = [("sd15", way) for way in TARGETS] + [("sdxl", "by attention"), ("sdxl", "regex")]
WAYS += [("flux", way) for way in TARGETS if way != "by attention"]  # its blocks have one attention


def trained_by_peft(model, targets, folder, **more):
    """A copy of the model with PEFT's Lily, no tensor of it zero, saved in `folder`."""
    torch.manual_seed(0)
    config = PeftLilyConfig(**{"r": 4, "num_B": 2, "init_weights": False, "target_modules": targets, **more})
    theirs = get_peft_model(copy.deepcopy(model), config).eval()
    theirs.save_pretrained(folder)
    return theirs


def loaded_by_peft(model, folder):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(issing|nexpected).*")
        return PeftModel.from_pretrained(copy.deepcopy(model), folder).eval()


def draw(model, given):
    with torch.no_grad():
        return model(**given, return_dict=False)[0]


def draw_ours(model, adapter, given):
    attach(model, adapter)
    try:
        return draw(model, given)
    finally:
        detach(model)


def of_one_picture(given, batch):
    """The first of a batch of inputs."""
    if isinstance(given, dict):
        return {key: of_one_picture(value, batch) for key, value in given.items()}
    return given[:1] if isinstance(given, torch.Tensor) and len(given) == batch else given


def same(got, expected):
    return (got - expected).norm() <= 1e-5 * expected.norm()


def banks(theirs):
    """Unique As and Bs of a PEFT model."""
    found = dict(theirs.named_parameters())
    return tuple(sum(part in name for name in found) for part in ("lily_A", "lily_B"))


@pytest.mark.parametrize(
    ("kind", "stride_A", "num_B"),
    [
        ("sdxl", 2, 3),
        ("sdxl", 3, 2),
        *((kind, s, 2 + s % 2) for kind in ("sd15", "flux") for s in (1, 2, 3, 4)),
    ],
)
def test_a_folder_of_peft_comes_in_and_goes_out(kind, stride_A, num_B, tmp_path):
    model, given = made(kind)
    theirs = trained_by_peft(model, SUFFIXES, tmp_path / "in", stride_A=stride_A, num_B=num_B, scaling=1.5)
    adapter = read_peft(tmp_path / "in", model)
    assert adapter.config == LilyConfig(r=4, stride_A=stride_A, num_B=num_B, scaling=1.5, routing="batch")
    assert (sum(g.num_A for g in adapter.groups), len(adapter.groups)) == banks(theirs)
    expected = draw(theirs, given)
    assert not same(draw(model, given), expected)
    assert same(draw_ours(model, adapter, given), expected)

    write_peft(adapter, tmp_path / "out", model, base_model="owner/base")
    before, after = (load_file(tmp_path / folder / "adapter_model.safetensors") for folder in ("in", "out"))
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    again = loaded_by_peft(model, tmp_path / "out")
    assert banks(again) == banks(theirs) and torch.equal(draw(again, given), expected)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert sorted(config["target_modules"]) == sorted({g.projection for g in adapter.groups})
    assert config["stride_A"] == stride_A and config["base_model_name_or_path"] == "owner/base"


@pytest.mark.parametrize(("kind", "targets"), WAYS)
def test_however_the_targets_are_written(kind, targets, tmp_path):
    model, given = made(kind)
    chosen = TARGETS[targets](model)
    theirs = trained_by_peft(model, chosen, tmp_path / "in", stride_A=2)
    adapter = read_peft(tmp_path / "in", model)
    if targets != "regex":  # which shares B between projections of different names: here each name has its own copy
        assert (sum(g.num_A for g in adapter.groups), len(adapter.groups)) == banks(theirs)
    assert same(draw_ours(model, adapter, given), draw(theirs, given))
    write_peft(adapter, tmp_path / "out", model)
    before, after = (load_file(tmp_path / folder / "adapter_model.safetensors") for folder in ("in", "out"))
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert torch.equal(draw(loaded_by_peft(model, tmp_path / "out"), given), draw(theirs, given))


@pytest.mark.parametrize("routing", ["batch", "sample"])
@pytest.mark.parametrize("kind", KINDS)
def test_ours_goes_to_peft_and_comes_back(kind, routing, tmp_path):
    model, given = made(kind)
    if routing == "sample":  # PEFT's mean is over the batch, which is the same for one picture
        given = of_one_picture(given, len(next(iter(given.values()))))
    config = LilyConfig(r=4, stride_A=2, num_B=2, scaling=0.7, routing=routing)
    adapter = awaken(attach(copy.deepcopy(model), config))
    expected = draw_ours(model, adapter, given)
    assert not same(draw(model, given), expected)
    write_peft(adapter, tmp_path, model)
    assert same(draw(loaded_by_peft(model, tmp_path), given), expected)
    back = read_peft(tmp_path, model, routing=routing)
    assert back.groups == adapter.groups
    for layer in adapter.layers:
        assert all(torch.equal(a, b) for a, b in zip(back.tensors(layer), adapter.tensors(layer), strict=True))
    assert same(draw_ours(model, back, given), expected)


def apart(model, per_layer):
    """An adapter with a group for each layer, or with groups and As that alternate, as PEFT never makes them."""
    families = {}
    for i, p in enumerate(find_projections(model)):
        families.setdefault((p.attribute, p.in_features, p.out_features, i if per_layer else 0), []).append(p.name)
    groups = tuple(
        Group(*key[:3], tuple(layers), tuple(i % 2 for i in range(len(layers)))) for key, layers in families.items()
    )
    return awaken(LilyAdapter(LilyConfig(r=4, stride_A=2, num_B=2, routing="batch"), groups))


@pytest.mark.parametrize("per_layer", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_sharing_that_pefts_rule_does_not_know(kind, per_layer, tmp_path):
    """With a bank for each layer PEFT would shorten the list of names; in FLUX, some names are the ends of others."""
    model, given = made(kind)
    adapter = apart(model, per_layer)
    write_peft(adapter, tmp_path, model)
    theirs = loaded_by_peft(model, tmp_path)
    assert same(draw(theirs, given), draw_ours(model, adapter, given))
    assert banks(theirs)[1] == len(adapter.groups)
    back = read_peft(tmp_path, model)
    assert back.groups == adapter.groups
    if per_layer:
        targets, _ = wiring(adapter, model)
        assert isinstance(targets, dict) and len(targets) >= 20
        config = PeftLilyConfig(r=4, num_B=2, target_modules=list(targets))
        assert banks(get_peft_model(copy.deepcopy(model), config))[1] < len(adapter.groups)


def test_groups_of_a_part_of_the_layers(tmp_path):
    """Two blocks of FLUX in different groups: the names of one are the ends of the other's."""
    model, given = made("flux")
    blocks = [f"{block}.0.attn.to_q" for block in ("transformer_blocks", "single_transformer_blocks")]
    size = find_projections(model)[0].in_features
    groups = tuple(Group("to_q", size, size, (layer,), (0,)) for layer in blocks)
    adapter = awaken(LilyAdapter(LilyConfig(r=4, stride_A=1, num_B=2, routing="batch"), groups))
    write_peft(adapter, tmp_path, model)
    assert wiring(adapter, model) == (dict.fromkeys(blocks), 1)  # the order of a list would be left to chance
    assert same(draw(loaded_by_peft(model, tmp_path), given), draw_ours(model, adapter, given))


def test_peft_can_put_the_weights_into_a_model_that_it_has_injected(tmp_path):
    model, given = made("sd15")
    adapter = awaken(attach(copy.deepcopy(model), LilyConfig(r=4, stride_A=2, num_B=2, routing="batch")))
    write_peft(adapter, tmp_path, model)
    theirs = inject_adapter_in_model(PeftConfig.from_pretrained(tmp_path), copy.deepcopy(model)).eval()
    state = load_file(tmp_path / "adapter_model.safetensors")
    result = set_peft_model_state_dict(theirs, {k.removeprefix("base_model.model."): t for k, t in state.items()})
    assert not result.unexpected_keys and not any("lily_" in key for key in result.missing_keys)
    assert same(draw(theirs, given), draw_ours(model, adapter, given))


def test_an_untrained_folder_changes_nothing(tmp_path):
    model, given = made("sdxl")
    trained_by_peft(model, SUFFIXES, tmp_path, stride_A=2, init_weights=True)
    adapter = read_peft(tmp_path, model)
    assert not any(B.any() for B in adapter.lily_B)
    assert torch.equal(draw_ours(model, adapter, given), draw(model, given))
    families = {(p.attribute, p.in_features, p.out_features) for p in find_projections(model)}
    assert {(g.projection, g.in_features, g.out_features) for g in adapter.groups} == families
    assert len(adapter.groups) == len(families)


@pytest.mark.parametrize("stride_A", [1, 3])
@pytest.mark.parametrize("targets", ["suffixes", "by attention", "regex"])
def test_a_file_that_stores_every_tensor_once(targets, stride_A, tmp_path):
    model, given = made("sdxl")
    theirs = trained_by_peft(model, TARGETS[targets](model), tmp_path, stride_A=stride_A)
    whole = read_peft(tmp_path, model)
    once = {n.replace(".default", ""): p for n, p in theirs.named_parameters() if "lily_" in n}  # the first owner's
    assert len(once) < len(load_file(tmp_path / "adapter_model.safetensors"))
    save_file(once, tmp_path / "adapter_model.safetensors")
    adapter = read_peft(tmp_path, model)
    assert adapter.groups == whole.groups
    assert same(draw_ours(model, adapter, given), draw(theirs, given))


def test_prefixes_and_pipelines(tmp_path):
    model, _ = made("sd15")
    trained_by_peft(model, SUFFIXES, tmp_path)
    file, expected = tmp_path / "adapter_model.safetensors", read_peft(tmp_path, model)
    tensors = load_file(file)
    for prefix in ("", "unet.", "base_model.model.unet.", "base_model.model._orig_mod."):
        save_file({key.replace("base_model.model.", prefix): t for key, t in tensors.items()}, file)
        pipe = type("Pipe", (), {"unet": model})()
        got = read_peft(tmp_path, pipe, routing="sample")
        assert got.groups == expected.groups and got.config.routing == "sample"
        assert all(torch.equal(a, b) for a, b in zip(got.parameters(), expected.parameters(), strict=True))


def test_a_folder_of_both_kinds_is_asked_for_by_name(sd15, tmp_path):
    adapter = awaken(attach(sd15, LilyConfig(r=4)))
    write_peft(adapter, tmp_path, sd15)
    save_lily_weights(sd15, tmp_path)
    for name, routing in (("pytorch_lily_weights.safetensors", "sample"), ("adapter_model.safetensors", "batch")):
        load_lily_weights(sd15, tmp_path, routing, weight_name=name)
        assert get_adapters(sd15)[routing].config.routing == routing
    with pytest.raises(ValueError, match=r"Cannot tell which file .*; pass weight_name"):
        load_lily_weights(sd15, tmp_path, "other")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_type_stays(dtype, tmp_path):
    model, _ = made("sd15")
    adapter = awaken(attach(copy.deepcopy(model), LilyConfig(r=4, num_B=2))).to(dtype)
    write_peft(adapter, tmp_path, model)
    back = read_peft(tmp_path, model)
    assert {p.dtype for p in back.parameters()} == {dtype}
    assert all(torch.equal(a, b) for a, b in zip(adapter.parameters(), back.parameters(), strict=True))


def test_the_mode_is_that_of_any_file(tmp_path):
    model, _ = made("sd15")
    adapter = attach(copy.deepcopy(model), LilyConfig(r=4))
    before = os.umask(0o027)
    write_peft(adapter, tmp_path / "out", model)
    os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()}
    assert modes == {"adapter_config.json": 0o640, "adapter_model.safetensors": 0o640}


def test_our_file_is_smaller(tmp_path):
    model, _ = made("sdxl")
    trained_by_peft(model, SUFFIXES, tmp_path / "theirs", r=16, stride_A=4)
    adapter, copied = read_peft(tmp_path / "theirs", model), copy.deepcopy(model)
    attach(copied, adapter)
    ours = save_lily_weights(copied, tmp_path / "ours").stat().st_size
    theirs = (tmp_path / "theirs" / "adapter_model.safetensors").stat().st_size
    assert 2.5 * ours < theirs
    assert 4 * adapter.num_parameters() < ours < 4 * adapter.num_parameters() + 32 * 1024
