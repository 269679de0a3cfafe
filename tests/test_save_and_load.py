"""The file: small, exact, strict. Every kind of bad input gives one sentence and leaves the model as it was."""

import json
import os
import struct
import subprocess
import sys

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from lily_diffusion import (
    LilyConfig,
    attach,
    detach,
    get_list_adapters,
    lily_state_dict,
    load_lily_weights,
    read_lily_header,
    save_and_load,
    save_lily_weights,
)

from .conftest import awaken, run, tiny_sd15, tiny_sdxl

KEY = "lily_adapter_metadata"


@pytest.fixture
def saved(sd15, tmp_path):
    """A file made on the tiny SD 1.5, and the model without the adapter again."""
    awaken(attach(sd15, LilyConfig(r=4, stride_A=2, num_B=2), "cat"))
    path = save_lily_weights(sd15, tmp_path / "made", trigger_words=["sks cat"], metadata={"modelspec.title": "Cat"})
    detach(sd15)
    return path


def rewrite(path, tmp_path, tensors=None, header=None, drop=()):
    """The same file with some tensors and header strings replaced."""
    with safe_open(path, "pt") as file:
        metadata = {**file.metadata(), **(header or {})}
    content = {k: v for k, v in {**load_file(path), **(tensors or {})}.items() if k not in drop}
    save_file(content, tmp_path / "bad.safetensors", {k: v for k, v in metadata.items() if v is not None})
    return tmp_path / "bad.safetensors"


def edit(path, **changes):
    """Our part of the header with some values replaced."""
    with safe_open(path, "pt") as file:
        ours = json.loads(file.metadata()[KEY])
    return {KEY: json.dumps({**ours, **changes})}


@pytest.mark.parametrize("routing", ["sample", "static"])
def test_size_is_that_of_the_unique_parameters(unet, tmp_path, routing):
    adapter = attach(unet, LilyConfig(r=8, stride_A=4, num_B=4, routing=routing))
    path = save_lily_weights(unet, tmp_path)
    assert os.path.getsize(path) <= 4 * adapter.num_parameters() + 64 * 1024
    half = save_lily_weights(unet, tmp_path, weight_name="half.safetensors", dtype=torch.float16)
    assert os.path.getsize(half) <= 2 * adapter.num_parameters() + 64 * 1024
    assert sum(t.numel() for t in load_file(path).values()) == adapter.num_parameters()


@pytest.mark.parametrize("routing", ["sample", "batch", "token", "static"])
def test_round_trip_is_exact(unet, tmp_path, routing):
    awaken(attach(unet, LilyConfig(r=4, num_A=2, num_B=3, scaling=0.7, routing=routing, dropout=0.1)))
    adapted = run(unet)
    path = save_lily_weights(unet, tmp_path)
    detach(unet)
    name = load_lily_weights(unet, path)
    torch.testing.assert_close(run(unet), adapted, rtol=1e-5, atol=1e-6)
    assert name == "default_0" and load_lily_weights(unet, tmp_path) == "default_1"


def test_header(saved):
    header = read_lily_header(saved)
    assert header.config == LilyConfig(r=4, stride_A=2, num_B=2)
    assert header.trigger_words == ("sks cat",) and header.dtype == "float32"
    assert header.metadata["modelspec.title"] == "Cat" and header.metadata["modelspec.trigger_phrase"] == "sks cat"
    assert header.num_parameters == sum(t.numel() for t in load_file(saved).values())


def test_state_dict_with_metadata_loads(sd15, saved):
    tensors, metadata = lily_state_dict(saved)
    load_lily_weights(sd15, saved, "file")
    from_file = run(sd15)
    detach(sd15)
    load_lily_weights(sd15, tensors, "dict", metadata=metadata)
    assert torch.equal(run(sd15), from_file)


def test_bit_identical_in_a_fresh_process(sd15, saved, tmp_path):
    load_lily_weights(sd15, saved)
    torch.save(run(sd15), tmp_path / "here.pt")
    code = (
        "import sys, torch; from tests.conftest import *; from lily_diffusion import load_lily_weights\n"
        "unet = tiny_sd15(); load_lily_weights(unet, sys.argv[1])\n"
        "assert torch.equal(run(unet), torch.load(sys.argv[2], weights_only=True))"
    )
    subprocess.run([sys.executable, "-c", code, str(saved), str(tmp_path / "here.pt")], check=True)


