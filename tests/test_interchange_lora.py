"""LoRA files: diffusers' own pipelines load what is written, and what diffusers and kohya's scripts write is read."""

import functools
import hashlib
import json

import pytest
import torch
from diffusers import FluxPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import load_file

from lily_diffusion import LilyConfig, attach, detach
from lily_diffusion.components import denoiser
from lily_diffusion.frozen import factors, from_factors, projections
from lily_diffusion.interchange.kohya_names import kohya_name
from lily_diffusion.interchange.lora import read_lora, read_metadata, write_lora
from lily_diffusion.sharing import KINDS, select

from .conftest import awaken, inputs, tiny_sd15, tiny_sdxl
from .zoo import build

NOTHING = dict.fromkeys(["vae", "text_encoder", "tokenizer", "scheduler"])
MORE = dict.fromkeys(["text_encoder_2", "tokenizer_2"])


def pipeline(kind):
    """A pipeline of the real class with a tiny denoiser and nothing else, and the denoiser's inputs."""
    if kind == "flux":
        model, given = build("FluxTransformer2DModel")
        return FluxPipeline(transformer=model, **NOTHING, **MORE), given
    unet = {"sd15": tiny_sd15, "sdxl": tiny_sdxl}[kind]()
    if kind == "sd15":
        rest = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        return StableDiffusionPipeline(unet=unet, **NOTHING, **rest), inputs(unet)
    return StableDiffusionXLPipeline(unet=unet, add_watermarker=False, **NOTHING, **MORE), inputs(unet)


def draw(model, given):
    with torch.no_grad():
        return model(**given, return_dict=False)[0]


def frozen(model, num_B=3, **more):
    torch.manual_seed(0)
    more = {"target_modules": KINDS, **more}
    config = LilyConfig(r=6, stride_A=2, num_B=num_B, scaling=1.5, routing="static", **more)
    adapter = awaken(attach(model, config))
    detach(model)
    return adapter


def uneven(model):
    """A frozen adapter with ranks 1, 2, 3 and 4 in turn, and a layer that adds nothing."""
    torch.manual_seed(1)
    ranks = {p: 1 + i % 4 for i, p in enumerate(select(model, KINDS))}
    parts = {p: (torch.randn(r, p.in_features), torch.randn(p.out_features, r) / 9) for p, r in ranks.items()}
    first = next(iter(parts))
    parts[first] = tuple(torch.zeros_like(t) for t in parts[first])
    return from_factors(parts)


def same_as_attached(pipe, given, adapter, load):
    """What `load` brings makes the pipeline draw as the attached adapter does, and not as the base does."""
    _, model = denoiser(pipe)
    base = draw(model, given)
    attach(model, adapter)
    want = draw(model, given)
    detach(model)
    load()
    got = draw(model, given)
    assert (want - base).norm() > 0.01 * base.norm()
    assert (got - want).norm() <= 1e-5 * want.norm()
    assert (got - want).norm() <= 1e-4 * (want - base).norm()


MAKERS = {"num_B 3": frozen, "num_B 1": functools.partial(frozen, num_B=1), "uneven": uneven}


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(
    "kind, format",
    [("sd15", "diffusers"), ("sd15", "kohya"), ("sdxl", "diffusers"), ("sdxl", "kohya"), ("flux", "diffusers")],
)
def test_diffusers_loads_it(tmp_path, kind, format, make):
    pipe, given = pipeline(kind)
    component, model = denoiser(pipe)
    adapter = MAKERS[make](model)
    write_lora(adapter, tmp_path / "a.safetensors", component=component, format=format, unet_config=model.config)
    same_as_attached(pipe, given, adapter, lambda: pipe.load_lora_weights(tmp_path, weight_name="a.safetensors"))


@pytest.mark.parametrize(
    "kind, format", [("sd15", "diffusers"), ("sd15", "kohya"), ("sdxl", "kohya"), ("flux", "diffusers")]
)
def test_what_is_written_is_read(tmp_path, kind, format):
    component, model = denoiser(pipeline(kind)[0])
    adapter = uneven(model)
    path = write_lora(adapter, tmp_path / "a.safetensors", component=component, format=format, unet_config=model.config)
    again = read_lora(path, model)
    assert again.groups == adapter.groups and again.config == adapter.config
    for p in projections(adapter):
        (down, up), (down2, up2) = factors(adapter, p.name), factors(again, p.name)
        assert torch.equal(down2, down)
        torch.testing.assert_close(up2, up, rtol=1e-6 if format == "kohya" else 0, atol=0)


