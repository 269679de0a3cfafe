"""LoRA files of other programs: each kind is read as it computes there, and each bad one has its sentence."""

import json
import math

import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.training_utils import _collate_lora_metadata
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from lily_diffusion import LilyConfig, attach
from lily_diffusion.frozen import factors
from lily_diffusion.interchange.lora import read_lora, read_metadata, write_lora

from .conftest import tiny_sd15, tiny_sdxl
from .test_interchange_lora import draw, frozen, pipeline

LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


def tensors(down="lora_A.weight", up="lora_B.weight", layer=f"unet.{LAYER}.", rank=2, **alpha):
    generator = torch.Generator().manual_seed(3)
    return {
        f"{layer}{down}": torch.randn(rank, 32, generator=generator),
        f"{layer}{up}": torch.randn(32, rank, generator=generator),
        **{f"{layer}alpha": torch.tensor(value) for value in alpha.values()},
    }


def written(path, tensors, metadata=None):
    save_file(tensors, path, metadata=metadata)
    return path


def update(adapter, layer=LAYER):
    down, up = factors(adapter, layer)
    return up @ down


@pytest.mark.parametrize("rank_stabilised", [False, True])
def test_files_of_diffusers_are_read(tmp_path, rank_stabilised):
    """Alpha, and other ranks and alphas for some layers, from the header that diffusers writes."""
    pipe, given = pipeline("sd15")
    torch.manual_seed(0)
    config = LoraConfig(
        r=4,
        lora_alpha=6,
        rank_pattern={"attn2.to_k": 2, "^mid_block.attentions.0.transformer_blocks.0.attn1.to_q": 3},
        alpha_pattern={"attn2.to_k": 5, r"attn1\.to_v": 1},
        use_rslora=rank_stabilised,
        target_modules=["to_q", "to_k", "to_v", "to_out.0"],
    )
    pipe.unet.add_adapter(config)
    for name, parameter in pipe.unet.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    want = draw(pipe.unet, given)
    layers = get_peft_model_state_dict(pipe.unet)
    metadata = _collate_lora_metadata({"unet": pipe.unet})
    StableDiffusionPipeline.save_lora_weights(tmp_path, unet_lora_layers=layers, **metadata)
    path = tmp_path / "pytorch_lora_weights.safetensors"
    other, _ = pipeline("sd15")
    attach(other.unet, read_lora(path, other))
    got = draw(other.unet, given)
    assert (got - want).norm() <= 1e-5 * want.norm()
    assert (got - draw(tiny_sd15(), given)).norm() > 0.01 * want.norm()


@pytest.mark.parametrize(
    "spelling",
    [
        {"layer": f"{LAYER}."},
        {"layer": f"unet.{LAYER}.", "down": "lora.down.weight", "up": "lora.up.weight"},
        {
            "layer": f"unet.{LAYER.replace('to_q', 'processor.to_q')}",
            "down": "_lora.down.weight",
            "up": "_lora.up.weight",
        },
        {"layer": f"lora_unet_{LAYER.replace('.', '_')}.", "down": "lora_down.weight", "up": "lora_up.weight"},
    ],
)
def test_every_spelling_is_read(sd15, tmp_path, spelling):
    given = tensors(**spelling)
    down, up = given.values()
    adapter = read_lora(written(tmp_path / "a.safetensors", given), sd15)
    assert adapter.layers == (LAYER,) and adapter.config.num_B == 1
    torch.testing.assert_close(update(adapter), up @ down)


def test_the_old_spelling_of_the_output_projection(sd15, tmp_path):
    layer = f"unet.{LAYER.replace('to_q', 'processor.to_out')}"
    given = tensors(layer=layer, down="_lora.down.weight", up="_lora.up.weight")
    assert read_lora(written(tmp_path / "a.safetensors", given), sd15).layers == (LAYER.replace("to_q", "to_out.0"),)


def test_sdxl_files_are_read_with_either_names(tmp_path):
    unet = tiny_sdxl()
    adapter = frozen(unet, target_modules=("to_k",))
    original = write_lora(
        adapter, tmp_path / "a.safetensors", component="unet", format="kohya", unet_config=unet.config
    )
    plain = {**unet.config, "addition_embed_type": None}
    diffusers = write_lora(adapter, tmp_path / "b.safetensors", component="unet", format="kohya", unet_config=plain)
    assert any("input_blocks_4_1" in key for key in load_file(original))
    assert any("down_blocks_1_attentions_0" in key for key in load_file(diffusers))
    for again in (read_lora(original, unet), read_lora(diffusers, unet)):
        for layer in adapter.layers:
            torch.testing.assert_close(update(again, layer), update(adapter, layer))