def test_nothing_is_half_written(sd15, tmp_path, monkeypatch):
    attach(sd15, LilyConfig(r=4))
    path = save_lily_weights(sd15, tmp_path)
    before = path.read_bytes()

    def fails(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr("lily_diffusion.save_and_load.save_file", fails)
    with pytest.raises(OSError, match="No space"):
        save_lily_weights(sd15, tmp_path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("mask", [0o022, 0o027])
def test_the_mode_is_that_of_any_file(sd15, tmp_path, mask):
    attach(sd15, LilyConfig(r=4))
    before = os.umask(mask)
    path = save_lily_weights(sd15, tmp_path)
    os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_half_precision_model_gets_the_adapter_in_its_type(saved):
    unet = tiny_sd15().to(torch.bfloat16)
    load_lily_weights(unet, saved, "cat")
    assert {p.dtype for p in unet.__dict__["_lily"].adapters["cat"].parameters()} == {torch.bfloat16}


def pickled(path, tmp_path, name="weights.safetensors"):
    torch.save({"a": torch.zeros(1)}, tmp_path / name)
    return tmp_path / name


def lora(path, tmp_path):
    save_file({"unet.down.attn1.to_q.lora_A.weight": torch.zeros(4, 4)}, tmp_path / "lora.safetensors")
    return tmp_path / "lora.safetensors"


def peft_lily(path, tmp_path):
    save_file({"base_model.model.attn1.to_q.lily_A.weight": torch.zeros(4, 4)}, tmp_path / "p.safetensors")
    return tmp_path / "p.safetensors"


def raw(content):
    def make(path, tmp_path):
        (tmp_path / "raw.safetensors").write_bytes(content)
        return tmp_path / "raw.safetensors"

    return make


def cut(keep):
    return lambda path, tmp_path: raw(path.read_bytes()[:keep])(path, tmp_path)


def other_base(path, tmp_path):
    unet = tiny_sdxl()
    attach(unet, LilyConfig(r=4))
    return save_lily_weights(unet, tmp_path, weight_name="other.safetensors")


def tensors_with(change):
    def make(path, tmp_path):
        key = "unet.lily_B.0"
        return rewrite(path, tmp_path, {key: change(load_file(path)[key]).contiguous()})

    return make


def group_change(**change):
    def make(path, tmp_path):
        with safe_open(path, "pt") as file:
            groups = json.loads(file.metadata()[KEY])["groups"]
        groups[0] = {**groups[0], **change}
        return rewrite(path, tmp_path, header=edit(path, groups=groups))

    return make


def config_change(**change):
    def make(path, tmp_path):
        config = {**read_lily_header(path).config.to_dict(), **change}
        return rewrite(path, tmp_path, header=edit(path, config=config))

    return make


def raw_header(**entries):
    text = json.dumps({"__metadata__": {}, "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}} | entries)
    return raw(struct.pack("<Q", len(text)) + text.encode() + bytes(4))


BAD = {
    "pickle": (pickled, "pickle or zip"),
    "old pickle": (raw(b"\x80\x02}q\x00."), "pickle or zip"),
    "LoRA": (lora, "is a LoRA file.*load_lora_weights.*lily-diffusion convert"),
    "PEFT Lily": (peft_lily, "of another program"),
    "something else": (raw(struct.pack("<Q", 2) + b"{}"), "is not a Lily adapter"),
    "empty": (raw(b""), "empty or cut off"),
    "text": (raw(b"hello, this is not a tensor file"), "not a safetensors file"),
    "header bomb": (raw(struct.pack("<Q", 2**40) + b"{}"), "not a safetensors file, or its header is larger"),
    "broken JSON": (raw(struct.pack("<Q", 3) + b"{]}"), "header cannot be read"),
    "metadata null": (raw_header(__metadata__=None), "header cannot be read"),
    "end a text": (raw_header(a={"dtype": "F32", "shape": [1], "data_offsets": [0, "4"]}), "header cannot be read"),
    "type a list": (raw_header(a={"dtype": [], "shape": [1], "data_offsets": [0, 4]}), "header cannot be read"),
    "no end": (raw_header(a={"dtype": "F32", "shape": [1], "data_offsets": [0]}), "header cannot be read"),
    "cut in the header": (cut(200), "is cut off"),
    "cut in the tensors": (cut(-100), "is cut off"),
    "other base": (other_base, "for another base.*layers"),
    "missing tensor": (lambda p, t: rewrite(p, t, drop=["unet.lily_B.0"]), "lacks tensors: 1 of .*unet.lily_B.0"),
    "extra tensor": (lambda p, t: rewrite(p, t, {"unet.more": torch.zeros(1)}), "unexpected tensors: 1 .*unet.more"),
    "misshapen tensor": (tensors_with(lambda B: B[:, :2]), "misshapen tensors.*unet.lily_B.0"),
    "NaN": (tensors_with(lambda B: B * float("nan")), "not finite tensors"),
    "infinite": (tensors_with(lambda B: B + float("inf")), "not finite tensors"),
    "integers": (tensors_with(lambda B: B.to(torch.int32)), "tensors of type I32"),
    "changed tensor": (tensors_with(lambda B: B + 1), "content hash differs"),
    "newer format": (lambda p, t: rewrite(p, t, header={"lily_format_version": "4"}), "format version '4'"),
    "no header": (lambda p, t: rewrite(p, t, header={KEY: None}), "another program|not a Lily adapter"),
    "header not JSON": (lambda p, t: rewrite(p, t, header={KEY: "{"}), "header of .* is damaged"),
    "header a list": (lambda p, t: rewrite(p, t, header={KEY: "[]"}), "header of .* is damaged"),
    "header of brackets": (lambda p, t: rewrite(p, t, header={KEY: "[" * 200_000}), "header of .* is damaged"),
    "huge scaling": (config_change(scaling=10**400), "damaged"),
    "projection a number": (group_change(projection=5), "damaged"),
    "unknown option": (config_change(colour="red"), "has no colour"),
    "huge r": (config_change(r=10**9), "damaged"),
    "bad routing": (config_change(routing="dice"), "routing must be one of"),
    "layer twice": (group_change(layers=["a", "a", "a"]), "damaged"),
    "A that is not there": (group_change(A_of_layer=[7, 7, 7]), "damaged"),
    "negative size": (group_change(in_features=-4), "damaged"),
    "wrong component": (lambda p, t: rewrite(p, t, header=edit(p, component="transformer")), "made for a transformer"),
    "missing file": (lambda p, t: t / "none.safetensors", "no file or folder"),
    "empty folder": (lambda p, t: (t / "e").mkdir() or t / "e", "no .safetensors file"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files(sd15, saved, tmp_path, kind):
    make, message = BAD[kind]
    awaken(attach(sd15, LilyConfig(r=4), "first"), seed=3)
    output, modules = run(sd15), [sorted(m.__dict__) for m in sd15.modules()]
    path = make(saved, tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        load_lily_weights(sd15, path, "second")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
    assert get_list_adapters(sd15) == {"unet": ["first"]}
    assert [sorted(m.__dict__) for m in sd15.modules()] == modules
    assert torch.equal(run(sd15), output)


def test_a_full_disk_is_an_error_of_the_system(sd15, saved, monkeypatch):
    def full(*args, **kwargs):
        raise SafetensorError("I/O error: No space left on device")

    content = saved.read_bytes()
    attach(sd15, LilyConfig(r=4))
    monkeypatch.setattr(save_and_load, "save_file", full)
    with pytest.raises(OSError, match="cannot be written: I/O error: No space left"):
        save_lily_weights(sd15, saved.parent, weight_name=saved.name)
    assert saved.read_bytes() == content and len(list(saved.parent.iterdir())) == 1


def test_bad_arguments(sd15, saved, tmp_path):
    load_lily_weights(sd15, saved, "cat")
    output = run(sd15)
    cases = [
        (lambda: load_lily_weights(sd15, saved, "cat"), "'cat' is loaded already"),
        (lambda: load_lily_weights(sd15, saved.parent, weight_name="x.safetensors"), "no file x.safetensors"),
        (lambda: load_lily_weights(sd15, "some/repo", weight_name="x.bin"), "Only .safetensors"),
        (lambda: load_lily_weights(sd15, {}), "must map names to tensors"),
        (lambda: load_lily_weights(sd15, {"a": 1}), "must map names to tensors"),
        (lambda: load_lily_weights(sd15, load_file(saved)), "of another program"),
        (lambda: load_lily_weights("a string", saved), "Expected a diffusers pipeline"),
        (lambda: save_lily_weights(sd15, tmp_path, "dog"), "no adapter named 'dog'"),
        (lambda: save_lily_weights(sd15, tmp_path, weight_name="../x.safetensors"), "plain file name"),
        (lambda: save_lily_weights(sd15, tmp_path, weight_name="x.bin"), "plain file name"),
        (lambda: save_lily_weights(sd15, saved), "is a file"),
        (lambda: attach(sd15, LilyConfig(r=4), "cat"), "'cat' is attached already"),
        (lambda: attach(sd15, LilyConfig(r=4), ""), "must be a string that is not empty"),
        (lambda: detach(sd15, "dog"), "no adapter named 'dog'"),
        (lambda: attach(torch.nn.Linear(2, 2), LilyConfig(r=1)), "no attention processors"),
        (lambda: attach("unet", LilyConfig()), "takes a model"),
    ]
    for act, message in cases:
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            act()
    assert torch.equal(run(sd15), output) and get_list_adapters(sd15) == {"unet": ["cat"]}


def test_saving_bad_numbers_is_refused(sd15, tmp_path):
    adapter = attach(sd15, LilyConfig(r=4))
    with torch.no_grad():
        adapter.lily_B[0][0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite, first unet"):
        save_lily_weights(sd15, tmp_path)
    assert not list(tmp_path.iterdir())
