"""How kohya's scripts name the layers of a UNet.

For Stable Diffusion 1.x and 2.x these are diffusers' names with underscores. SDXL's are those of the original code
(SGM), whose blocks are counted through: ``down_blocks.1.attentions.0`` is ``input_blocks.4.1`` there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..sharing import Group

PREFIX = "lora_unet_"
LAYOUT = {  # block types whose place in the original code is known
    "down_block_types": {"DownBlock2D", "CrossAttnDownBlock2D"},
    "up_block_types": {"UpBlock2D", "CrossAttnUpBlock2D"},
}
SD_TEXT_WIDTHS = (768, 1024)  # of Stable Diffusion 1.x and 2.x; no SDXL has them


def kohya_name(layer: str, unet_config: Mapping[str, Any]) -> str:
    """The name that kohya, A1111, Forge and ComfyUI give a UNet's layer, ``lora_unet_`` included.

    Raises:
        ValueError: the UNet is like SDXL, and the original code has no name for the layer.
    """
    name = sgm_name(layer, unet_config) if is_sdxl(unet_config) else layer
    if name is None:
        raise ValueError(f"No name of kohya's format is known for {layer}: only SDXL's own attention blocks have some.")
    return PREFIX + name.replace(".", "_")


def kohya_text_name(layer: str, component: str, unet_config: Mapping[str, Any]) -> str:
    """The name that they give a layer of "text_encoder" or "text_encoder_2", which is a CLIP."""
    first = "lora_te1_" if is_sdxl(unet_config) else "lora_te_"
    prefix = first if component == "text_encoder" else "lora_te2_"
    return prefix + f"text_model.{layer.removeprefix('text_model.')}".replace(".", "_")


def kohya_names(layer: str, unet_config: Mapping[str, Any]) -> list[str]:
    """Every name that a file may use for the layer: diffusers' blocks, and the original ones of SDXL."""
    names = [layer, sgm_name(layer, unet_config) if is_sdxl(unet_config) else None]
    return [PREFIX + name.replace(".", "_") for name in names if name is not None]


def is_sdxl(unet_config: Mapping[str, Any]) -> bool:
    """Whether the UNet is conditioned on sizes as SDXL is; its files then have the original names."""
    return unet_config.get("addition_embed_type") == "text_time"


def sgm_name(layer: str, unet_config: Mapping[str, Any]) -> str | None:
    """The layer's name in the original code; None where that has no such layer.

    There, input block 0 is the first convolution, a down block of n layers takes n blocks and one for its downsampler,
    and an up block takes n + 1, the last of which holds the upsampler too. Attention is part 1 of its block.
    """
    match = re.fullmatch(r"(?:(down_blocks|up_blocks)\.(\d+)|mid_block)\.attentions\.(\d+)\.(.+)", layer)
    if match is None or any(not set(unet_config[key]) <= known for key, known in LAYOUT.items()):
        return None
    side, block, place, rest = match.groups()
    if side is None:
        return f"middle_block.{1 + 2 * int(place)}.{rest}"
    per_block, count = unet_config["layers_per_block"], len(unet_config["down_block_types"])
    sizes = [per_block] * count if isinstance(per_block, int) else list(per_block)
    if side == "up_blocks":
        sizes.reverse()
    before = sum(n + 1 for n in sizes[: int(block)]) + int(place)
    return f"output_blocks.{before}.1.{rest}" if side == "up_blocks" else f"input_blocks.{1 + before}.1.{rest}"


def sd_config(groups: Iterable[Group]) -> dict[str, Any]:
    """What the adapted layers alone can tell of a UNet: that it is Stable Diffusion 1.x or 2.x, by its text width.

    Raises:
        ValueError: it may be another one.
    """
    text = ("attn2.to_k", "attn2.to_v")
    widths = {g.in_features for g in groups if any(layer.endswith(text) for layer in g.layers)}
    if len(widths) != 1 or not widths <= set(SD_TEXT_WIDTHS):
        raise ValueError(
            "The names of kohya's format depend on the UNet, and the adapter's layers do not tell which it is: "
            "pass unet_config=pipe.unet.config."
        )
    return {"addition_embed_type": None, "cross_attention_dim": widths.pop()}