@pytest.mark.parametrize(
    "alpha, header, scale",
    [
        (None, None, 1.0),
        (1.0, None, 0.5),
        (None, {"unet.r": 2, "unet.lora_alpha": 3}, 1.5),
        (None, {"r": 2, "lora_alpha": 3}, 1.5),
        (None, {"unet.lora_alpha": 3, "unet.alpha_pattern": {"attn1.to_q": 4}}, 2.0),
        (None, {"unet.lora_alpha": 3, "unet.alpha_pattern": {"1.to_q": 4, "to_q": 6}}, 3.0),
        (None, {"unet.lora_alpha": 3, "unet.use_rslora": True}, 3 / math.sqrt(2)),
        (None, {"text_encoder.lora_alpha": 3}, 1.0),
        (3.0, {"unet.lora_alpha": 3}, 1.5),
    ],
)
def test_alpha(sd15, tmp_path, alpha, header, scale):
    given = tensors(**({} if alpha is None else {"alpha": alpha}))
    down, up = list(given.values())[:2]
    metadata = None if header is None else {"lora_adapter_metadata": json.dumps(header)}
    adapter = read_lora(written(tmp_path / "a.safetensors", given, metadata), sd15)
    torch.testing.assert_close(update(adapter), scale * up @ down)


def test_other_layers_are_left_out_only_if_asked(sd15, tmp_path):
    more = tensors(layer="unet.mid_block.resnets.0.conv1.")
    path = written(tmp_path / "a.safetensors", {**tensors(), **more})
    with pytest.raises(ValueError, match=r"1 of its 2 layers are no linear .*, first unet\.mid.*skip_others leaves"):
        read_lora(path, sd15)
    assert read_lora(path, sd15, skip_others=True).layers == (LAYER,)
    path = written(tmp_path / "b.safetensors", more)
    with pytest.raises(ValueError, match=r"1 of its 1 layers are no linear layers of this UNet2D.*conv1\.$"):
        read_lora(path, sd15, skip_others=True)


BAD = {
    "not finite": ({f"unet.{LAYER}.lora_A.weight": torch.full((2, 32), math.nan)}, "values for unet.* not finite"),
    "infinite alpha": ({f"unet.{LAYER}.alpha": torch.tensor(math.inf)}, "values for .* not finite, or an alpha"),
    "alpha of two": ({f"unet.{LAYER}.alpha": torch.ones(2)}, "an alpha that is no number"),
    "wide": ({f"unet.{LAYER}.lora_A.weight": torch.ones(2, 48)}, r"misshapen tensors .* down \(2, 48\).* is 32->32"),
    "ranks differ": ({f"unet.{LAYER}.lora_B.weight": torch.ones(32, 3)}, r"misshapen tensors .* up \(32, 3\)"),
    "convolution": ({f"unet.{LAYER}.lora_A.weight": torch.ones(2, 32, 1, 1)}, r"misshapen .* down \(2, 32, 1, 1\)"),
    "scalar": ({f"unet.{LAYER}.lora_A.weight": torch.tensor(1.0)}, r"misshapen tensors for .* down \(\)"),
    "DoRA": (
        {f"unet.{LAYER}.lora_magnitude_vector": torch.ones(32)},
        "no plain LoRA file: 1 of its 3 .*magnitude_vector",
    ),
    "twice": (tensors(layer=f"{LAYER}."), f"the layer {LAYER} twice"),
}


@pytest.mark.parametrize("problem", BAD)
def test_bad_tensors(sd15, tmp_path, problem):
    wrong, sentence = BAD[problem]
    path = written(tmp_path / "a.safetensors", {**tensors(), **wrong})
    with pytest.raises(ValueError, match=f"^a.safetensors .*{sentence}"):
        read_lora(path, sd15)


