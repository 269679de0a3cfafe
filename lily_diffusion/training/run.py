"""A run: everything that the loop needs, as `build` puts it together."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn

from ..adapter import LilyAdapter
from .checkpoints import Progress
from .ema import Ema
from .families import Family
from .held_out import HeldOut
from .history import History
from .prompts import Prompts
from .sources import Source
from .validation import Validation


class TrainedModel(nn.Module):
    """The frozen denoiser and the adapters that are trained, as one module for accelerate to prepare."""

    def __init__(self, denoiser: nn.Module, adapters: dict[str, LilyAdapter]):
        super().__init__()
        self.denoiser = denoiser
        self.adapters = nn.ModuleDict(adapters)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.denoiser(*args, **kwargs, return_dict=False)[0]


@dataclass
class Run:
    """What is trained, on what, and where it stands."""

    args: argparse.Namespace
    accelerator: Accelerator
    family: Family
    adapters: dict[str, LilyAdapter]  # by the pipeline's part that each is attached to; the denoiser's first
    trained: TrainedModel
    model: nn.Module  # `trained` as accelerate prepared it
    optimizer: Any
    lr_scheduler: Any
    ema: Ema | None
    instances: Source
    classes: Source | None
    prompts: Prompts  # every caption and validation prompt, and ""
    validation: Validation | None
    held_out: HeldOut | None
    validation_steps: int
    max_train_steps: int
    progress: Progress
    notes: list[str]
    resumed_from: Path | None = None  # a checkpoint
    history: History | None = None  # on the main process

    @property
    def output_dir(self) -> Path:
        return Path(self.args.output_dir)

    @property
    def adapter(self) -> LilyAdapter:
        """The denoiser's."""
        return next(iter(self.adapters.values()))

    @property
    def parameters(self) -> list[Tensor]:
        """Everything that is trained."""
        return list(self.trained.adapters.parameters())

    @property
    def weights(self) -> list[Tensor]:
        """Everything that a step changes in what may be saved: what is trained, and what averages are made of."""
        averages = self.ema.averages if self.ema is not None else []
        return [*self.parameters, *averages, *(s["z"] for s in self.optimizer.state.values() if "z" in s)]

    @property
    def samples_in_step(self) -> int:
        args = self.args
        return args.train_batch_size * args.gradient_accumulation_steps * self.accelerator.num_processes

    @property
    def checkpoint_parts(self) -> dict[str, Any]:
        parts = {
            "optimizer": self.optimizer,
            "lr_scheduler": self.lr_scheduler,
            "scaler": self.accelerator.scaler,
            "ema": self.ema,
        }
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def parts(self) -> dict[str, nn.Module]:
        """The models that carry the adapters, by the pipeline's names for them."""
        models = {"unet": self.family.denoiser, "transformer": self.family.denoiser, **self.family.text_encoders()}
        return {name: models[name] for name in self.adapters}
