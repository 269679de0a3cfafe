"""README.md of a trained adapter, the training facts in its file, and the upload to the Hub."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..base_model import FOLDERS
from ..save_and_load import WEIGHT_NAME
from . import config_file, history, loss_plot

CARD_NAME = "README.md"
TAGS = ("text-to-image", "diffusers", "diffusers-training", "lily", "dreambooth")
NOT_UPLOADED = ("checkpoint-*/**", ".*", "first_batch.png")  # the last shows the pictures of training


def usage(base_model: str, source: str, prompt: str, max_sequence_length: int | None = None) -> str:
    """The lines that load the adapter and draw a picture with it, with as many tokens as it was trained with."""
    length = f", max_sequence_length={max_sequence_length}" if max_sequence_length else ""
    if base_model in FOLDERS:
        first, load = "from lily_diffusion.base_model import load_pipeline", f"load_pipeline({base_model!r})"
    else:
        first, load = "from diffusers import DiffusionPipeline", f"DiffusionPipeline.from_pretrained({base_model!r})"
    return "\n".join(
        [
            first,
            "from lily_diffusion import load_lily_weights",
            f"pipe = {load}",
            f"load_lily_weights(pipe, {source!r})",
            f'pipe(prompt={prompt!r}{length}).images[0].save("picture.png")',
        ]
    )


def write_model_card(
    folder: Path,
    *,
    title: str,
    base_model: str,
    trigger_words: Sequence[str],
    prompt: str,
    facts: Mapping[str, Any],
    source: str,
    sheet: Path | None,
    max_sequence_length: int | None = None,
) -> Path:
    """Write ``README.md`` with a header that the Hub reads; what else is in the folder is shown or named.

    Args:
        prompt: for the usage lines and the gallery.
        facts: name -> value, shown as a table, with the versions that are installed below them.
        source: what `load_lily_weights` is given in the usage lines.
        sheet: a validation picture inside `folder`.
        max_sequence_length: tokens of the large text encoder, where they are not the pipeline's own choice.
    """
    picture = sheet.relative_to(folder).as_posix() if sheet is not None else None
    text = [
        *_header(base_model, trigger_words, prompt, picture),
        "",
        f"# {title}",
        "",
        f"A [Lily](https://arxiv.org/abs/2407.09946) adapter for `{base_model}`, trained with lily_diffusion.",
        "",
        *(["<Gallery />", "", f"![without and with the adapter]({picture})", ""] if picture else []),
        "## Trigger words",
        "",
        *[f"- `{word}`" for word in trigger_words],
        "",
        "## Use it",
        "",
        "It needs the package lily_diffusion and is no LoRA: `load_lora_weights`, A1111 and ComfyUI do not read it. "
        "`lily-diffusion bake` makes a LoRA of it.",
        "",
        "```python",
        usage(base_model, source, prompt, max_sequence_length),
        "```",
        "",
        "## Training",
        "",
        *_losses(folder),
        *_table(facts),
        *_table(config_file.versions(), "version"),
        *_repeat(folder),
    ]
    path = folder / CARD_NAME
    temporary = folder / f".{CARD_NAME}.writing"
    temporary.write_text("\n".join(text), encoding="utf-8")
    os.replace(temporary, path)
    return path


def push_to_hub(folder: Path, repo_id: str | None, token: str | None, leave_out: Sequence[str] = ("logs",)) -> str:
    """Upload the folder without checkpoints; returns a sentence that says how it went, and never raises.

    Args:
        leave_out: folders inside it that stay here as well: logs, caches, the pictures of training.
    """
    from huggingface_hub import HfApi

    name = repo_id or folder.resolve().name
    ignore = [*NOT_UPLOADED, *(f"{inner}/**" for inner in leave_out)]
    try:
        api = HfApi(token=token)
        repo = api.create_repo(name, exist_ok=True).repo_id
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Lily adapter", ignore_patterns=ignore)
    except Exception as error:  # the training is done and saved: whatever the network does must not look like a failure
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return f"not uploaded ({reason}); all is saved in {folder}, upload it later with: hf upload {name} {folder}"
    return f"uploaded to https://huggingface.co/{repo} ({WEIGHT_NAME} and {CARD_NAME})"


def _header(base_model: str, trigger_words: Sequence[str], prompt: str, picture: str | None) -> list[str]:
    """The YAML between dashes that the Hub reads; a JSON string is a YAML string."""
    header = ["---", "library_name: diffusers", "pipeline_tag: text-to-image", "tags:", *(f"- {tag}" for tag in TAGS)]
    if base_model.count("/") == 1 and not os.path.exists(base_model):
        header += [f"base_model: {json.dumps(base_model)}", "base_model_relation: adapter"]
    if trigger_words:
        header.append(f"instance_prompt: {json.dumps(trigger_words[0], ensure_ascii=False)}")
    if picture:
        header += ["widget:", f"- text: {json.dumps(prompt, ensure_ascii=False)}", f"  output:\n    url: {picture}"]
    return [*header, "---"]


def _losses(folder: Path) -> list[str]:
    if not (folder / loss_plot.FILE_NAME).exists():
        return []
    lines = [f"![losses]({loss_plot.FILE_NAME})", ""]
    return (
        [*lines, f"The numbers are in `{history.FILE_NAME}`.", ""] if (folder / history.FILE_NAME).exists() else lines
    )


def _table(rows: Mapping[str, Any], heading: str = "") -> list[str]:
    shown = [f"| {name} | {value} |" for name, value in rows.items()]
    return [f"| | {heading} |", "|---|---|", *shown, ""]


def _repeat(folder: Path) -> list[str]:
    if not (folder / config_file.FILE_NAME).exists():
        return []
    flags = f"--config {config_file.FILE_NAME} --output_dir ANOTHER_FOLDER"
    command = f"accelerate launch train_scripts/train_dreambooth_lily.py {flags}"
    return [f"All settings are in `{config_file.FILE_NAME}`; to train it again:", "", "```bash", command, "```", ""]
