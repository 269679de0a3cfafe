"""lily-diffusion merge: what it writes, what it says, and what it refuses."""

import argparse
import json
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from lily_diffusion import LilyConfig, attach, detach, load_lily_weights, save_lily_weights, set_adapters
from lily_diffusion.base_model import load_pipeline
from lily_diffusion.commands import merge
from lily_diffusion.interchange.lora import read_metadata, write_lora
from lily_diffusion.save_and_load import read_lily_header

from .conftest import awaken, run, tiny_sd15, tiny_sdxl
from .test_bake_command import shapes_of
from .zoo import build


def merged(*words):
    parser = argparse.ArgumentParser()
    merge.add_arguments(parser)
    return merge.run(parser.parse_args([str(word) for word in words]))


def saved(folder, name, seed, model=None, words=(), base="owner/base", **more):
    """A frozen Lily file of a tiny UNet."""
    model = model or tiny_sd15()
    torch.manual_seed(seed)
    awaken(attach(model, LilyConfig(**{"r": 4, "num_B": 2, "routing": "static", **more})), seed)
    path = save_lily_weights(model, folder, weight_name=f"{name}.safetensors", trigger_words=words, base_model=base)
    detach(model)
    return path


@pytest.fixture
def files(tmp_path):
    cat = saved(tmp_path, "cat", 1, words=("sks cat", "toy"))
    return cat, saved(tmp_path, "dog", 2, words=("toy", "dog"), r=3, target_modules=("to_q", "to_v"))


def test_the_sum_of_two_files(sd15, files, tmp_path, capsys):
    cat, dog = files
    both = tmp_path / "new" / "both.safetensors"
    assert merged(f"{cat}:0.8", f"{dog}:-0.5", "--output", both) == 0
    for file, name in ((cat, "cat"), (dog, "dog")):
        load_lily_weights(sd15, file, name)
    base = run(tiny_sd15())
    set_adapters(sd15, ["cat", "dog"], [0.8, -0.5])
    want = run(sd15)
    detach(sd15)
    load_lily_weights(sd15, both)
    assert (want - base).norm() > 0.01 * base.norm()
    assert (run(sd15) - want).norm() <= 1e-5 * want.norm()
    header = read_lily_header(both)
    assert header.component == "unet" and header.model_class == "UNet2DConditionModel"
    assert header.base_model == "owner/base" and header.trigger_words == ("sks cat", "toy", "dog")
    assert json.loads(header.metadata["merged_from"]) == {
        "method": "cat",
        "files": [
            {"name": "cat.safetensors", "content_hash": read_lily_header(cat).content_hash, "weight": 0.8},
            {"name": "dog.safetensors", "content_hash": read_lily_header(dog).content_hash, "weight": -0.5},
        ],
    }
    assert header.metadata["modelspec.merged_from"] == "cat, dog"
    said = capsys.readouterr().out
    assert said.splitlines()[0] == str(both) and "rank        7 (cat.safetensors 4, dog.safetensors 3)" in said
    assert f"parameters  {header.num_parameters:,}" in said and f"bytes       {both.stat().st_size:,}" in said
    assert "truncation  none" in said


def test_ties_says_how_far_it_is_off(files, tmp_path, capsys):
    options = ["--method", "dare_ties", "--density", 0.5, "--rank", 2, "--seed", 3, "--output"]
    merged(*files, *options, tmp_path / "a.safetensors")
    header = read_lily_header(tmp_path / "a.safetensors")
    recipe = json.loads(header.metadata["merged_from"])
    assert {key: recipe[key] for key in recipe if key != "files"} == {
        "method": "dare_ties",
        "density": 0.5,
        "rank": 2,
        "seed": 3,
        "majority_sign_method": "total",
    }
    assert [file["weight"] for file in recipe["files"]] == [1.0, 1.0] and header.config.r == 2
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("truncation"))
    assert 0.05 < float(line.split("of a layer ")[1].split()[0]) < 1 and "attn" in line
    merged(*files, *options, tmp_path / "b.safetensors")
    assert read_lily_header(tmp_path / "b.safetensors").content_hash == header.content_hash