def test_the_dtype_is_the_adapters_own_or_the_given_one(sd15, tmp_path):
    adapter = frozen(sd15).half()
    assert {t.dtype for t in load_file(write_lora(adapter, tmp_path / "a.safetensors", component="unet")).values()} == {
        torch.float16
    }
    path = write_lora(adapter, tmp_path / "b.safetensors", component="unet", dtype=torch.bfloat16)
    assert {t.dtype for t in load_file(path).values()} == {torch.bfloat16}
    for p in projections(adapter)[::7]:
        down, up = factors(adapter, p.name)
        down2, up2 = factors(read_lora(path, sd15), p.name)
        torch.testing.assert_close(up2 @ down2, up @ down, rtol=0.03, atol=0.01)


def test_another_files_header_as_metadata_does_not_scale_the_layers(sd15, tmp_path):
    adapter = uneven(sd15)
    scaled = {"unet.r": 1, "unet.lora_alpha": 8, "unet.rank_pattern": {}, "unet.alpha_pattern": {}}
    metadata = {"lora_adapter_metadata": json.dumps(scaled), "lily_adapter_metadata": "{}", "note": "kept"}
    path = write_lora(adapter, tmp_path / "a.safetensors", component="unet", metadata=metadata)
    layer = adapter.layers[-1]
    (down, up), (down2, up2) = (factors(a, layer) for a in (adapter, read_lora(path, sd15)))
    torch.testing.assert_close(up2 @ down2, up @ down)
    assert read_metadata(path)["note"] == "kept" and "lily_adapter_metadata" not in read_metadata(path)


