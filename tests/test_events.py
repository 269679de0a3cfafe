"""What users do after attaching: the adapter's effect is still exactly there, on a UNet and on a DiT."""

import copy
import pickle
import types

import diffusers
import pytest
import torch
from diffusers import FasterCacheConfig, FirstBlockCacheConfig, PyramidAttentionBroadcastConfig
from diffusers.models.attention_processor import AttnProcessor

from lily_diffusion import LilyConfig, attach, detach, load_lily_weights, save_lily_weights
from lily_diffusion.attention_processor import LilyAttnProcessor
from lily_diffusion.sharing import attention_modules, find_projections

from .cases import Case


@pytest.fixture(params=["unet", "dit"])
def case(request):
    return Case(request.param)


@pytest.fixture
def unet():
    return Case("unet")


@pytest.fixture
def dit():
    return Case("dit")


# ---------------------------------------------------------------- processors


def test_processors_set_one_for_all_and_by_name(case):
    plain = case.model.attn_processors
    assert not any(isinstance(p, LilyAttnProcessor) for p in plain.values())
    fresh = {name: type(p)() for name, p in plain.items()}
    case.model.set_attn_processor(fresh)
    case.still_there(exactly=True)
    assert all(case.model.attn_processors[name] is p for name, p in fresh.items())
    case.model.set_attn_processor(AttnProcessor() if case.kind == "unet" else type(next(iter(plain.values())))())
    case.still_there()
    for _, attention in attention_modules(case.model):
        attention.processor = type(attention.get_processor())()
    case.still_there()


@pytest.mark.parametrize("kind", ["unet", "pixart"])
def test_default_processor(kind):
    case = Case(kind)
    case.model.set_attn_processor(AttnProcessor())
    case.still_there()
    case.model.set_default_attn_processor()
    case.still_there()


def test_attention_slicing(unet):
    unet.model.set_attention_slice("max")
    unet.still_there()
    unet.model.set_attention_slice(None)
    unet.still_there()


@pytest.mark.parametrize("kind", ["unet", "sd3"])
def test_xformers(kind, monkeypatch):
    """The kernel needs a GPU: its call is answered by PyTorch's, everything around it is diffusers' own."""
    import diffusers.models.attention_processor as processors

    case = Case(kind)

    def attention(query, key, value, attn_bias=None, op=None, scale=None):
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_bias, scale=scale)

    ops = types.SimpleNamespace(memory_efficient_attention=attention)
    monkeypatch.setattr(processors, "xformers", types.SimpleNamespace(ops=ops))
    monkeypatch.setattr(processors, "is_xformers_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    randn = torch.randn
    monkeypatch.setattr(torch, "randn", lambda *size, device=None, **more: randn(*size, **more))
    case.model.enable_xformers_memory_efficient_attention()
    assert all("XFormers" in type(p).__name__ for p in case.model.attn_processors.values())
    case.still_there()
    if kind == "unet":  # of SD3, diffusers itself does not put the joint processor back
        case.model.disable_xformers_memory_efficient_attention()
        assert not any("XFormers" in type(p).__name__ for p in case.model.attn_processors.values())
        case.still_there()


def test_attention_backend_reaches_the_processor(dit, monkeypatch):
    registry = diffusers.models.attention_dispatch._AttentionBackendRegistry
    monkeypatch.setattr(registry, "_active_backend", registry._active_backend)  # the call sets it for all models
    dit.model.set_attention_backend("_native_math")
    dit.still_there()
    assert all(m.processor._attention_backend == "_native_math" for _, m in attention_modules(dit.model))
    detach(dit.model)
    assert all(m.processor._attention_backend == "_native_math" for _, m in attention_modules(dit.model))


def test_parallel_configuration_reaches_the_processor(dit):
    """Context parallelism is told to `module.processor`; it must be the object that attention dispatch reads."""
    marker = object()
    for _, attention in attention_modules(dit.model):
        attention.processor._parallel_config = marker
    assert all(p._parallel_config is marker for p in dit.model.attn_processors.values())
    detach(dit.model)
    assert all(m.processor._parallel_config is marker for _, m in attention_modules(dit.model))


def test_fused_projections(case):
    case.model.fuse_qkv_projections()
    case.still_there()
    detach(case.model)
    case.attach()
    case.still_there()
    case.model.unfuse_qkv_projections()
    case.still_there()


# ---------------------------------------------------------------- other adapters


def ip_adapter(case):
    """A random IP-Adapter for the model: (state dict, keyword arguments of the call)."""
    generator = torch.Generator().manual_seed(5)

    def random(*size):
        return torch.randn(*size, generator=generator)

    width = next(p.in_features for p in find_projections(case.model) if p.attribute == "to_k" and "attn2" in p.name) \
        if case.kind == "unet" else case.model.config.joint_attention_dim  # fmt: skip
    weights = {}
    if case.kind == "unet":
        names = list(case.model.attn_processors)
        crossing = [m for name, m in attention_modules(case.model) if f"{name}.processor" in names and "attn2" in name]
        order = {name: m for name, m in attention_modules(case.model)}
        ordered = [order[n.removesuffix(".processor")] for n in names if "attn2" in n]
        assert len(ordered) == len(crossing)
        for i, attention in enumerate(ordered):
            for kind in ("k", "v"):
                weights[f"{2 * i + 1}.to_{kind}_ip.weight"] = random(attention.inner_dim, width)
        more = {"added_cond_kwargs": {"image_embeds": [random(2, 1, 6)]}}
    else:
        for i in range(case.model.config.num_layers):
            for kind in ("k", "v"):
                weights[f"{i}.to_{kind}_ip.weight"] = random(case.model.inner_dim, width)
                weights[f"{i}.to_{kind}_ip.bias"] = random(case.model.inner_dim)
        more = {"joint_attention_kwargs": {"ip_adapter_image_embeds": [random(2, 1, 6)]}}
    image = {"proj.weight": random(4 * width, 6), "proj.bias": random(4 * width)}
    image |= {"norm.weight": torch.ones(width), "norm.bias": torch.zeros(width)}
    return {"image_proj": image, "ip_adapter": weights}, more


def test_ip_adapter_before_and_after(case):
    weights, more = ip_adapter(case)
    keys = [name for name, _ in attention_modules(case.model)]
    with_both = case.same_in_either_order(lambda model: model._load_ip_adapter_weights([weights]), **more)
    assert [name for name, _ in attention_modules(case.model)] == keys
    assert any(key.endswith("processor.to_k_ip.0.weight") for key in case.model.state_dict())
    for p in case.model.attn_processors.values():
        if hasattr(p, "scale"):
            p.scale = [0.0]
    assert not torch.allclose(case.run(**more), with_both, rtol=1e-2, atol=1e-3)


def test_peft_lora_before_and_after(case):
    from peft import LoraConfig

    def lora(model):
        torch.manual_seed(6)
        config = LoraConfig(r=2, target_modules=["to_q", "to_out.0", "ff.net.2"], init_lora_weights="gaussian")
        model.add_adapter(config, "lora")
        for name, p in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(p, std=0.3)

    case.same_in_either_order(lora)
    assert all(p.requires_grad for p in case.adapter.parameters())
    case.model.fuse_lora()
    case.model.unfuse_lora()
    case.model.disable_lora()
    case.still_there()
    case.model.unload_lora()
    case.still_there()


# ---------------------------------------------------------------- what pipelines switch on


def test_freeu(unet):
    unet.same_in_either_order(lambda model: model.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4))
    unet.model.disable_freeu()
    unet.still_there(exactly=True)


