"""Another adapter under the same name: the outputs of the other, in the tensors of the first, nothing compiled anew."""

import pytest
import torch

from lily_diffusion import (
    LilyConfig,
    attach,
    detach,
    enable_lily_hotswap,
    fuse_lily,
    get_adapter_weights,
    load_lily_weights,
    read_lily_header,
    save_lily_weights,
    set_adapters,
    unload_lily_weights,
)
from lily_diffusion.sharing import KINDS
from lily_diffusion.state import get_adapters

from .cases import Case
from .conftest import awaken
from .test_compile import count_programs

CONFIGS = {
    "same": {"r": 4, "stride_A": 2},
    "other rank": {"r": 8, "stride_A": 2},
    "other sharing": {"r": 2, "stride_A": 3},
    "other scaling": {"r": 4, "stride_A": 2, "scaling": 2.5},
    "fewer layers": {"r": 4, "stride_A": 2, "target_modules": ("to_q", "to_v")},
    "other experts": {"r": 4, "num_B": 3},
    "other routing": {"r": 4, "routing": "batch"},
    "too large": {"r": 9},
}


@pytest.fixture(params=["small unet", "dit"])
def swap(request, tmp_path):
    """A bare model, and (what it draws with it, file) for each of CONFIGS."""
    case = Case(request.param)
    detach(case.model)
    case.files = {}
    for seed, (name, more) in enumerate(CONFIGS.items()):
        awaken(attach(case.model, LilyConfig(**{"num_B": 2, "target_modules": KINDS, **more}), "x"), seed=seed)
        set_adapters(case.model, "x", 0.5)
        case.files[name] = (case.run(), save_lily_weights(case.model, tmp_path, weight_name=f"{seed}.safetensors"))
        detach(case.model)
    return case


@pytest.mark.parametrize("name", ["same", "other rank", "other sharing", "other scaling", "fewer layers"])
def test_swapped_outputs_are_the_others(swap, name):
    enable_lily_hotswap(swap.model, target_rank=8)
    load_lily_weights(swap.model, swap.files["same"][1], "x")
    set_adapters(swap.model, "x", 0.5)
    torch.testing.assert_close(swap.run(), swap.files["same"][0], rtol=1e-5, atol=1e-6)
    tensors = [id(p) for p in get_adapters(swap.model)["x"].parameters()]
    expected, file = swap.files[name]
    load_lily_weights(swap.model, file, "x", hotswap=True)
    torch.testing.assert_close(swap.run(), expected, rtol=1e-5, atol=1e-6)
    assert [id(p) for p in get_adapters(swap.model)["x"].parameters()] == tensors
    assert get_adapter_weights(swap.model) == {"x": 0.5}


def test_saved_as_it_was_loaded(swap, tmp_path):
    enable_lily_hotswap(swap.model, target_rank=8)
    load_lily_weights(swap.model, swap.files["same"][1], "x")
    file = swap.files["other sharing"][1]
    load_lily_weights(swap.model, file, "x", hotswap=True)
    again = save_lily_weights(swap.model, tmp_path / "again")
    assert read_lily_header(again).content_hash == read_lily_header(file).content_hash
    assert read_lily_header(again).config == read_lily_header(file).config


def test_what_was_changed_since_is_saved(swap, tmp_path):
    enable_lily_hotswap(swap.model, target_rank=8)
    load_lily_weights(swap.model, swap.files["same"][1], "x")
    with torch.no_grad():
        for B in get_adapters(swap.model)["x"].lily_B:
            B.mul_(2)
    changed = swap.run()
    path = save_lily_weights(swap.model, tmp_path / "again")
    unload_lily_weights(swap.model)
    load_lily_weights(swap.model, path, "y")
    torch.testing.assert_close(swap.run(), changed, rtol=1e-5, atol=1e-6)


def test_without_padding_the_same_structure_is_swapped(swap):
    load_lily_weights(swap.model, swap.files["same"][1], "x")
    set_adapters(swap.model, "x", 0.5)
    load_lily_weights(swap.model, swap.files["other scaling"][1], "x", hotswap=True)
    torch.testing.assert_close(swap.run(), swap.files["other scaling"][0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["other experts", "other routing", "too large"])
def test_what_does_not_fit_changes_nothing(swap, name):
    enable_lily_hotswap(swap.model, target_rank=8)
    load_lily_weights(swap.model, swap.files["same"][1], "x")
    before = swap.run()
    message = {
        "other experts": "num_B=3",
        "other routing": "routing='batch'",
        "too large": "rank 9 and there is room for 8",
    }
    with pytest.raises(ValueError, match=message[name]):
        load_lily_weights(swap.model, swap.files[name][1], "x", hotswap=True)
    assert torch.equal(swap.run(), before)


def test_bad_calls(swap):
    with pytest.raises(ValueError, match=r"no adapter named 'y'.*hotswap replaces"):
        load_lily_weights(swap.model, swap.files["same"][1], "y", hotswap=True)
    for rank in (0, True, 2.5):
        with pytest.raises(ValueError, match="target_rank must be"):
            enable_lily_hotswap(swap.model, rank)
    load_lily_weights(swap.model, swap.files["fewer layers"][1], "x")
    with pytest.raises(ValueError, match="before the first adapter, and 'x' is loaded"):
        enable_lily_hotswap(swap.model)
    with pytest.raises(ValueError, match=r"\d+ layers that the one in its place has not"):
        load_lily_weights(swap.model, swap.files["same"][1], "x", hotswap=True)
    unload_lily_weights(swap.model)
    load_lily_weights(swap.model, swap.files["same"][1], "x")
    with pytest.raises(ValueError, match="has other A for"):
        load_lily_weights(swap.model, swap.files["other sharing"][1], "x", hotswap=True)


def test_a_fused_adapter_is_not_swapped(sd15, tmp_path):
    awaken(attach(sd15, LilyConfig(r=4, routing="static"), "x"))
    file = save_lily_weights(sd15, tmp_path)
    fuse_lily(sd15)
    with pytest.raises(ValueError, match="'x' is fused into the weights"):
        load_lily_weights(sd15, file, "x", hotswap=True)


def test_nothing_is_compiled_anew(swap):
    enable_lily_hotswap(swap.model, target_rank=8)
    load_lily_weights(swap.model, swap.files["same"][1], "x")
    set_adapters(swap.model, "x", 0.5)
    compiled, made = count_programs(swap.model)
    for name in ("same", "other rank", "other sharing", "other scaling", "fewer layers", "same"):
        expected, file = swap.files[name]
        load_lily_weights(swap.model, file, "x", hotswap=True)
        with torch.no_grad():
            got = compiled(**swap.inputs, return_dict=False)[0]
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
        set_adapters(swap.model, "x", {"to_q": 0.1})
        with torch.no_grad():
            compiled(**swap.inputs, return_dict=False)
        set_adapters(swap.model, "x", 0.5)
    assert len(made) == 1
