"""What is wrong with a folder of PEFT's, or cannot be said in one, is one sentence, and nothing is left half done."""

import copy
import json
import os

import pytest
import torch
from diffusers.models.attention_processor import Attention
from safetensors.torch import load_file, save_file
from torch import nn

from lily_diffusion import Group, LilyAdapter, LilyConfig, attach, save_and_load
from lily_diffusion.interchange import peft
from lily_diffusion.interchange.peft import read_peft, write_peft

from .conftest import awaken
from .test_interchange_peft import SUFFIXES, made, trained_by_peft


def change(folder, **values):
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **values}))


def change_tensors(folder, do):
    tensors = load_file(folder / "adapter_model.safetensors")
    do(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")


def first(tensors, part):
    return next(key for key in sorted(tensors) if part in key)


def drop(part):
    return lambda folder: change_tensors(folder, lambda t: t.pop(first(t, part)))


def put(key, value):
    return lambda folder: change_tensors(folder, lambda t: t.update({key or first(t, "lily_B"): value}))


def no_r(folder):
    text = (folder / "adapter_config.json").read_text()
    (folder / "adapter_config.json").write_text(text.replace('"r":', '"rank":'))


BAD = {
    "no lily": (lambda f: change(f, peft_type="LORA"), "holds no Lily adapter: .* says peft_type 'LORA'"),
    "no json": (
        lambda f: (f / "adapter_config.json").write_text("{"),
        "adapter_config.json in .* not readable as JSON",
    ),
    "no object": (lambda f: (f / "adapter_config.json").write_text("[1]"), "holds no Lily adapter"),
    "no config": (lambda f: (f / "adapter_config.json").unlink(), "is no adapter of PEFT: it has no adapter_config"),
    "no r": (no_r, "adapter_config.json in .* cannot be used: it has no 'r'"),
    "bad r": (lambda f: change(f, r="4"), "cannot be used: r must be a whole number"),
    "one expert": (lambda f: change(f, num_B=1), "cannot be used: With num_B=1 a router has nothing to choose"),
    "other r": (lambda f: change(f, r=8), r"lily_A.weight of shape \(4, 32\), and \(8, 32\) is wanted"),
    "wide r": (lambda f: put_r(f, 65), "has r=65, more than any of its projections is wide"),
    "no weights": (lambda f: (f / "adapter_model.safetensors").unlink(), "has no adapter_model.safetensors"),
    "pickle": (
        lambda f: (f / "adapter_model.safetensors").rename(f / "adapter_model.bin"),
        "has a pickle, adapter_model.bin, which is never opened",
    ),
    "cut off": (
        lambda f: (f / "adapter_model.safetensors").write_bytes((f / "adapter_model.safetensors").read_bytes()[:-9]),
        "cannot be read as safetensors",
    ),
    "empty": (lambda f: save_file({}, f / "adapter_model.safetensors"), "holds no tensors"),
    "other tensors": (put("x.lora_A.weight", torch.ones(1)), "tensors that are not Lily's, such as x.lora_A.weight"),
    "twice": (put("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lily_A.weight", torch.ones(1)), "twice"),
    "not finite": (put(None, torch.full((8, 32), torch.nan)), "lily_B.weight of type torch.float32 or .* not finite"),
    "integers": (put(None, torch.ones(8, 32, dtype=torch.int8)), "lily_B.weight of type torch.int8"),
    "no A": (
        drop("lily_A"),
        "1 of 144, first .*attn1.to_k.lily_A.weight; sharing .*_As, .*attn1.to_k should have it",
    ),
    "no B": (drop("lily_B"), "lacks tensors: 1 of 144, first .*attn1.to_k.lily_B.weight; sharing does not account"),
    "no router": (drop("lily_router"), "first .*attn1.to_k.lily_router.weight; sharing .*_routers, .*to_k should have"),
}


def put_r(folder, r):
    change(folder, r=r)

    def widen(tensors):
        for key, t in tensors.items():
            n_in, rows = t.shape[-1], t.shape[0]
            shape = (r, n_in) if "lily_A" in key else (2 * r, n_in) if "lily_B" in key else (rows, r)
            tensors[key] = torch.ones(shape)

    change_tensors(folder, widen)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sound")
    trained_by_peft(made("sd15")[0], SUFFIXES, folder)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_folder_is_one_sentence(what, sound, tmp_path):
    for name, content in sound.items():
        (tmp_path / name).write_bytes(content)
    read_peft(tmp_path, made("sd15")[0])
    spoil, sentence = BAD[what]
    spoil(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        read_peft(tmp_path, made("sd15")[0])


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*nowhere"):
        read_peft(tmp_path / "nowhere", made("sd15")[0])


def test_another_base(tmp_path):
    trained_by_peft(made("sd15")[0], SUFFIXES, tmp_path)
    with pytest.raises(ValueError, match=r"are no linear layers of this FluxTransformer2DModel, first down_bl"):
        read_peft(tmp_path, made("flux")[0])


@pytest.mark.parametrize("targets", [["to_q", "attn1.to_q", "to_k", "to_v", "to_out.0"], ["to_q"], None, 7])
def test_missing_tensors_that_the_targets_do_not_explain(targets, tmp_path):
    model = made("sd15")[0]
    theirs = trained_by_peft(model, SUFFIXES, tmp_path)
    once = {n.replace(".default", ""): p for n, p in theirs.named_parameters() if "lily_" in n}
    save_file(once, tmp_path / "adapter_model.safetensors")
    read_peft(tmp_path, model)
    change(tmp_path, target_modules=targets)
    with pytest.raises(ValueError, match=r"lacks tensors: .* first .*lily_B.weight; target_modules "):
        read_peft(tmp_path, model)


def fresh(**config):
    return awaken(attach(copy.deepcopy(made("sd15")[0]), LilyConfig(**{"r": 4, "num_B": 2, **config})))


@pytest.mark.parametrize(
    ("routing", "sentence"),
    [("static", "cannot run routing='static'; write a LoRA instead: .* bake"), ("token", "routing='token' cannot be")],
)
def test_routings_that_peft_does_not_have(routing, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        write_peft(fresh(routing=routing), tmp_path / "out", made("sd15")[0])
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_does_not_fit_or_is_not_finite(tmp_path):
    adapter = fresh()
    with pytest.raises(ValueError, match=r"The adapter is for another base"):
        write_peft(adapter, tmp_path / "out", made("flux")[0])
    with torch.no_grad():
        adapter.lily_B[0][0, 0, 0] = torch.inf
    with pytest.raises(
        ValueError, match=r"tensors of the adapter are not finite, first base_model.model.down_blocks.0"
    ):
        write_peft(adapter, tmp_path / "out", made("sd15")[0])
    assert not (tmp_path / "out").exists()


def test_what_is_in_the_target_is_kept_unless_it_is_a_lily_adapter(tmp_path):
    adapter, model = fresh(), made("sd15")[0]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=r"file is a file; a PEFT adapter is a folder"):
        write_peft(adapter, tmp_path / "file", model)
    with pytest.raises(
        ValueError, match=r"is not empty, and nothing in it is overwritten: .* it has no adapter_config"
    ):
        write_peft(adapter, tmp_path, model)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(ValueError, match=r"is not empty, and nothing in it is overwritten: .* says peft_type 'LORA'"):
        write_peft(adapter, tmp_path, model)
    assert sorted(os.listdir(tmp_path)) == ["adapter_config.json", "file"]
    (tmp_path / "out").mkdir()
    for again in (adapter, fresh(r=8)):
        assert write_peft(again, tmp_path / "out", model) == tmp_path / "out"
        assert read_peft(tmp_path / "out", model).config.r == again.config.r


@pytest.mark.parametrize("when", ["the tensors are written", "the configuration is written"])
def test_a_full_disk_leaves_what_was_there(when, tmp_path, monkeypatch):
    model = made("sd15")[0]
    write_peft(fresh(), tmp_path, model)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(*args, **kwargs):
        raise OSError("No space left on device")

    owner, name = (save_and_load, "save_file") if "tensors" in when else (peft.json, "dumps")
    monkeypatch.setattr(owner, name, full)
    with pytest.raises(OSError, match=r"No space left"):
        write_peft(fresh(r=8), tmp_path, model)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


class Nested(nn.Module):
    """A model in which the full name of one layer is the end of another's."""

    def __init__(self):
        super().__init__()
        self.attn = Attention(8, heads=1, dim_head=8)
        self.block = nn.ModuleDict({"attn": Attention(8, heads=1, dim_head=8)})

    def forward(self, x):
        return self.block.attn(self.attn(x))


def test_a_layer_that_peft_would_adapt_as_well(tmp_path):
    adapter = LilyAdapter(LilyConfig(r=4, num_B=2), (Group("to_q", 8, 8, ("attn.to_q",), (0,)),))
    with pytest.raises(ValueError, match=r"by the ends of their names: it would adapt block.attn.to_q with the others"):
        write_peft(adapter, tmp_path / "out", Nested())
    assert not (tmp_path / "out").exists()
