"""``--dry_run``: everything up to the first step, and what it would need, without training."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from ..grid import contact_sheet
from . import reports
from .draws import micro_batch_positions
from .main_process import on_main_process
from .objective import batch_loss
from .run import Run
from .sources import Source

PICTURE_NAME = "first_batch.png"
MEBIBYTE = 2**20


def dry_run(run: Run) -> tuple[float, str]:
    """Compute the loss of the first batch, draw the batch, and say what training needs; nothing is trained or saved.

    Returns:
        The loss, and the report: the block that opens a run, the first loss, the memory, where the picture is.
    """
    started, saved = time.monotonic(), SavedTensors(run.trained)
    run.model.train()
    run.family.denoiser.eval()
    with saved:
        loss = batch_loss(run, 0)
        run.accelerator.backward(loss)
    seconds = time.monotonic() - started
    run.optimizer.zero_grad()
    path = on_main_process(run.accelerator, lambda: draw_first_batch(run))
    sizes = memory(run, saved.bytes)
    lines = [reports.opening(run), f"  First batch   loss {loss.item():.4f}, {seconds:.1f} s, picture {path}"]
    lines += ["  Memory        an estimate for this batch:"]
    lines += [f"    {name:<42}{size / MEBIBYTE:>10,.1f} MB" for name, size in sizes.items()]
    lines += [f"    {'together':<42}{sum(sizes.values()) / MEBIBYTE:>10,.1f} MB", "  A dry run: nothing was trained."]
    return loss.item(), "\n".join(lines)


class SavedTensors(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes that autograd keeps for the backward pass, each storage once, weights left out."""

    def __init__(self, model: nn.Module):
        self.bytes = 0
        self._seen = {part.untyped_storage().data_ptr() for tensor in model.parameters() for part in parts_of(tensor)}
        super().__init__(self._keep, lambda tensor: tensor)

    def _keep(self, tensor: Tensor) -> Tensor:
        for storage in (part.untyped_storage() for part in parts_of(tensor)):
            if storage.data_ptr() not in self._seen:
                self._seen.add(storage.data_ptr())
                self.bytes += storage.nbytes()
        return tensor


def parts_of(tensor: Tensor) -> list[Tensor]:
    """The tensors that hold a tensor's memory: itself, or those that a quantised one is made of."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    return [part for name in tensor.__tensor_flatten__()[0] for part in parts_of(getattr(tensor, name))]


def memory(run: Run, activations: int) -> dict[str, int]:
    """What training keeps, in bytes, by name."""
    trained = sum(p.numel() * p.element_size() for p in run.parameters)
    beside = [run.family.pipe.vae, *run.family.text_encoders().values()]
    return {
        "base model": _bytes(run.family.denoiser),
        "autoencoder and text encoders": sum(_bytes(part) for part in beside if part is not None),
        "adapter and its gradients": 2 * trained,
        "optimizer, two numbers for each parameter": 2 * trained,
        "activations kept for the backward pass": activations,
    }


def draw_first_batch(run: Run) -> Path:
    """``first_batch.png``: the pictures of the first step as the model meets them; what masks hide is dark."""
    positions = micro_batch_positions(run.progress.samples_seen, 0, run.args.train_batch_size, 0, 1)
    sources = [source for source in (run.instances, run.classes) if source is not None]
    shown = [_shown(source, position) for source in sources for position in positions]
    size = (max(picture.width for picture, _ in shown), max(picture.height for picture, _ in shown))
    pictures = [ImageOps.pad(picture, size, color="white") for picture, _ in shown]
    sheet = contact_sheet(pictures, [caption for _, caption in shown], columns=min(4, len(shown)))
    path, temporary = run.output_dir / PICTURE_NAME, run.output_dir / f".{PICTURE_NAME}.writing.png"
    sheet.save(temporary)
    os.replace(temporary, path)
    return path


def _shown(source: Source, position: int) -> tuple[Image.Image, str]:
    draw = source.draws[position]
    place: Any = (draw.index, draw.crop, draw.flip)
    pixels = source.pictures.pixels(*place) / 2 + 0.5
    if source.pictures.has_masks:
        pixels = pixels * (0.25 + 0.75 * source.pictures.mask(*place))
    picture = Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).numpy())
    return picture, "(no caption)" if draw.drop_caption else source.pictures.caption(draw.index)


def _bytes(model: nn.Module) -> int:
    tensors = [part for tensor in model.state_dict().values() for part in parts_of(tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
