"""Parts for text encoders are frozen and written as LoRA with the denoiser's, or refused with a sentence."""

import json

import pytest
import torch
from safetensors.torch import load_file

from lily_diffusion import LilyConfig, attach, bake_lily, read_lily_header, save_lily_weights, unload_lily_weights
from lily_diffusion.baking import compare
from lily_diffusion.cli import main
from lily_diffusion.frozen import factors, is_frozen
from lily_diffusion.inspection import record_routing
from lily_diffusion.interchange.lora import read_lora, write_lora

from .conftest import awaken
from .encoded import CONFIG, FAMILIES, Encoded, case, pipelines, sd  # noqa: F401
from .tiny_pipelines.words import t5

STATIC = LilyConfig(r=4, stride_A=2, num_B=2, routing="static")
CALL = {"num_inference_steps": 2, "height": 16, "width": 16}


def static_file(case, folder):
    case.adapt("a", config=STATIC)
    path = save_lily_weights(case.pipe, folder, trigger_words=["sks"])
    unload_lily_weights(case.pipe)
    return path


def test_baking_freezes_every_part(case):
    adapted = case.adapt("a")
    baked = bake_lily(case.pipe, ["a sks robot"], "a", **CALL)
    assert list(baked.parts) == case.components and all(map(is_frozen, baked.parts.values()))
    assert len(baked.report["layers"]) == sum(len(adapter.layers) for adapter in baked.parts.values())
    assert any(layer.startswith("text_encoder.") for layer in baked.report["layers"])
    assert 0 < baked.report["error"] < 0.5
    with pytest.raises(ValueError, match=r"parts for .* and text_encoder.*: take each from `parts`"):
        assert baked.adapter
    distances, rows = compare(case.pipe, ["a sks robot"], baked.parts, "a", **CALL)
    assert distances["frozen"] < distances["base"] and len(rows[0]) == 3
    assert torch.equal(case.draw(), adapted)  # as it was before
    with pytest.raises(ValueError, match="and its stand-in for text_encoder"):
        compare(case.pipe, ["a"], {"text_encoder": baked.parts["text_encoder"]}, "a", **CALL)


def test_a_part_that_is_static_is_taken_over_exactly(sd):
    sd.adapt("a", components=["unet"])
    adapter = awaken(attach(sd.pipe.text_encoder, STATIC, "a"))
    baked = bake_lily(sd.pipe, ["a sks robot"], "a", **CALL)
    layer = adapter.layers[0]
    for mine, theirs in zip(factors(adapter, layer), factors(baked.parts["text_encoder"], layer), strict=True):
        torch.testing.assert_close(mine, theirs)
    assert not any(layer.startswith("text_encoder.") for layer in baked.report["layers"])


@pytest.mark.parametrize("format", ["diffusers", "kohya"])
def test_diffusers_draws_the_same_from_the_lora_file(case, tmp_path, format):
    if format == "kohya" and case.components[0] == "transformer":
        pytest.skip("kohya's format has no names for transformers")
    adapted = case.adapt("a", config=STATIC)
    adapters = {c: model.__dict__["_lily"].adapters["a"] for c, model in case.models.items()}
    denoiser, *encoders = case.components
    path = write_lora(
        adapters[denoiser],
        tmp_path / "lora.safetensors",
        component=denoiser,
        format=format,
        unet_config=case.models[denoiser].config,
        text_encoders={c: adapters[c] for c in encoders},
    )
    unload_lily_weights(case.pipe)
    keys = load_file(path)
    if format == "kohya":
        first = "lora_te1_" if len(encoders) > 1 else "lora_te_"
        assert f"{first}text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight" in keys
    else:
        assert "text_encoder.text_model.encoder.layers.0.self_attn.out_proj.lora_B.weight" in keys
    other = Encoded(case.family)
    other.pipe.load_lora_weights(path)
    drawn = other.draw()
    torch.testing.assert_close(drawn, adapted, rtol=1e-3, atol=1e-3)
    assert (drawn - adapted).norm() < 1e-2 * (adapted - case.base).norm()


def test_ranks_that_differ_are_read_by_diffusers(sd, tmp_path):
    sd.adapt("a", config=STATIC)
    adapted = sd.draw()
    adapters = {c: model.__dict__["_lily"].adapters["a"] for c, model in sd.models.items()}
    with torch.no_grad():  # these layers' rank becomes 3
        adapters["text_encoder"].lily_A[0][0][3] = 0
    changed = sd.draw()
    assert not torch.equal(changed, adapted)
    encoders = {"text_encoder": adapters["text_encoder"]}
    path = write_lora(adapters["unet"], tmp_path / "l.safetensors", component="unet", text_encoders=encoders)
    ranks = {t.shape[0] for k, t in load_file(path).items() if k.startswith("text_encoder") and "lora_A" in k}
    assert ranks == {3, 4}
    unload_lily_weights(sd.pipe)
    other = Encoded("stable_diffusion")
    other.pipe.load_lora_weights(path)
    torch.testing.assert_close(other.draw(), changed, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match=r"8 of its \d+ layers are no linear layers"):
        read_lora(path, sd.pipe)


