"""lily-diffusion bake: the file, the report and the picture; and one sentence for every mistake."""

import json
import os
from statistics import fmean

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

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
from lily_diffusion.baking import freeze
from lily_diffusion.cli import main
from lily_diffusion.commands import bake
from lily_diffusion.interchange.lora import read_lora
from lily_diffusion.interchange.rank import reduce_rank
from lily_diffusion.save_and_load import build_adapter, read_file

from .conftest import awaken, tiny_sd15, tiny_sdxl
from .zoo import build

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


def saved(model, folder, name, base=None, **more):
    """An adapter file for a model."""
    awaken(attach(model, LilyConfig(**{"r": 4, "num_B": 2, "routing": "static", **more})))
    path = save_lily_weights(model, folder, weight_name=f"{name}.safetensors", base_model=base)
    detach(model)
    return path


def shapes_of(unet, folder):
    """A pipeline's folder with the UNet's configuration, and no weights."""
    unet.save_config(folder / "unet")
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def refused(capsys, sentence, *words):
    assert main(["bake", *(str(word) for word in words)]) == 2
    said = capsys.readouterr().err
    assert sentence in said and len(said.splitlines()) == 1


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
    assert f"{report['error']:.3f} by freezing\n" in said and f"{report['distance']['frozen']:.3f}" in said
    with Image.open(tmp_path / "baked.png") as sheet:
        assert sheet.width > 4 * 192 and sheet.height > 2 * 192


def test_the_difference_is_magnified(files, tmp_path, monkeypatch):
    drawn = {}

    def watched(rows, prompts, labels):
        drawn.update(rows=rows, labels=labels)
        return rows[0][0]

    monkeypatch.setattr(bake, "labelled_grid", watched)
    out = tmp_path / "a.safetensors"
    assert main(["bake", str(files / "sample.safetensors"), "--output", str(out), "--method", "mean", *QUICK]) == 0
    assert drawn["labels"] == ["base", "adapter", "frozen", "difference x 4"]
    for row in drawn["rows"]:
        _, adapter, frozen, difference = (np.asarray(picture.convert("RGB")).astype(int) for picture in row)
        assert (difference == (4 * abs(adapter - frozen)).clip(max=255)).all() and difference.max() > 0


def test_the_base_of_a_routed_adapter_is_the_files_own(files, tmp_path, capsys, monkeypatch):
    def opened(name, device):
        raise ValueError(f"would open {name}.")

    monkeypatch.setattr(bake, "open_pipeline", opened)
    out = ("--output", tmp_path / "out.safetensors", "--prompt", "a cat")
    refused(capsys, "would open embedded.", files / "sample.safetensors", *out)
    unet = tiny_sd15()
    named = saved(unet, tmp_path, "named", "cats", routing="sample")
    refused(capsys, "the file says 'cats', which is no folder here: name it with --model", named, *out)
    unknown = saved(unet, tmp_path, "unknown", routing="sample")
    refused(capsys, "and the file does not say: name it with --model", unknown, *out)
    refused(capsys, "would open some/base.", unknown, *out, "--model", "some/base")
    shapes_of(unet, tmp_path / "cats")
    monkeypatch.chdir(tmp_path)
    refused(capsys, "would open cats.", named, *out)
    assert not (tmp_path / "out.safetensors").exists()


def test_kohyas_names_are_those_of_the_adapters_own_base(tmp_path, capsys, monkeypatch):
    unet, out = tiny_sdxl(), tmp_path / "out.safetensors"
    file = saved(unet, tmp_path, "xl", "sdxl")
    run = [file, "--format", "kohya", "--output", out]
    refused(capsys, "the adapter does not tell enough of it: name it with --model", *run)
    refused(capsys, "The adapter is for another base", *run, "--model", "embedded")
    refused(capsys, "The adapter is for another base", saved(unet, tmp_path, "liar", "embedded"), *run[1:])
    assert not out.exists()
    folder = shapes_of(unet, tmp_path / "sdxl")
    wanted = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_up.weight"
    for more in (["--model", folder], []):
        monkeypatch.chdir(tmp_path if not more else folder)
        assert main(["bake", *(str(word) for word in [*run, *more])]) == 0
        keys = load_file(out)
        assert wanted in keys and not any("down_blocks" in key for key in keys)
        out.unlink()


