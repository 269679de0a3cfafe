"""Lily adapters for diffusers (Low-Rank Interconnected Adaptation across Layers, arXiv 2407.09946)."""

from .adapter import LilyAdapter
from .attach import attach, detach, refresh
from .attention_processor import LilyAttnProcessor
from .baking import Baked, bake_lily
from .config import LilyConfig
from .loaders import check_compatible, enable_lily_hotswap, lily_state_dict, load_lily_weights, save_lily_weights
from .save_and_load import WEIGHT_NAME, LilyHeader, read_lily_header
from .sharing import Group, group_table
from .switches import (
    delete_adapters,
    disable_lily,
    enable_lily,
    fuse_lily,
    get_active_adapters,
    get_adapter_weights,
    get_fused_adapters,
    get_list_adapters,
    set_adapters,
    unfuse_lily,
    unload_lily_weights,
)

__version__ = "0.1.0"
__all__ = [
    "WEIGHT_NAME",
    "Baked",
    "Group",
    "LilyAdapter",
    "LilyAttnProcessor",
    "LilyConfig",
    "LilyHeader",
    "attach",
    "bake_lily",
    "check_compatible",
    "delete_adapters",
    "detach",
    "disable_lily",
    "enable_lily",
    "enable_lily_hotswap",
    "fuse_lily",
    "get_active_adapters",
    "get_adapter_weights",
    "get_fused_adapters",
    "get_list_adapters",
    "group_table",
    "lily_state_dict",
    "load_lily_weights",
    "read_lily_header",
    "refresh",
    "save_lily_weights",
    "set_adapters",
    "unfuse_lily",
    "unload_lily_weights",
]