def test_bake_command(sd, tmp_path, capsys):
    source = static_file(sd, tmp_path / "made")
    for format in ("diffusers", "lily"):
        out = tmp_path / f"{format}.safetensors"
        assert main(["bake", str(source), "--format", format, "--rank", "3", "--output", str(out)]) == 0
        assert "rank 3" in capsys.readouterr().out
    assert {key.partition(".")[0] for key in load_file(tmp_path / "diffusers.safetensors")} == {"unet", "text_encoder"}
    header = read_lily_header(tmp_path / "lily.safetensors")
    assert [part.component for part in header.parts] == ["unet", "text_encoder"]
    assert header.further[0].config.r == 3 and header.trigger_words == ("sks",)


def test_bake_command_on_a_routed_adapter(sd, tmp_path, capsys):
    folder = tmp_path / "base"
    sd.pipe.save_pretrained(folder)
    sd.adapt("a")
    source = save_lily_weights(sd.pipe, tmp_path / "made")
    out = tmp_path / "b.safetensors"
    command = ["bake", str(source), "--model", str(folder), "--prompt", "a sks robot", "--steps", "2"]
    assert main([*command, "--format", "lily", "--output", str(out), "--device", "cpu"]) == 0, capsys.readouterr().err
    further = read_lily_header(out).further
    assert [part.component for part in further] == ["text_encoder"] and further[0].config.routing == "static"
    assert all(layer.startswith("text_model.") for g in further[0].groups for layer in g.layers)
    assert json.loads(out.with_suffix(".json").read_text())["distance"]["base"] > 0


def test_what_lora_has_no_names_for_is_refused(sd, tmp_path):
    adapter = attach(sd.pipe.unet, STATIC)
    encoder = attach(t5()[0], STATIC)
    with pytest.raises(
        ValueError, match=r"name the layers of CLIP .*text_encoder\.encoder\.block\.0.*denoiser's part alone"
    ):
        write_lora(adapter, tmp_path / "a.safetensors", component="unet", text_encoders={"text_encoder": encoder})
    with pytest.raises(ValueError, match="no part for the denoiser; a LoRA of text encoders alone"):
        write_lora(encoder, tmp_path / "a.safetensors", component="text_encoder")
    assert not list(tmp_path.iterdir())


def test_merge_and_convert_refuse(sd, tmp_path, capsys):
    source = static_file(sd, tmp_path / "made")
    folder = tmp_path / "base"
    sd.pipe.save_pretrained(folder)
    commands = {
        "cannot be merged": ["merge", str(source), "--output", str(tmp_path / "m.safetensors")],
        "PEFT's form has no place for": ["convert", str(source), str(tmp_path / "peft"), "--model", str(folder)],
    }
    for reason, command in commands.items():
        assert main(command) == 2
        said = capsys.readouterr().err
        assert f"has a part for text_encoder, which {reason}" in said and "save_lily_weights(pipe.unet" in said
    assert not (tmp_path / "m.safetensors").exists() and not (tmp_path / "peft").exists()


def test_inspect_shows_all_parts(sd, tmp_path, capsys):
    sd.adapt("a")
    source = save_lily_weights(sd.pipe, tmp_path)
    assert main(["inspect", str(source), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    (part,) = facts["further_parts"]
    assert part["component"] == "text_encoder" and len(part["layers"]) == 8 and len(part["groups"]) == 4
    adapter = sd.pipe.text_encoder.__dict__["_lily"].adapters["a"]
    assert part["num_parameters"] == adapter.num_parameters() < facts["num_parameters"]
    assert facts["num_parameters"] == sum(t.numel() for t in load_file(source).values())
    assert main(["inspect", str(source), "--layers"]) == 0
    text = capsys.readouterr().out
    assert "The part for the text_encoder (CLIPTextModel): r=4" in text
    assert "text_model.encoder.layers.1.self_attn.out_proj" in text and "8 layers in 4 groups" in text
    assert main(["inspect", str(source), "--header_only"]) == 0
    assert "The part for the text_encoder" in capsys.readouterr().out


def test_inspect_listens_to_the_denoiser(sd, tmp_path, capsys):
    folder = tmp_path / "base"
    sd.pipe.save_pretrained(folder)
    sd.adapt("a")
    listen = ["--model", str(folder), "--prompt", "a sks robot", "--steps", "2", "--device", "cpu", "--json"]
    both = save_lily_weights(sd.pipe, tmp_path)
    assert main(["inspect", str(both), *listen]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["update_of"] == "prompts" and facts["further_parts"][0]["update_of"] == "equal"
    text = save_lily_weights(sd.pipe.text_encoder, tmp_path / "t")
    assert main(["inspect", str(text), *listen]) == 2
    assert "only the denoiser's routers are listened to" in capsys.readouterr().err


def test_routers_of_a_text_encoder_can_be_recorded(sd):
    sd.adapt("a")
    with record_routing(sd.pipe.text_encoder, "a") as recorder:
        sd.draw()
    adapter = sd.pipe.text_encoder.__dict__["_lily"].adapters["a"]
    assert set(recorder.layers) == set(adapter.layers)
    assert recorder.calls(recorder.layers[0]).shape == (2, 1, CONFIG.num_B)  # the prompt, and the empty one
