"""lily-diffusion bake: the file, the report and the picture; and one sentence for every mistake."""

import json

import pytest
import torch
from PIL import Image

from lily_diffusion import (
    LilyConfig,
    attach,
    base_model,
    detach,
    load_lily_weights,
    read_lily_header,
    save_lily_weights,
    unload_lily_weights,
)
from lily_diffusion.cli import main
from lily_diffusion.interchange.lora import read_lora

from .conftest import awaken

QUICK = ("--steps", "2", "--prompt", "a sks cat on a red background", "--prompt", "two dogs")


@pytest.fixture(scope="module")
def pipe():
    pipe = base_model.load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def files(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    for routing in ("sample", "static"):
        torch.manual_seed(0)
        config = LilyConfig(r=4, num_B=2, routing=routing, target_modules=("to_q", "to_v"))
        awaken(attach(pipe.unet, config, "x"), std=0.2)
        save_lily_weights(pipe, folder, weight_name=f"{routing}.safetensors", trigger_words=("sks cat",))
        detach(pipe.unet)
    return folder


def latents(pipe):
    generator = torch.Generator().manual_seed(0)
    return pipe("a cat", num_inference_steps=2, generator=generator, output_type="latent").images


def test_a_routed_adapter(files, tmp_path, capsys):
    out = tmp_path / "baked.safetensors"
    assert main(["bake", str(files / "sample.safetensors"), "--output", str(out), *QUICK]) == 0
    said = capsys.readouterr().out
    report = json.loads((tmp_path / "baked.json").read_text())
    assert report["method"] == "fit" and len(report["prompts"]) == 2
    assert 0 < report["distance"]["frozen"] < report["distance"]["base"]
    assert f"{report['error']:.3f}" in said and f"{report['distance']['frozen']:.3f}" in said
    with Image.open(tmp_path / "baked.png") as sheet:
        assert sheet.width > 4 * 192 and sheet.height > 2 * 192


def test_a_static_adapter_in_every_format(files, tmp_path, pipe):
    load_lily_weights(pipe, files / "static.safetensors", "x")
    expected = latents(pipe)
    unload_lily_weights(pipe)
    bare = latents(pipe)
    for format in ("lily", "diffusers", "kohya"):
        out = tmp_path / f"{format}.safetensors"
        assert main(["bake", str(files / "static.safetensors"), "--output", str(out), "--format", format]) == 0
        if format == "lily":
            load_lily_weights(pipe, out, "x")
            assert read_lily_header(out).trigger_words == ("sks cat",)
        else:
            attach(pipe.unet, read_lora(out, pipe.unet), "x")
        assert (latents(pipe) - expected).norm() / (expected - bare).norm() < 1e-4
        unload_lily_weights(pipe)
    pipe.load_lora_weights(tmp_path / "diffusers.safetensors")
    theirs = latents(pipe)
    pipe.unload_lora_weights()
    assert (theirs - expected).norm() / (expected - bare).norm() < 1e-4


def test_a_smaller_rank(files, tmp_path, capsys):
    out = tmp_path / "small.safetensors"
    run = ["bake", str(files / "static.safetensors"), "--output", str(out), "--format", "lily"]
    assert main([*run, "--rank", "2"]) == 0
    assert read_lily_header(out).config.r == 2
    error = json.loads(out.with_suffix(".json").read_text())["rank_reduction"]["largest_error"]
    assert 0 < error < 1 and f"{error:.3f}" in capsys.readouterr().out
    assert main([*run, "--max_error", "0.99"]) == 0
    assert read_lily_header(out).config.r == 1


@pytest.mark.parametrize(
    ("name", "more", "sentence"),
    [
        ("sample", (), "at least one --prompt"),
        ("nothing", QUICK, "there is no file"),
        ("sample", (*QUICK, "--format", "webui"), "--format must be one of lily, diffusers, kohya"),
        ("sample", (*QUICK, "--output", "x.pt"), "must end in .safetensors"),
        ("sample", (*QUICK, "--model", "nowhere"), "there is no pipeline folder nowhere"),
        ("sample", (*QUICK, "--steps", "0"), "--steps must be 1 or more"),
        ("static", ("--rank", "2", "--max_error", "0.1"), "not both"),
        ("static", ("--rank", "0"), "rank must be a whole number"),
    ],
)
def test_mistakes(files, tmp_path, capsys, name, more, sentence):
    out = tmp_path / "out.safetensors"
    assert main(["bake", str(files / f"{name}.safetensors"), "--output", str(out), *more]) == 2
    said = capsys.readouterr().err
    assert sentence in said and len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_file_itself_is_not_overwritten(files, capsys):
    file = files / "static.safetensors"
    before = file.read_bytes()
    assert main(["bake", str(file), "--output", str(file)]) == 2
    assert "choose another name" in capsys.readouterr().err and file.read_bytes() == before
