"""One file for all parts of an adapter: exact, strict, and without text encoders the same as ever."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lily_diffusion import (
    LilyConfig,
    attach,
    check_compatible,
    detach,
    enable_lily_hotswap,
    get_adapter_weights,
    get_list_adapters,
    lily_state_dict,
    load_lily_weights,
    read_lily_header,
    save_lily_weights,
    set_adapters,
    unload_lily_weights,
)
from lily_diffusion.components import as_in_files, as_in_model
from lily_diffusion.header import content_hash, fingerprint
from lily_diffusion.save_and_load import build_adapter, build_adapters, read_file
from lily_diffusion.sharing import find_projections

from .conftest import awaken
from .encoded import CONFIG, FAMILIES, Encoded, case, pipelines, sd  # noqa: F401

KEY = "lily_adapter_metadata"


@pytest.fixture
def saved(sd, tmp_path):
    """A file with two parts, made on the tiny Stable Diffusion, which has nothing attached again."""
    sd.adapt("a")
    path = save_lily_weights(sd.pipe, tmp_path / "made")
    unload_lily_weights(sd.pipe)
    return path


def test_round_trip_is_bit_identical(case, tmp_path):
    adapted = case.adapt("cat")
    assert not torch.equal(adapted, case.base)
    path = save_lily_weights(case.pipe, tmp_path, trigger_words=["sks"])
    unload_lily_weights(case.pipe)
    assert torch.equal(case.draw(), case.base)
    assert load_lily_weights(case.pipe, path) == "default_0"
    assert torch.equal(case.draw(), adapted)
    assert get_list_adapters(case.pipe) == {component: ["default_0"] for component in case.components}
    tensors, metadata = lily_state_dict(path)
    unload_lily_weights(case.pipe)
    load_lily_weights(case.models, tensors, "again", metadata=metadata)
    assert torch.equal(case.draw(), adapted)


def test_the_header_tells_all_parts(case, tmp_path):
    case.adapt("cat")
    path = save_lily_weights(case.models, tmp_path, base_model="some/base")
    header = read_lily_header(path)
    assert [part.component for part in header.parts] == case.components and header.base_model == "some/base"
    assert [part.model_class for part in header.parts] == [type(m).__name__ for m in case.models.values()]
    assert header.metadata["lily_format_version"] == "3"
    assert header.num_parameters == sum(t.numel() for t in load_file(path).values())
    keys = {key.partition(".")[0] for key in load_file(path)}
    assert keys == set(case.components)
    layers = [layer for part in header.further for g in part.groups for layer in g.layers]
    assert all(layer.startswith("text_model.encoder.layers.") for layer in layers)  # as in every published CLIP
    check_compatible(header, case.pipe)


def test_layers_have_the_same_names_for_every_version_of_transformers(sd, saved):
    flat = attach(sd.pipe.text_encoder, CONFIG)
    named = as_in_files(flat, sd.pipe.text_encoder)
    assert all(layer.startswith("text_model.") for layer in named.layers)
    assert as_in_model(named, sd.pipe.text_encoder).layers == tuple(
        p.name for a in ("q_proj", "k_proj", "v_proj", "out_proj") for p in find_projections(sd.pipe.text_encoder)
        if p.attribute == a
    )  # fmt: skip
    for mine, theirs in zip(flat.parameters(), named.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_one_model_saves_its_part_alone(sd, tmp_path):
    sd.adapt("a")
    unet = save_lily_weights(sd.pipe.unet, tmp_path / "u")
    text = save_lily_weights({"text_encoder": sd.pipe.text_encoder}, tmp_path / "t")
    assert [part.component for part in read_lily_header(unet).parts] == ["unet"]
    assert [part.component for part in read_lily_header(text).parts] == ["text_encoder"]
    detach(sd.pipe.unet)
    adapted = sd.draw()
    unload_lily_weights(sd.pipe)
    for target in (sd.pipe, sd.pipe.text_encoder):
        load_lily_weights(target, text, "b")
        assert torch.equal(sd.draw(), adapted) and get_list_adapters(sd.pipe) == {"text_encoder": ["b"]}
        unload_lily_weights(sd.pipe)


def test_a_file_of_a_denoiser_alone(sd, tmp_path):
    torch.manual_seed(0)
    adapter = awaken(attach(sd.pipe.unet, LilyConfig(r=2, num_B=2, target_modules=("attn2.to_k",)), "a"))
    path = save_lily_weights(sd.pipe, tmp_path, trigger_words=["sks"], base_model="some/base")
    (group,) = adapter.groups
    expected = {
        "base_model": "some/base",
        "component": "unet",
        "config": adapter.config.to_dict(),
        "content_hash": content_hash(load_file(path)),
        "fingerprint": fingerprint("UNet2DConditionModel", adapter.groups),
        "groups": [
            {
                "A_of_layer": list(group.A_of_layer),
                "in_features": 8,
                "layers": list(group.layers),
                "out_features": 64,
                "projection": "to_k",
            }
        ],
        "model_class": "UNet2DConditionModel",
        "trigger_words": ["sks"],
    }
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata[KEY] == json.dumps(expected, sort_keys=True, separators=(",", ":"))
    assert metadata["lily_format_version"] == "3"
    fields = ("sai_model_spec", "architecture", "implementation", "title", "date", "hash_sha256", "trigger_phrase")
    assert set(metadata) == {"format", "lily_format_version", KEY, *(f"modelspec.{field}" for field in fields)}
    assert sorted(load_file(path)) == ["unet.lily_A.0.0", "unet.lily_B.0", "unet.lily_router.0"]
    adapted = sd.draw()
    unload_lily_weights(sd.pipe)
    load_lily_weights(sd.pipe, path)
    assert torch.equal(sd.draw(), adapted) and get_list_adapters(sd.pipe) == {"unet": ["default_0"]}


def test_files_whose_routers_are_a_tensor_each_are_read(sd, tmp_path):
    """As files of the first two versions have them."""
    adapted = sd.adapt("a")
    path = save_lily_weights(sd.pipe, tmp_path)
    tensors, header = load_file(path), read_lily_header(path)
    for part in header.parts:
        for number, group in enumerate(part.groups):
            stacked = tensors.pop(f"{part.component}.lily_router.{number}")
            for layer, router in zip(group.layers, stacked, strict=True):
                tensors[f"{part.component}.{layer}.lily_router"] = router.clone()
    ours = {**json.loads(header.metadata[KEY]), "content_hash": content_hash(tensors)}
    save_file(tensors, path, {**header.metadata, "lily_format_version": "2", KEY: json.dumps(ours)})
    unload_lily_weights(sd.pipe)
    load_lily_weights(sd.pipe, path)
    assert torch.equal(sd.draw(), adapted)
    first = f"unet.{header.groups[0].layers[0]}.lily_router"
    with pytest.raises(ValueError, match=r"lacks tensors: 1 of .*lily_router"):
        load_lily_weights(sd.pipe, rewrite(path, drop=[first]), "b")


def rewrite(path, tensors=None, header=None, drop=(), part=None):
    """The same file with some tensors, header strings, or values of its second part replaced."""
    with safe_open(path, "pt") as file:
        metadata = {**file.metadata(), **(header or {})}
    if part is not None:
        ours = json.loads(metadata[KEY])
        ours["further_parts"] = part(ours["further_parts"])
        metadata[KEY] = json.dumps(ours)
    content = {k: v for k, v in {**load_file(path), **(tensors or {})}.items() if k not in drop}
    bad = path.with_name("bad.safetensors")
    save_file(content, bad, metadata)
    return bad


def first(**change):
    return lambda parts: [{**parts[0], **change}, *parts[1:]]


B = "text_encoder.lily_B.0"
BAD = {
    "no further part": (lambda p: rewrite(p, part=lambda parts: []), "unexpected tensors.*text_encoder"),
    "not a list": (lambda p: rewrite(p, part=lambda parts: 3), "is damaged"),
    "not a dict": (lambda p: rewrite(p, part=lambda parts: ["text_encoder"]), "is damaged"),
    "twice": (lambda p: rewrite(p, part=lambda parts: parts * 2), "is damaged"),
    "second denoiser": (lambda p: rewrite(p, part=first(component="transformer")), "is damaged"),
    "odd component": (lambda p: rewrite(p, part=first(component="vae")), "is damaged"),
    "component no text": (lambda p: rewrite(p, part=first(component=["a"])), "is damaged"),
    "no groups": (lambda p: rewrite(p, part=first(groups=[])), "is damaged"),
    "unknown option": (lambda p: rewrite(p, part=first(config={"colour": 1})), "has no colour"),
    "huge r": (lambda p: rewrite(p, part=first(config={**CONFIG.to_dict(), "r": 999})), "is damaged"),
    "other class": (lambda p: rewrite(p, part=first(model_class="T5")), "map of groups contradicts itself"),
    "missing tensor": (lambda p: rewrite(p, drop=[B]), f"lacks tensors: 1 of .*{B}"),
    "extra tensor": (lambda p: rewrite(p, {"text_encoder.more": torch.zeros(1)}), "unexpected.*text_encoder.more"),
    "misshapen": (lambda p: rewrite(p, {B: load_file(p)[B][:, :1].contiguous()}), f"misshapen tensors.*{B}"),
    "not finite": (lambda p: rewrite(p, {B: load_file(p)[B] * float("nan")}), f"not finite tensors.*{B}"),
    "changed": (lambda p: rewrite(p, {B: load_file(p)[B] + 1}), "content hash differs"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_files_change_nothing_in_any_part(sd, saved, kind):
    make, message = BAD[kind]
    adapted, path = sd.adapt("first", seed=9), make(saved)
    looks = sd.look()
    with pytest.raises(ValueError, match=message) as error:
        load_lily_weights(sd.pipe, path, "second")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400
    assert get_list_adapters(sd.pipe) == {"unet": ["first"], "text_encoder": ["first"]}
    assert [look[3:] for look in sd.look()] == [look[3:] for look in looks]
    assert torch.equal(sd.draw(), adapted)


def test_what_a_part_is_for_must_be_there(sd, saved, pipelines, tmp_path):
    with pytest.raises(ValueError, match=r"part for the text_encoder .*this UNet2DConditionModel alone has not"):
        load_lily_weights(sd.pipe.unet, saved)
    with pytest.raises(ValueError, match=r"made for a unet .* and this is a text_encoder"):
        load_lily_weights(sd.pipe.text_encoder, saved)
    with pytest.raises(ValueError, match=r"text_encoder .*which this mapping of unet has not"):
        load_lily_weights({"unet": sd.pipe.unet}, saved)
    xl = pipelines["stable_diffusion_xl"]
    xl.adapt("a", components=["text_encoder", "text_encoder_2"])
    path = save_lily_weights(xl.pipe, tmp_path)
    xl.clear()
    with pytest.raises(ValueError, match=r"text_encoder_2 .*which this StableDiffusionPipeline has not"):
        load_lily_weights(sd.pipe, path)
    for look, model in zip(sd.traces, sd.models.values(), strict=True):
        assert look[1] == list(model.state_dict())
    assert get_list_adapters(sd.pipe) == {}


def test_a_part_that_cannot_be_attached_takes_the_others_back(sd, saved, monkeypatch):
    calls = []

    def fails(model, *args):
        calls.append(model)
        if model is sd.pipe.text_encoder:
            raise ValueError("no room")
        return attach(model, *args)

    monkeypatch.setattr("lily_diffusion.loaders.attach", fails)
    with pytest.raises(ValueError, match="no room"):
        load_lily_weights(sd.pipe, saved)
    assert calls == [sd.pipe.unet, sd.pipe.text_encoder] and sd.is_untouched()


def test_a_name_is_taken_if_any_part_has_it(sd, saved):
    sd.adapt("a", components=["text_encoder"])
    with pytest.raises(ValueError, match="'a' is loaded already"):
        load_lily_weights(sd.pipe, saved, "a")
    assert load_lily_weights(sd.pipe, saved) == "default_0"
    with pytest.raises(ValueError, match="Say which adapter: there is 'default_0', 'a'"):
        save_lily_weights(sd.pipe, saved.parent)


def test_only_one_part_where_one_is_wanted(saved):
    header, tensors = read_file(saved)
    with pytest.raises(ValueError, match="has parts for unet and text_encoder, and only a file with one part"):
        build_adapter(header, tensors, saved.name)
    assert list(build_adapters(header, tensors, saved.name)) == ["unet", "text_encoder"]


def test_hot_swap_replaces_every_part_or_none(sd, saved, tmp_path):
    enable_lily_hotswap(sd.pipe, 8)
    load_lily_weights(sd.pipe, saved, "a")
    before = sd.draw()
    kept = {component: model.__dict__["_lily"].adapters["a"] for component, model in sd.models.items()}
    sd.adapt("b", seed=7, config=LilyConfig(r=6, num_B=2))
    other = save_lily_weights(sd.pipe, tmp_path, "b")
    set_adapters(sd.pipe, "b")
    expected = sd.draw()
    one = save_lily_weights(sd.pipe.unet, tmp_path / "u", "b")
    set_adapters(sd.pipe, "a")
    with pytest.raises(ValueError, match="has parts for unet and the one in its place for unet and text_encoder"):
        load_lily_weights(sd.pipe, one, "a", hotswap=True)
    assert torch.equal(sd.draw(), before)
    load_lily_weights(sd.pipe, other, "a", hotswap=True)
    torch.testing.assert_close(sd.draw(), expected, rtol=1e-4, atol=1e-4)
    assert all(model.__dict__["_lily"].adapters["a"] is kept[c] for c, model in sd.models.items())
    assert get_adapter_weights(sd.pipe) == {"a": 1.0}


def test_a_swap_that_does_not_fit_one_part_changes_none(sd, saved, tmp_path):
    enable_lily_hotswap(sd.pipe, 8)
    load_lily_weights(sd.pipe, saved, "a")
    before = sd.draw()
    attach(sd.pipe.unet, CONFIG, "b")
    attach(sd.pipe.text_encoder, LilyConfig(r=4, num_B=3), "b")
    path = save_lily_weights(sd.pipe, tmp_path, "b")
    set_adapters(sd.pipe, "a")
    with pytest.raises(ValueError, match="num_B=3 and the one in its place 2"):
        load_lily_weights(sd.pipe, path, "a", hotswap=True)
    assert torch.equal(sd.draw(), before)