def test_gradient_checkpointing(case):
    def gradients():
        case.adapter.zero_grad()
        case.model(**case.inputs, return_dict=False)[0].square().mean().backward()
        return [p.grad.clone() for p in case.adapter.parameters()]

    case.model.requires_grad_(False)
    plain = gradients()
    case.model.enable_gradient_checkpointing()
    for a, b in zip(gradients(), plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_dtype(case):
    case.model.to(torch.bfloat16)
    half = {k: v.bfloat16() if v.is_floating_point() else v for k, v in case.inputs.items() if torch.is_tensor(v)}
    got = case.run(**half)
    assert got.dtype == torch.bfloat16
    assert (got.float() - case.adapted).abs().max() < 0.1 * case.adapted.abs().max()
    assert next(case.adapter.parameters()).dtype == torch.float32


def test_layerwise_casting(case):
    case.same_in_either_order(
        lambda model: model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    )


def test_offload_by_accelerate(case, tmp_path):
    from accelerate import cpu_offload

    cpu_offload(case.model, execution_device=torch.device("cpu"))
    assert next(case.model.parameters()).device.type == "meta"
    case.still_there(exactly=True)
    path = save_lily_weights(case.model, tmp_path)
    detach(case.model)
    load_lily_weights(case.model, path)
    case.still_there(exactly=True)
    attach(case.model, LilyConfig(r=4), "fresh")
    case.still_there(exactly=True)


def test_model_offload(case):
    from accelerate import cpu_offload_with_hook

    cpu_offload_with_hook(case.model, execution_device=torch.device("cpu"))
    case.still_there(exactly=True)


@pytest.mark.parametrize("how", ["leaf_level", "block_level"])
def test_group_offload(case, how, tmp_path):
    blocks = {"num_blocks_per_group": 1} if how == "block_level" else {}
    case.model.enable_group_offload(onload_device=torch.device("cpu"), offload_type=how, **blocks)
    case.still_there(exactly=True)


def test_copies(case):
    for other in (copy.deepcopy(case.model), pickle.loads(pickle.dumps(case.model))):
        with torch.no_grad():
            assert torch.equal(other(**case.inputs, return_dict=False)[0], case.adapted)
            detach(other)
            assert torch.equal(other(**case.inputs, return_dict=False)[0], case.base)
    case.still_there(exactly=True)


def test_base_is_saved_without_the_adapter(case, tmp_path):
    case.model.save_pretrained(tmp_path)
    again = type(case.model).from_pretrained(tmp_path)
    assert list(again.state_dict()) == list(case.model.state_dict())
    with torch.no_grad():
        assert torch.equal(again(**case.inputs, return_dict=False)[0], case.base)
    case.still_there(exactly=True)


@pytest.mark.parametrize(
    "config",
    [
        FirstBlockCacheConfig(threshold=0.0),
        PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=2,
            spatial_attention_timestep_skip_range=(0, 1),
            current_timestep_callback=lambda: 500,
            spatial_attention_block_identifiers=("transformer_blocks",),
        ),
        FasterCacheConfig(
            spatial_attention_block_skip_range=2,
            spatial_attention_timestep_skip_range=(0, 1),
            current_timestep_callback=lambda: 500,
            spatial_attention_block_identifiers=("transformer_blocks",),
            tensor_format="BCHW",
        ),
    ],
    ids=lambda config: type(config).__name__,
)
def test_caches(dit, config):
    """With nothing skipped, a cached model draws what it drew; the cache's hooks call the adapted attention."""
    dit.model.enable_cache(config)
    with dit.model.cache_context("cond"):
        dit.still_there(exactly=True)
    dit.model.disable_cache()
    dit.still_there(exactly=True)