def test_the_width_of_the_text_tells_stable_diffusion(tmp_path):
    unet = type(tiny_sd15()).from_config({**tiny_sd15().config, "cross_attention_dim": 768})
    out = tmp_path / "out.safetensors"
    assert main(["bake", str(saved(unet, tmp_path, "a")), "--format", "kohya", "--output", str(out)]) == 0
    assert "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight" in load_file(out)


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
    static = build_adapter(*read_file(files / "static.safetensors"), "static")
    errors = reduce_rank(freeze(static, {}), 2).errors.values()
    report = json.loads(out.with_suffix(".json").read_text())
    own = {"rank": 2, "error": pytest.approx(fmean(errors), abs=1e-5), "largest_error": round(max(errors), 5)}
    assert report["rank_reduction"] == own and report["error"] == 0 < report["rank_reduction"]["error"] < 1
    words = f"0.000 by freezing, and {fmean(errors):.3f} by the smaller rank (at most {max(errors):.3f} in a layer)"
    assert f"relative error of the updates, mean over layers: {words}" in capsys.readouterr().out
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
    ],
)
def test_mistakes(files, tmp_path, capsys, name, more, sentence):
    refused(capsys, sentence, files / f"{name}.safetensors", "--output", tmp_path / "out.safetensors", *more)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def nothing_is_loaded(monkeypatch):
    for name in ("open_pipeline", "open_shapes", "read_file"):
        monkeypatch.setattr(bake, name, lambda *_: pytest.fail("something was loaded"))


@pytest.mark.parametrize("name", ["sample", "static"])
@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--rank", "0"), "--rank must be 1 or more, not 0."),
        (("--max_error", "1"), "--max_error must be at least 0 and below 1, not 1.0."),
        (("--max_error", "nan"), "--max_error must be at least 0 and below 1, not nan."),
        (("--guidance_scale", "nan"), "--guidance_scale must be a finite number, not nan."),
        (("--seed", "-1"), "--seed must be 0 or more, not -1."),
        (("--seed", "4294967295"), "--seed must be at most 4294967294, not 4294967295."),
    ],
)
@pytest.mark.usefixtures("nothing_is_loaded")
def test_bad_numbers_are_found_before_anything_is_loaded(files, tmp_path, capsys, name, more, sentence):
    file, out = files / f"{name}.safetensors", tmp_path / "out.safetensors"
    refused(capsys, sentence, file, "--output", out, *QUICK, *more)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("nothing_is_loaded")
def test_bad_outputs_are_found_before_anything_is_loaded(files, tmp_path, capsys, monkeypatch):
    run = [files / "sample.safetensors", *QUICK, "--output"]
    for folder in ("out.safetensors", "report.json", "sheet.png"):
        (tmp_path / folder).mkdir()
        out = (tmp_path / folder).with_suffix(".safetensors")
        refused(capsys, f"{folder} is a folder; choose another name for the file.", *run, out)
    (tmp_path / "text").write_text("mine")
    refused(capsys, "text is a file, not a folder.", *run, tmp_path / "text" / "new" / "out.safetensors")
    flux = saved(build("FluxTransformer2DModel")[0], tmp_path, "flux", routing="sample")
    kohya = [flux, *run[1:], tmp_path / "a.safetensors", "--format", "kohya"]
    refused(capsys, "no common names for a transformer's layers: take the format 'diffusers'", *kohya)
    monkeypatch.setattr(os, "access", lambda path, _: path != tmp_path)
    refused(capsys, f"nothing may be changed in the folder {tmp_path}.", *run, tmp_path / "new" / "a.safetensors")


def test_the_file_itself_is_not_overwritten(files, capsys):
    file = files / "static.safetensors"
    before = file.read_bytes()
    assert main(["bake", str(file), "--output", str(file)]) == 2
    assert "choose another name" in capsys.readouterr().err and file.read_bytes() == before
