"""lily-diffusion convert, called as a person does, with PEFT and the embedded model."""

import copy
import functools
import json

import pytest
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from peft import LilyConfig as PeftLilyConfig
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from lily_diffusion import (
    LilyConfig,
    attach,
    base_model,
    cli,
    load_lily_weights,
    read_lily_header,
    save_lily_weights,
    unload_lily_weights,
)
from lily_diffusion.interchange.lora import read_lora, write_lora
from lily_diffusion.interchange.peft import read_peft, write_peft
from lily_diffusion.state import get_adapters

from .conftest import awaken, run
from .test_interchange_authors import save, theirs

TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


@functools.cache
def loaded():
    return base_model.load_pipeline().unet.eval()


def embedded():
    return copy.deepcopy(loaded())


def call(capsys, *argv):
    """(exit code, stdout, stderr) of one call."""
    code = cli.main(["convert", *(str(arg) for arg in argv)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def same(got, expected):
    return (got - expected).norm() <= 1e-5 * expected.norm()


def draw(unet, batch=2):
    generator, config = torch.Generator().manual_seed(1), loaded().config
    sample = torch.randn(batch, config.in_channels, 16, 16, generator=generator)
    text = torch.randn(batch, 7, config.cross_attention_dim, generator=generator)
    with torch.no_grad():
        return unet(sample, torch.arange(batch) * 100, text).sample


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The same base with a folder of PEFT, a file of the authors and one of ours, and what they draw."""
    folder = tmp_path_factory.mktemp("sources")
    torch.manual_seed(0)
    config = PeftLilyConfig(r=4, stride_A=2, num_B=2, target_modules=TARGETS, init_weights=False)
    peft = get_peft_model(embedded(), config).eval()
    peft.save_pretrained(folder / "peft")
    authors = theirs(embedded(), 2, 3)
    save(authors, folder / "authors.pt")
    ours = embedded()
    awaken(attach(ours, LilyConfig(r=4, stride_A=2, num_B=2)))
    save_lily_weights(ours, folder, weight_name="ours.safetensors", base_model="owner/base", trigger_words=["sks dog"])
    plain = awaken(attach(copied := embedded(), LilyConfig(r=3, num_B=2, routing="static", target_modules=("to_q",))))
    for format in ("diffusers", "kohya"):
        facts = {"component": "unet", "format": format, "unet_config": copied.config, "trigger_words": ["zwx", "a toy"]}
        write_lora(plain, folder / f"{format}.safetensors", **facts)
    more = {"text_encoder.fc1.lora_A.weight": torch.ones(1, 4), "text_encoder.fc1.lora_B.weight": torch.ones(4, 1)}
    save_file({**load_file(folder / "diffusers.safetensors"), **more}, folder / "more.safetensors")
    return folder, {
        "lora": draw(copied),
        "peft": draw(peft),
        "authors.pt": draw(authors),
        "ours.safetensors": draw(ours, 1),
    }


@pytest.mark.parametrize("source", ["peft", "authors.pt"])
def test_into_our_file(source, sources, tmp_path, capsys):
    folder, drawn = sources
    target = tmp_path / "new" / "dog.safetensors"
    options = ["--model", "embedded", "--trigger_words", "sks dog", "sks"]
    code, out, err = call(capsys, folder / source, target, *options)
    assert code == 0, err
    header = read_lily_header(target)
    assert (header.base_model, header.trigger_words) == ("embedded", ("sks dog", "sks"))
    assert header.config.routing == "batch" and header.metadata["converted_from"] == source.removesuffix(".pt")
    before = (folder / source / "adapter_model.safetensors" if source == "peft" else folder / source).stat().st_size
    assert f"({before:,} bytes) -> {target} ({target.stat().st_size:,} bytes)" in out
    assert f"{len(header.groups)} groups, {header.num_parameters:,} parameters" in out
    unet = embedded()
    assert not same(draw(unet), drawn[source])
    load_lily_weights(unet, target)
    assert same(draw(unet), drawn[source])


def test_into_pefts_folder(sources, tmp_path, capsys):
    folder, drawn = sources
    target = tmp_path / "peft"
    code, out, err = call(capsys, folder / "ours.safetensors", target, "--model", "embedded")
    assert code == 0, err
    assert f"({(target / 'adapter_model.safetensors').stat().st_size:,} bytes)" in out
    assert json.loads((target / "adapter_config.json").read_text())["base_model_name_or_path"] == "owner/base"
    assert same(draw(PeftModel.from_pretrained(embedded(), target), 1), drawn["ours.safetensors"])


@pytest.mark.parametrize("format", ["diffusers", "kohya", "more"])
def test_a_lora_file_into_ours(format, sources, tmp_path, capsys):
    folder, drawn = sources
    target, options = tmp_path / "a.safetensors", ["--model", "embedded"]
    if format == "more":
        options.append("--skip_others")
    code, out, err = call(capsys, folder / f"{format}.safetensors", target, *options)
    assert code == 0, err
    header = read_lily_header(target)
    assert (header.base_model, header.component, header.config.routing) == ("embedded", "unet", "static")
    assert header.trigger_words == (() if format == "more" else ("zwx", "a toy"))
    assert header.config.r == 3 and header.metadata["converted_from"] == "lora"
    count = len(read_lora(folder / "kohya.safetensors", loaded()).layers)
    assert out.startswith(f"{count} layers in {count} groups, {header.num_parameters:,} parameters\n")
    unet = embedded()
    assert not same(draw(unet), drawn["lora"])
    load_lily_weights(unet, target)
    assert same(draw(unet), drawn["lora"])
    call(capsys, folder / f"{format}.safetensors", target, *options, "--trigger_words", "sks", "--base_model", "o/b")
    assert (read_lily_header(target).trigger_words, read_lily_header(target).base_model) == (("sks",), "o/b")


def test_routing_scaling_and_base_model(sources, tmp_path, capsys):
    folder, _ = sources
    target, options = tmp_path / "a.safetensors", ["--model", "embedded", "--base_model", "owner/other"]
    assert call(capsys, folder / "authors.pt", target, *options, "--routing", "sample", "--scaling", 0.25)[0] == 0
    header = read_lily_header(target)
    assert (header.config.routing, header.config.scaling, header.base_model) == ("sample", 0.25, "owner/other")
    assert call(capsys, folder / "authors.pt", tmp_path / "p", *options, "--to", "peft", "--scaling", 0.25)[0] == 0
    config = json.loads((tmp_path / "p" / "adapter_config.json").read_text())
    assert (config["scaling"], config["base_model_name_or_path"]) == (0.25, "owner/other")
    assert read_peft(tmp_path / "p", embedded()).groups == header.groups


def test_no_weights_of_the_model_are_read(sources, tmp_path, monkeypatch, capsys):
    for kind in (UNet2DConditionModel, DiffusionPipeline):
        monkeypatch.setattr(kind, "from_pretrained", None)
    code, _, err = call(capsys, sources[0] / "peft", tmp_path / "a.safetensors", "--model", "embedded")
    assert code == 0, err


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["nowhere", "a.safetensors"], "there is no file or folder"),
        (
            [".", "a.safetensors"],
            "is no folder of PEFT: it has no adapter_config.json; for other files, name the file.",
        ),
        (["peft", "dog"], "the file to write must end in .safetensors, not 'dog'."),
        (["peft", "dog", "--to", "peft"], "is in the form that --to peft asks for already."),
        (["ours.safetensors", "a.safetensors", "--to", "lily"], "is in the form that --to lily asks for already."),
        (["ours.safetensors", "a.safetensors"], "PEFT's form is a folder; 'a.safetensors' is the name of a file."),
        (["ours.safetensors", "p", "--trigger_words", "x"], "PEFT's form has no place for --trigger_words."),
        (["ours.safetensors", "p", "--routing", "batch"], "--routing is for the files of other programs"),
        (["peft", "a.safetensors", "--scaling", "2"], "--scaling is for the authors' files; others say theirs."),
        (["kohya.safetensors", "a.safetensors", "--scaling", "2"], "--scaling is for the authors' files"),
        (["kohya.safetensors", "a.safetensors", "--routing", "sample"], "by the input, which a LoRA does not."),
        (["kohya.safetensors", "p", "--to", "peft"], "a LoRA chooses no experts, so PEFT's Lily cannot hold it"),
        (["kohya.safetensors", "p"], "the file to write must end in .safetensors, not 'p'."),
        (["kohya.safetensors", "./kohya.safetensors"], "the file to write is the one to read; choose another name."),
        (
            ["more.safetensors", "a.safetensors"],
            "are no linear layers of this UNet2DConditionModel, first text",
        ),
        (["peft", "a.safetensors", "--skip_others"], "--skip_others is for LoRA files."),
        (["peft", "peft/adapter_config.json/a.safetensors"], "adapter_config.json is a file, not a folder."),
        (["authors.pt", "a.safetensors", "--scaling", "nan"], "scaling must be a finite number, not nan."),
        (["ours.safetensors", "."], "is not empty, and nothing in it is overwritten"),
        (["peft/adapter_model.safetensors", "p"], "is a Lily file of another program"),
        (["peft", "a.safetensors", "--model", "no/such/folder"], "there is no pipeline folder no/such/folder;"),
    ],
)
def test_bad_arguments_are_one_sentence(argv, sentence, sources, tmp_path, monkeypatch, capsys):
    folder, _ = sources
    monkeypatch.chdir(folder)
    before = sorted(path.name for path in folder.rglob("*"))
    code, out, err = call(capsys, *argv, *([] if "--model" in argv else ["--model", "embedded"]))
    assert (code, out) == (2, "")
    assert err.startswith("lily-diffusion: ") and sentence in err and err.count("\n") == 1
    assert sorted(path.name for path in folder.rglob("*")) == before


def test_pipelines_that_cannot_serve(sources, tmp_path, capsys):
    folder, _ = sources
    for index, sentence in (
        ({"_class_name": "X", "vae": ["diffusers", "AutoencoderKL"]}, "it has neither a unet nor a transformer"),
        ({"_class_name": "X", "unet": ["diffusers", "Nothing"]}, "Nothing"),
        ({"_class_name": "X", "unet": ["diffusers", "UNet2DConditionModel"]}, "config.json"),
    ):
        (tmp_path / "model_index.json").write_text(json.dumps(index))
        code, _, err = call(capsys, folder / "peft", tmp_path / "a.safetensors", "--model", tmp_path)
        assert code == 2 and f"the configuration of {tmp_path} cannot be loaded: " in err and sentence in err
    assert [path.name for path in tmp_path.iterdir()] == ["model_index.json"]


def test_load_lily_weights_takes_the_folder(sd15, tmp_path):
    awaken(attach(sd15, LilyConfig(r=4, stride_A=2, num_B=2, routing="batch"), "ours"))
    expected = run(sd15)
    write_peft(get_adapters(sd15)["ours"], tmp_path / "peft", sd15)
    unload_lily_weights(sd15)
    assert load_lily_weights(sd15, tmp_path / "peft", "theirs") == "theirs"
    torch.testing.assert_close(run(sd15), expected, rtol=1e-5, atol=1e-6)
    assert not any(p.requires_grad for p in get_adapters(sd15)["theirs"].parameters())
    with pytest.raises(ValueError, match="load its folder, or convert it"):
        load_lily_weights(sd15, tmp_path / "peft" / "adapter_model.safetensors")