def test_half_a_pair_and_no_tensors(sd15, tmp_path):
    for missing, word in (("lora_A", "down"), ("lora_B", "up")):
        half = {key: tensor for key, tensor in tensors(alpha=1.0).items() if missing not in key}
        with pytest.raises(ValueError, match=f"only a part of unet.{LAYER}: its {word} matrix is missing"):
            read_lora(written(tmp_path / "a.safetensors", half), sd15)
    with pytest.raises(ValueError, match="no plain LoRA file: it is empty"):
        read_lora(written(tmp_path / "a.safetensors", {}), sd15)
    with pytest.raises(ValueError, match=r"misshapen tensors .* down \(0, 32\)"):
        read_lora(written(tmp_path / "a.safetensors", tensors(rank=0)), sd15)


@pytest.mark.parametrize(
    "header, sentence",
    [
        ("{", "is damaged"),
        ("[1]", "is damaged"),
        ('{"unet.lora_alpha": "much"}', "is damaged"),
        ('{"unet.lora_alpha": NaN}', r"is damaged \(an alpha is not finite"),
        ('{"unet.lora_alpha": 1, "unet.alpha_pattern": [1]}', "is damaged"),
        ('{"unet.lora_alpha": 1, "unet.alpha_pattern": {"(a+)+": 1}}', r"a pattern that is not read: \(a\+\)\+"),
    ],
)
def test_bad_headers(sd15, tmp_path, header, sentence):
    path = written(tmp_path / "a.safetensors", tensors(), {"lora_adapter_metadata": header})
    with pytest.raises(
        ValueError, match=f"lora_adapter_metadata in the header of a.safetensors .*{sentence}|{sentence}"
    ):
        read_lora(path, sd15)


def test_a_header_against_the_alpha_tensor(sd15, tmp_path):
    metadata = {"lora_adapter_metadata": '{"unet.lora_alpha": 2}'}
    path = written(tmp_path / "a.safetensors", tensors(alpha=1.0), metadata)
    with pytest.raises(ValueError, match="contradicts itself: its header and its alpha tensor"):
        read_lora(path, sd15)


def test_files_that_are_none(sd15, tmp_path):
    torch.save(tensors(), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"a\.safetensors cannot be read as safetensors"):
        read_lora(tmp_path / "a.safetensors", sd15)
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        read_lora(tmp_path, sd15)
    with pytest.raises(FileNotFoundError, match=r"There is no file .*b\.safetensors"):
        read_lora(tmp_path / "b.safetensors", sd15)
    data = written(tmp_path / "c.safetensors", tensors()).read_bytes()
    (tmp_path / "c.safetensors").write_bytes(data[:-5])
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        read_metadata(tmp_path / "c.safetensors")


def test_what_cannot_be_written(sd15, tmp_path):
    adapter, path = frozen(sd15), tmp_path / "a.safetensors"
    with pytest.raises(ValueError, match=r"must end in .safetensors, not 'a.pt'"):
        write_lora(adapter, tmp_path / "a.pt", component="unet")
    with pytest.raises(ValueError, match="component must be one of unet, transformer, not 'vae'"):
        write_lora(adapter, path, component="vae")
    with pytest.raises(ValueError, match="format must be one of diffusers, kohya, not 'comfy'"):
        write_lora(adapter, path, component="unet", format="comfy")
    with pytest.raises(ValueError, match="no common names for a transformer's layers: take the format 'diffusers'"):
        write_lora(adapter, path, component="transformer", format="kohya")
    with pytest.raises(ValueError, match=r"do not tell which it is: pass unet_config=pipe\.unet\.config"):
        write_lora(adapter, path, component="unet", format="kohya")
    with pytest.raises(ValueError, match="bake it first"):
        write_lora(attach(sd15, LilyConfig(r=4)), path, component="unet")
    like_sdxl = {**sd15.config, "addition_embed_type": "text_time", "down_block_types": ["KDownBlock2D"]}
    with pytest.raises(ValueError, match=r"No name of kohya's format is known for down_blocks\.0"):
        write_lora(adapter, path, component="unet", format="kohya", unet_config=like_sdxl)
    with torch.no_grad():
        adapter.lily_B[0].mul_(1e30)
    with pytest.raises(
        ValueError, match=r"\d+ tensors .* not finite in torch.float16, first unet.*lora_B.*not written"
    ):
        write_lora(adapter, path, component="unet", dtype=torch.float16)
    assert list(tmp_path.iterdir()) == []
