"""lily-diffusion inspect: what it says of a file and of the routers on the embedded model, checked by direct means."""

import json

import pytest
import torch
from diffusers import PNDMScheduler
from PIL import Image
from safetensors.torch import load_file, save_file

from lily_diffusion import LilyConfig, attach, base_model, cli, detach, heat_map, lily_state_dict, save_lily_weights
from lily_diffusion.commands import routing
from lily_diffusion.frozen import from_factors
from lily_diffusion.sharing import find_projections

from .conftest import awaken, tiny_sd15

PROMPT = "a cat on a red background"
TEXT_KEY = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"  # reads the prompt, and nothing else
HEADER_KEYS = {
    *("file", "bytes", "base_model", "model_class", "trigger_words", "config", "dtype", "content_hash", "fingerprint"),
    *("num_parameters", "parameter_bytes", "lora_rank_of_same_size", "lora_parameters_at_same_r"),
    *("lora_at_same_r_is_larger", "groups", "training", "metadata"),
}


@pytest.fixture(scope="module")
def pipe():
    pipe = base_model.load_pipeline()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(autouse=True)
def loaded_once(pipe, monkeypatch):
    """The command gets the model of this module, without the adapter of the command before."""
    monkeypatch.setattr(base_model, "load_pipeline", lambda name, **_: detach(pipe.unet) or pipe)


@pytest.fixture(scope="module")
def files(pipe, tmp_path_factory):
    """A routed and a static adapter for the embedded model."""
    folder, files = tmp_path_factory.mktemp("files"), {}
    for routing_kind in ("sample", "static"):
        config = LilyConfig(r=8, stride_A=2, num_B=2, routing=routing_kind, scaling=2.0)
        adapter, generator = awaken(attach(pipe.unet, config)), torch.Generator().manual_seed(3)
        for router in adapter.lily_router.parameters():
            torch.nn.init.normal_(router, generator=generator)
        facts = {"trigger_words": ["sks robot"], "metadata": {"training.steps": "3", "note": "plain \x1b[31mred"}}
        files[routing_kind] = save_lily_weights(
            pipe.unet, folder, weight_name=f"{routing_kind}.safetensors", base_model="embedded", **facts
        )
        files[f"{routing_kind} adapter"] = adapter
        detach(pipe.unet)
    return files