def test_diffusers_header(sd15, tmp_path):
    adapter = uneven(sd15)
    words = ("sks dog", "toy")
    facts = {"model_class": "UNet2DConditionModel", "base_model": "owner/base", "trigger_words": words}
    path = write_lora(adapter, tmp_path / "dog.safetensors", component="unet", metadata={"note": "n"}, **facts)
    header = read_metadata(path)
    ranks = {layer: max(1, 1 + i % 4 if i else 1) for i, layer in enumerate(p.name for p in select(sd15, KINDS))}
    assert {k: t.shape[0] for k, t in load_file(path).items() if "lora_A" in k} == {
        f"unet.{layer}.lora_A.weight": rank for layer, rank in ranks.items()
    }
    config = json.loads(header["lora_adapter_metadata"])
    assert set(config) == {f"unet.{k}" for k in ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules")}
    assert config["unet.r"] == config["unet.lora_alpha"] == 1
    assert config["unet.rank_pattern"] == config["unet.alpha_pattern"]
    assert config["unet.rank_pattern"] == {f"^{layer}": rank for layer, rank in ranks.items() if rank != 1}
    assert config["unet.target_modules"] == list(ranks)
    assert header["modelspec.architecture"] == "UNet2DConditionModel/lora" and header["modelspec.title"] == "dog"
    assert header["modelspec.trigger_phrase"] == "sks dog, toy" and header["note"] == "n" and header["format"] == "pt"
    assert header["ss_sd_model_name"] == "owner/base" and header["modelspec.sai_model_spec"] == "1.0.1"


def test_kohya_header(sd15, tmp_path):
    config = {**sd15.config, "cross_attention_dim": 768}
    header = {}
    for name, adapter in (("even", frozen(sd15)), ("uneven", uneven(sd15))):
        path = tmp_path / f"{name}.safetensors"
        write_lora(adapter, path, component="unet", format="kohya", unet_config=config, trigger_words=["sks"])
        header[name] = read_metadata(path)
        data = path.read_bytes()
        digest = hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()
        assert header[name]["sshs_model_hash"] == digest and header[name]["modelspec.hash_sha256"] == f"0x{digest}"
        assert header[name]["ss_output_name"] == name and header[name]["ss_network_module"] == "networks.lora"
        alphas = {float(t) for key, t in load_file(path).items() if key.endswith(".alpha")}
        assert alphas == {float(header[name]["ss_network_alpha"])}
    assert header["even"]["ss_network_dim"] == header["even"]["ss_network_alpha"] == "6"
    assert header["uneven"]["ss_network_dim"] == "Dynamic" and header["uneven"]["ss_network_alpha"] == "1"
    assert header["even"]["ss_base_model_version"] == "sd_v1" and "lora_adapter_metadata" not in header["even"]
    assert header["even"]["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert header["even"]["modelspec.trigger_phrase"] == "sks"


@pytest.mark.parametrize(
    "width, embed, fields",
    [
        (1024, None, {"ss_v2": "True"}),
        (2048, "text_time", {"ss_base_model_version": "sdxl_base_v1-0"}),
        (99, None, {}),
    ],
)
def test_the_base_is_named_where_it_is_known(sd15, tmp_path, width, embed, fields):
    config = {**sd15.config, "cross_attention_dim": width, "addition_embed_type": embed}
    path = tmp_path / "a.safetensors"
    write_lora(frozen(sd15), path, component="unet", format="kohya", unet_config=config, model_class="U")
    header = read_metadata(path)
    assert {k: v for k, v in header.items() if k in ("ss_v2", "ss_base_model_version")} == fields
    assert header["modelspec.architecture"] == ("stable-diffusion-xl-v1-base/lora" if embed else "U/lora")


def test_sdxl_has_its_original_names():
    """Stable Diffusion XL's own layout; the names are those of published files."""
    config = {
        "addition_embed_type": "text_time",
        "layers_per_block": 2,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    }
    for layer, name in {
        "down_blocks.1.attentions.0": "input_blocks_4_1",
        "down_blocks.1.attentions.1": "input_blocks_5_1",
        "down_blocks.2.attentions.0": "input_blocks_7_1",
        "down_blocks.2.attentions.1": "input_blocks_8_1",
        "mid_block.attentions.0": "middle_block_1",
        "up_blocks.0.attentions.0": "output_blocks_0_1",
        "up_blocks.0.attentions.2": "output_blocks_2_1",
        "up_blocks.1.attentions.0": "output_blocks_3_1",
        "up_blocks.1.attentions.2": "output_blocks_5_1",
    }.items():
        ending = "transformer_blocks_0_attn1_to_out_0"
        assert kohya_name(f"{layer}.transformer_blocks.0.attn1.to_out.0", config) == f"lora_unet_{name}_{ending}"
    uneven_blocks = {**config, "layers_per_block": [2, 3, 1]}
    assert kohya_name("down_blocks.2.attentions.0.x", uneven_blocks) == "lora_unet_input_blocks_8_1_x"
    assert kohya_name("up_blocks.1.attentions.0.x", uneven_blocks) == "lora_unet_output_blocks_2_1_x"


@pytest.mark.parametrize("layers_per_block", [1, 2, 3])
def test_diffusers_translates_the_original_names_back(tmp_path, layers_per_block):
    unet = UNet2DConditionModel(
        block_out_channels=(8, 8, 8),
        layers_per_block=layers_per_block,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=80,
        cross_attention_dim=8,
        norm_num_groups=8,
    )
    adapter = uneven(unet)
    write_lora(adapter, tmp_path / "a.safetensors", component="unet", format="kohya", unet_config=unet.config)
    assert not any("down_blocks" in k or "up_blocks" in k for k in load_file(tmp_path / "a.safetensors"))
    back = StableDiffusionXLPipeline.lora_state_dict(tmp_path, weight_name="a.safetensors", unet_config=unet.config)[0]
    assert len(back) == 2 * len(adapter.layers)
    for p in projections(adapter):
        name = p.name + ".lora"
        if "attn" in p.name:
            name = p.name.removesuffix(p.attribute) + "processor." + p.attribute.removesuffix(".0") + "_lora"
        down, up = (back[f"unet.{name}.{part}.weight"] for part in ("down", "up"))
        want_down, want_up = factors(adapter, p.name)
        torch.testing.assert_close(up @ down / len(down), want_up @ want_down)  # all alphas are 1


def test_stable_diffusion_needs_no_config(tmp_path):
    """The width of its text tells it from every other UNet that kohya's format knows."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(8,),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        cross_attention_dim=768,
        norm_num_groups=8,
    )
    facts = {"component": "unet", "format": "kohya"}
    path = write_lora(frozen(unet, target_modules=("attn2.to_k",)), tmp_path / "a.safetensors", **facts)
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    assert f"{name}.lora_down.weight" in load_file(path) and read_metadata(path)["ss_base_model_version"] == "sd_v1"
    with pytest.raises(ValueError, match="do not tell which it is: pass unet_config"):
        write_lora(frozen(unet, target_modules=("attn1.to_k",)), tmp_path / "b.safetensors", **facts)