def test_bases_of_other_names_leave_none(files, tmp_path):
    other = saved(tmp_path, "bird", 3, base="owner/other")
    merged(files[0], other, "--output", tmp_path / "a.safetensors")
    assert read_lily_header(tmp_path / "a.safetensors").base_model is None


def test_a_lora_file_for_other_programs(tmp_path):
    """Lily and LoRA files in, kohya's format out, loaded by diffusers; the UNet's config is that of --model."""
    pipe = load_pipeline("embedded")
    facts = {"model": pipe.unet, "base": "embedded", "target_modules": ("to_q", "to_v"), "num_B": 1}
    lily = saved(tmp_path, "lily", 1, words=("sks",), **facts)
    torch.manual_seed(5)
    adapter = awaken(attach(pipe.unet, LilyConfig(r=4, num_B=2, routing="static", target_modules=("to_k",))))
    lora = write_lora(detached(pipe.unet, adapter), tmp_path / "l.safetensors", component="unet", trigger_words=["zwx"])
    given = {
        "sample": torch.randn(1, 8, 16, 16),
        "timestep": 500,
        "encoder_hidden_states": torch.randn(1, 7, pipe.unet.config.cross_attention_dim),
    }
    base = draw(pipe.unet, given)
    load_lily_weights(pipe.unet, lily, "lily")
    attach(pipe.unet, adapter, "lora")
    set_adapters(pipe.unet, ["lily", "lora"], [0.5, 2.0])
    want = draw(pipe.unet, given)
    detach(pipe.unet)
    out = ["--output", tmp_path / "both.safetensors", "--format", "kohya", "--model", "embedded"]
    merged(f"{lily}:0.5", f"{lora}:2", *out)
    pipe.load_lora_weights(tmp_path, weight_name="both.safetensors")
    got = draw(pipe.unet, given)
    assert (want - base).norm() > 0.01 * base.norm() and (got - want).norm() <= 1e-5 * want.norm()
    header = read_metadata(tmp_path / "both.safetensors")
    assert header["modelspec.trigger_phrase"] == "sks, zwx" and header["modelspec.merged_from"] == "lily, l"
    assert header["ss_sd_model_name"] == "embedded"
    assert [f["weight"] for f in json.loads(header["merged_from"])["files"]] == [0.5, 2.0]


def test_kohyas_names_come_from_the_base_that_the_files_name(tmp_path, monkeypatch):
    unet, out = tiny_sdxl(), tmp_path / "out.safetensors"
    files = [saved(tmp_path, name, seed, model=unet, base="sdxl") for seed, name in enumerate(("a", "b"))]
    other = saved(tmp_path, "c", 3, model=unet, base="another")
    shapes_of(unet, tmp_path / "sdxl")
    refused("name it with --model", *files, "--output", out, "--format", "kohya")
    monkeypatch.chdir(tmp_path)
    refused("name it with --model", files[0], other, "--output", out, "--format", "kohya")
    merged(*files, "--output", out, "--format", "kohya")
    assert "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_up.weight" in load_file(out)
    liar = saved(tmp_path, "liar", 3, model=unet, base="embedded")
    refused("The adapter is for another base", liar, "--output", out, "--format", "kohya")


def detached(unet, adapter):
    detach(unet)
    return adapter


def draw(unet, given):
    with torch.no_grad():
        return unet(**given, return_dict=False)[0]


def refused(sentence, *words, error=ValueError):
    with pytest.raises(error, match=sentence):
        merged(*words)