def run(capsys, *argv):
    """(exit code, stdout, stderr) of one call."""
    code = cli.main(["inspect", *(str(arg) for arg in argv)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def facts_of(capsys, *argv):
    code, out, err = run(capsys, *argv, "--json")
    assert code == 0, err
    return json.loads(out)


def listen(capsys, file, *argv):
    return facts_of(capsys, file, "--model", "embedded", "--prompt", PROMPT, "--steps", 2, *argv)


def test_it_tells_what_a_file_is(capsys, files):
    code, out, _ = run(capsys, files["sample"])
    assert code == 0
    for fact in ("embedded", "sks robot", "r=8", "num_B=2", "UNet2DConditionModel", "to_out.0", "a LoRA of this rank"):
        assert fact in out
    assert "all experts counted equally" in out
    assert "training.steps: 3" in out
    assert "\x1b" not in out  # a file cannot steer the terminal


def test_json_compares_with_lora(capsys, files, pipe):
    facts = facts_of(capsys, files["sample"])
    assert facts["num_parameters"] == files["sample adapter"].num_parameters()
    layers = [pipe.unet.get_submodule(name) for group in facts["groups"] for name in group["layers"]]
    lora = sum(layer.in_features + layer.out_features for layer in layers)
    assert facts["lora_rank_of_same_size"] == pytest.approx(facts["num_parameters"] / lora, abs=0.01)
    assert facts["lora_parameters_at_same_r"] == 8 * lora
    assert facts["lora_at_same_r_is_larger"] == pytest.approx(8 * lora / facts["num_parameters"], abs=0.001)
    assert facts["parameter_bytes"] == sum(t.nbytes for t in load_file(files["sample"]).values()) < facts["bytes"]
    assert (facts["training"], facts["metadata"]["note"]) == ({"steps": "3"}, "plain \x1b[31mred")


def test_json_has_everything_under_these_names(capsys, files):
    facts = facts_of(capsys, files["sample"])
    assert facts.keys() == HEADER_KEYS | {"update_of", "layers"}
    figures = {"norm", "effective_rank", "rank_90", "rank_99"}
    shared = {"name", "num_A", "layers", "num_parameters", "expert_norms", "expert_similarity", "A_similarity"}
    for group in facts["groups"]:
        assert group.keys() == shared | figures
        assert all(group[key].keys() == {"median", "min", "max"} for key in figures)
        assert len(group["expert_norms"]) == 2
    assert all(own.keys() == {"group", "A"} | figures for own in facts["layers"].values())
    bare = facts_of(capsys, files["sample"], "--header_only")
    assert bare.keys() == HEADER_KEYS
    assert all(group.keys() == {"name", "num_A", "layers"} for group in bare["groups"])


@pytest.mark.parametrize("kind", ["sample", "static"])
def test_norms_are_those_of_the_dense_update(capsys, files, kind):
    facts, adapter = facts_of(capsys, files[kind]), files[f"{kind} adapter"]
    assert facts["update_of"] == {"sample": "equal", "static": "static"}[kind]
    assert list(facts["layers"]) == list(adapter.layers)
    norms = {}
    for layer, own in facts["layers"].items():
        A, B, router = (tensor.detach() for tensor in adapter.tensors(layer))
        p = router.softmax(0) if kind == "static" else torch.full((2,), 0.5)
        norms[layer] = 2.0 * torch.einsum("e,ero,ri->oi", p, B, A).norm().item()
        assert own["norm"] == pytest.approx(norms[layer], rel=1e-5)
    for group in facts["groups"]:
        of_group = sorted(norms[layer] for layer in group["layers"])
        assert (group["norm"]["min"], group["norm"]["max"]) == pytest.approx((of_group[0], of_group[-1]), rel=1e-5)


def test_the_table_of_layers(capsys, files):
    facts = facts_of(capsys, files["sample"])
    code, out, _ = run(capsys, files["sample"], "--layers")
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line}
    assert code == 0
    for layer, own in facts["layers"].items():
        rounded = [str(own["A"]), f"{own['norm']:.3f}", f"{own['effective_rank']:.1f}"]
        assert lines[layer][1:] == [*rounded, str(own["rank_90"]), str(own["rank_99"])]
    assert TEXT_KEY not in {line.split()[0] for line in run(capsys, files["sample"])[1].splitlines() if line}


def test_groups_of_one_name_are_one_line(capsys, tmp_path):
    """An adapter in the form of a LoRA has a group for each layer."""
    unet = tiny_sd15()
    found = [p for p in find_projections(unet) if p.attribute == "to_q" and p.in_features == 32]
    attach(unet, from_factors({p: (torch.ones(2, 32), (1.0 + i) * torch.eye(32)[:, :2]) for i, p in enumerate(found)}))
    _, out, _ = run(capsys, save_lily_weights(unet, tmp_path))
    (line,) = [line for line in out.split("Below")[1].splitlines() if line.startswith("to_q 32->32")]
    middle = 8 * (1 + len(found)) / 2  # the norm is 8 for the first and grows by 8
    assert f"{middle:.3f} (8.000..{8 * len(found)}.000)" in line
    assert line.split()[2] == str(len(found))


@pytest.mark.parametrize(("value", "sentence"), [(1.5, "its content hash differs"), (float("nan"), "has not finite")])
def test_bad_tensors_are_refused_unless_only_the_header_is_asked_for(capsys, files, tmp_path, value, sentence):
    tensors, metadata = lily_state_dict(files["sample"])
    next(iter(tensors.values())).fill_(value)
    save_file(tensors, tmp_path / "bad.safetensors", metadata=metadata)
    assert run(capsys, tmp_path / "bad.safetensors", "--header_only")[0] == 0
    code, out, err = run(capsys, tmp_path / "bad.safetensors")
    assert (code, out) == (2, "")
    assert sentence in err


def test_a_static_router_does_the_same_everywhere(capsys, files):
    facts, adapter = listen(capsys, files["static"]), files["static adapter"]
    found = facts["routing"]
    assert facts["update_of"] == "static"
    assert (found["steps"], found["calls_per_step"], found["side"]) == (2, 1, "all calls")
    for layer, own in found["prompts"][0]["layers"].items():
        p = adapter.tensors(layer)[2].detach().softmax(0)
        assert own["usage_by_step"] == [pytest.approx(p.tolist(), abs=1e-6)] * 2
        entropy = torch.distributions.Categorical(p).entropy().item() / torch.tensor(2.0).log().item()
        assert own["entropy"] == pytest.approx(entropy, abs=1e-5)
    assert all(group["differs_by"]["step"] < 1e-6 for group in found["groups"])
    assert any(group["differs_by"]["layer"] > 0.01 for group in found["groups"])


def test_the_prompt_is_the_second_half_of_a_guided_batch(capsys, files, pipe):
    """A key of cross-attention sees the text alone, so its routing can be computed without drawing."""
    found = listen(capsys, files["sample"], "--prompt", "two dogs")
    A, _, router = (tensor.detach() for tensor in files["sample adapter"].tensors(TEXT_KEY))
    text, nothing = (pipe.encode_prompt(t, "cpu", 1, False)[0].detach() for t in (PROMPT, ""))
    wanted, other = ((x @ A.T @ router.T).softmax(-1).mean((0, 1)).tolist() for x in (text, nothing))
    assert found["routing"]["side"] == "conditional"
    first, second = (seen["layers"][TEXT_KEY] for seen in found["routing"]["prompts"])
    assert first["usage"] == pytest.approx(wanted, abs=1e-5)
    assert first["usage_by_step"] == [pytest.approx(wanted, abs=1e-5)] * 2
    assert first["unconditional_usage"] == pytest.approx(other, abs=1e-5)
    assert second["usage"] != pytest.approx(wanted, abs=1e-3)
    group = found["routing"]["groups"][found["layers"][TEXT_KEY]["group"]]
    assert group["differs_by"]["step"] < 1e-6 < 1e-3 < group["differs_by"]["prompt"]
    assert found["update_of"] == "prompts"
    A, B, _ = (tensor.detach() for tensor in files["sample adapter"].tensors(TEXT_KEY))
    mixed = (torch.tensor(first["usage"]) + torch.tensor(second["usage"])) / 2
    assert found["layers"][TEXT_KEY]["norm"] == pytest.approx(
        2.0 * torch.einsum("e,ero,ri->oi", mixed, B, A).norm().item(), rel=1e-4
    )


def test_without_guidance_there_is_one_side(capsys, files):
    found = listen(capsys, files["sample"], "--guidance_scale", 1)["routing"]
    assert found["side"] == "all calls"
    assert found["prompts"][0]["unconditional_entropy_by_step"] is None
    assert found["prompts"][0]["layers"][TEXT_KEY]["unconditional_usage"] is None


def test_steps_are_those_that_the_scheduler_takes(capsys, files, pipe, monkeypatch):
    monkeypatch.setattr(pipe, "scheduler", PNDMScheduler.from_config(pipe.scheduler.config, skip_prk_steps=True))
    found = listen(capsys, files["sample"], "--steps", 3)["routing"]
    assert (found["steps"], found["calls_per_step"]) == (4, 1)  # its second step is done twice
    assert len(found["prompts"][0]["entropy_by_step"]) == 4


def test_the_same_seed_gives_the_same_and_another_does_not(capsys, files):
    seeds = (1, 1, 2)
    first, again, other = (listen(capsys, files["sample"], "--seed", seed, "--steps", 1)["routing"] for seed in seeds)
    assert first["prompts"] == again["prompts"] != other["prompts"]


def test_tables_show_what_the_json_has(capsys, files):
    argv = (files["sample"], "--model", "embedded", "--prompt", PROMPT, "--steps", 2)
    found = facts_of(capsys, *argv)
    _, out, _ = run(capsys, *argv, "--layers")
    first = found["groups"][0]["name"]
    line = [line for line in out.splitlines() if line.startswith(first)][-1].split()
    assert line[2:4] == [f"{100 * share:.0f}" for share in found["routing"]["groups"][0]["usage"]]
    mean = sum(found["routing"]["prompts"][0]["entropy_by_step"]) / 2
    (line,) = [line for line in out.splitlines() if line.startswith(f'"{PROMPT}"')]
    assert line.split()[-3] == f"{mean:.2f}"
    (line,) = [line for line in out.splitlines() if line.startswith(TEXT_KEY)]
    assert line.endswith(f"{found['routing']['prompts'][0]['layers'][TEXT_KEY]['entropy']:.2f}")


def test_the_picture_shows_what_the_json_has(capsys, files, tmp_path, monkeypatch):
    drawn = {}

    def watched_map(panels, **texts):
        drawn.update(panels=panels, layout=heat_map.Layout(panels, texts["title"], texts["note"]), **texts)
        return heat_map.routing_map(panels, **texts)

    monkeypatch.setattr(routing, "routing_map", watched_map)
    file = tmp_path / "new" / "routing.png"
    found = listen(capsys, files["sample"], "--picture", file)
    assert found["picture"] == str(file)
    assert [path.name for path in file.parent.iterdir()] == ["routing.png"]
    assert "sample.safetensors on embedded: 2 steps, guidance 3, seed 0" in drawn["note"]
    own = found["routing"]["prompts"][0]["layers"][TEXT_KEY]
    place = heat_map.places_of({TEXT_KEY: "to_k"})[TEXT_KEY]
    layer = next(x for x in drawn["panels"][0].layers if (x.column, *x.row) == ("to_k", *place))
    with Image.open(file) as picture:
        for step in range(2):
            left, top, *_ = drawn["layout"].cell(0, layer, step)
            wanted = heat_map.cell_colour(own["usage_by_step"][step], own["entropy_by_step"][step])
            assert picture.getpixel((left, top)) == wanted != heat_map.PAPER


def test_many_prompts_are_drawn_as_their_mean(capsys, files, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        routing, "routing_map", lambda panels, **texts: drawn.append(panels) or heat_map.routing_map(panels, **texts)
    )
    more = [word for prompt in ("a dog", "two cats", "a pear") for word in ("--prompt", prompt)]
    found = listen(capsys, files["sample"], *more, "--steps", 1, "--picture", tmp_path / "x.png")["routing"]
    ((panel,),) = drawn
    assert panel.caption.startswith("the mean of 4 prompts: mean entropy")
    name = next(iter(found["prompts"][0]["layers"]))
    wanted = sum(seen["layers"][name]["usage"][0] for seen in found["prompts"]) / 4
    assert panel.layers[0].usage[0][0] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["nowhere.safetensors"], "there is no file nowhere.safetensors"),
        ([__file__], "not a safetensors file"),
        (["FILE", "--header_only", "--layers"], "goes without --layers and --model"),
        (["FILE", "--prompt", "x"], "--prompt needs a model to run it on"),
        (["FILE", "--model", "embedded"], "--model needs at least one --prompt"),
        (["FILE", "--picture", "x.png"], "--picture shows what the routers do"),
        (["FILE", "--model", "embedded", "--prompt", "x", "--picture", "x.jpg"], "must name a .png file, not x.jpg"),
        (["FILE", "--model", "embedded", "--prompt", "x", "--steps", "0"], "--steps must be 1 or more, not 0"),
        (["FILE", "--model", "embedded", "--prompt", "x", "--seed", "-1"], "--seed must be 0 or more, not -1"),
        (["FILE", "--model", "embedded", "--prompt", "x", "--guidance_scale", "nan"], "must be a finite number"),
        (["FILE", "--model", "/no/folder", "--prompt", "x"], "there is no pipeline folder /no/folder"),
        (["OTHER", "--model", "embedded", "--prompt", "x"], "another base"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(argv, sentence, capsys, files, tmp_path):
    unet = tiny_sd15()
    attach(unet, LilyConfig(r=4))
    names = {"FILE": files["sample"], "OTHER": save_lily_weights(unet, tmp_path)}
    code, out, err = run(capsys, *(names.get(arg, arg) for arg in argv))
    assert code == 2
    assert sentence in err
    assert err.strip().splitlines()[-1].startswith("lily-diffusion: ")
    assert not out
