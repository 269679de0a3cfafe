"""What an adapter is made of, checked when it is made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from .functional import ROUTINGS


@dataclass(frozen=True)
class LilyConfig:
    """Shape and behaviour of a Lily adapter, with PEFT's names.

    Args:
        r: inner width; two to four times the rank that you would give LoRA.
        stride_A: so many neighbouring layers share one A (the paper's ne_1 is the number of As instead).
        num_A: the other way to say it: As in each group, spread evenly over its layers. Replaces `stride_A`.
        num_B: experts in each group, shared by all of its layers (the paper's ne_2); 1 only with "static" routing.
        scaling: the update is multiplied by it as it is, no alpha / r (the authors' lily_s).
        target_modules: layers to adapt: "attention", "feed-forward", an attribute of the attention module ("to_q",
            "to_out.0"), the end of any linear layer's name ("attn2.to_k", "ff.net.2") or a full name. None is
            "attention": every attention projection.
        routing: "sample" (default), "batch", "token" or "static"; see `functional.route`.
        dropout: probability with which an input feature is dropped in training, in [0, 1).

    Raises:
        ValueError: a value is out of range.
    """

    r: int = 32
    stride_A: int = 4
    num_A: int | None = None
    num_B: int = 4
    scaling: float = 1.0
    target_modules: tuple[str, ...] | None = None
    routing: str = "sample"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (("r", 1), ("stride_A", 1), ("num_A", 1), ("num_B", 1)):
            value = getattr(self, name)
            if name == "num_A" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}.")
        for name, most in (("scaling", math.inf), ("dropout", 1.0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number, not {value!r}.")
            if name == "dropout" and not 0 <= value < most:
                raise ValueError(f"dropout must be at least 0 and below 1, not {value!r}.")
        if self.routing not in ROUTINGS:
            raise ValueError(f"routing must be one of {', '.join(ROUTINGS)}, not {self.routing!r}.")
        if self.num_B == 1 and self.routing != "static":
            raise ValueError(
                "With num_B=1 a router has nothing to choose from: take num_B of at least 2, or routing='static'."
            )
        object.__setattr__(self, "target_modules", _names(self.target_modules))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LilyConfig:
        """The inverse of `to_dict`; a key that is not an argument is an error."""
        unknown = sorted(values.keys() - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(f"LilyConfig has no {', '.join(unknown)}; it may come from a newer version.")
        return cls(**values)


def _names(target_modules: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """Names without repetition, in the order given; "attention" alone is None."""
    if target_modules is None:
        return None
    names = (target_modules,) if isinstance(target_modules, str) else tuple(target_modules)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ValueError(
            "target_modules must name at least one layer, such as to_q; None adapts every attention projection."
        )
    names = tuple(dict.fromkeys(names))
    return None if names == ("attention",) else names