def test_bad_files(files, tmp_path):
    cat, dog = files
    out = ["--output", tmp_path / "out.safetensors"]
    refused("there is no adapter file nowhere.safetensors", cat, "nowhere.safetensors", *out)
    refused("the weight of .*cat.safetensors:much must be a number, not 'much'", f"{cat}:much", *out)
    refused("A weight must be a finite number, not nan", f"{cat}:nan", *out)
    refused(r"cat.safetensors is given twice; add up its weights", cat, f"{cat}:0.5", *out)
    refused("--output .*dog.safetensors is one of the files to merge", cat, dog, "--output", dog)
    routed = saved(tmp_path, "routed", 3, routing="sample")
    refused(
        r"routed.safetensors chooses its experts by the input \(routing='sample'\).*lily-diffusion bake", routed, *out
    )
    flux = build("FluxTransformer2DModel")[0]
    refused(
        "bases: cat.safetensors is for a UNet2DConditionModel and flux.safetensors for a FluxTransformer2DModel",
        cat,
        saved(tmp_path, "flux", 3, model=flux),
        *out,
    )
    narrow = UNet2DConditionModel.from_config({**tiny_sd15().config, "block_out_channels": (16, 64)})
    refused(
        "for different bases: .* is 16->16 in '.*narrow.safetensors' and 32->32 in '.*cat.safetensors'",
        cat,
        saved(tmp_path, "narrow", 3, model=narrow),
        *out,
    )
    (tmp_path / "text.safetensors").write_text("no tensors at all")
    refused("text.safetensors cannot be read as safetensors", tmp_path / "text.safetensors", *out)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(cat.read_bytes()[:-8])
    refused("cut.safetensors cannot be read as safetensors", cut, *out)
    assert not (tmp_path / "out.safetensors").exists()


def test_lora_files_need_their_base(files, tmp_path):
    cat, out = files[0], ["--output", tmp_path / "out.safetensors"]
    adapter = detached(unet := tiny_sd15(), attach(unet, LilyConfig(r=2, num_B=1, routing="static")))
    lora = write_lora(adapter, tmp_path / "lora.safetensors", component="unet")
    refused(r"lora.safetensors is no Lily file; if it is a LoRA file, name its base with --model", cat, lora, *out)
    refused(r"lora.safetensors: \d+ of its \d+ layers are no linear layers", lora, *out, "--model", "embedded")
    refused("The adapter is for another base", cat, *out, "--model", "embedded")
    refused("there is no pipeline folder nowhere", cat, *out, "--model", "nowhere")
    refused("does not tell enough of it: name it with --model, a pipeline's folder", cat, *out, "--format", "kohya")
    flux = saved(tmp_path, "flux", 3, model=build("FluxTransformer2DModel")[0])
    refused("no common names for a transformer's layers: take the format", flux, *out, "--format", "kohya")
    assert not (tmp_path / "out.safetensors").exists()


def test_bad_options(files, tmp_path):
    out = ["--output", tmp_path / "out.safetensors"]
    refused("--format must be one of lily, diffusers, kohya, not 'comfy'", *files, *out, "--format", "comfy")
    refused("--output must end in .safetensors, not 'out.pt'", *files, "--output", tmp_path / "out.pt")
    refused("method must be one of cat, svd", *files, *out, "--method", "linear")
    refused("'ties' needs density", *files, *out, "--method", "ties")
    refused("'cat' keeps every rank", *files, *out, "--rank", 2)
    refused("density must be above 0", *files, *out, "--method", "ties", "--density", 2)
    with pytest.raises(SystemExit):
        merged(*files)
    assert not (tmp_path / "out.safetensors").exists()


def test_a_colon_in_a_name(tmp_path):
    path = saved(tmp_path, "dog:2", 1)
    short = path.rename(tmp_path / "dog.safetensors:2")
    assert merge.parse_files([str(short)]) == [(Path(short), 1.0)]
    assert merge.parse_files([f"{short}:3"]) == [(Path(short), 3.0)]


def test_every_example_is_understood():
    lines = merge.EXAMPLES.replace("\\\n", " ").splitlines()
    examples = [line.split()[2:] for line in lines if line.strip().startswith("lily-diffusion merge")]
    parser = argparse.ArgumentParser()
    merge.add_arguments(parser)
    assert [parser.parse_args(words).method for words in examples] == ["cat", "ties", "cat"]
