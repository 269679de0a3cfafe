"""README.md of a trained adapter, the training facts in its file, and the upload to the Hub."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..save_and_load import WEIGHT_NAME


def usage(base_model: str, source: str, prompt: str) -> str:
    """The lines that load the adapter and draw a picture with it."""
    if base_model == "embedded":
        first, load = "from lily_diffusion.base_model import load_pipeline", 'load_pipeline("embedded")'
    else:
        first, load = "from diffusers import DiffusionPipeline", f"DiffusionPipeline.from_pretrained({base_model!r})"
    return "\n".join(
        [
            first,
            "from lily_diffusion import load_lily_weights",
            f"pipe = {load}",
            f"load_lily_weights(pipe, {source!r})",
            f'pipe({prompt!r}).images[0].save("picture.png")',
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
) -> Path:
    """Write ``README.md`` with a header that the Hub reads.

    Args:
        prompt: for the usage lines and the gallery.
        facts: name -> value, shown as a table.
        source: what `load_lily_weights` is given in the usage lines.
        sheet: a validation picture inside `folder`.
    """
    picture = sheet.relative_to(folder).as_posix() if sheet is not None else None
    header = ["---", "library_name: diffusers", "pipeline_tag: text-to-image"]
    header += ["tags:", *(f"- {t}" for t in ("text-to-image", "diffusers", "diffusers-training", "lily", "dreambooth"))]
    if base_model.count("/") == 1 and not os.path.exists(base_model):
        header.append(f"base_model: {json.dumps(base_model)}")
    if trigger_words:
        header.append(f"instance_prompt: {json.dumps(trigger_words[0], ensure_ascii=False)}")
    if picture:
        header += ["widget:", f"- text: {json.dumps(prompt, ensure_ascii=False)}", f"  output:\n    url: {picture}"]
    text = [
        *header,
        "---",
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
        "```python",
        usage(base_model, source, prompt),
        "```",
        "",
        "## Training",
        "",
        "| | |",
        "|---|---|",
        *[f"| {name} | {value} |" for name, value in facts.items()],
        "",
    ]
    path = folder / "README.md"
    path.write_text("\n".join(text), encoding="utf-8")
    return path


def push_to_hub(folder: Path, repo_id: str | None, token: str | None) -> str:
    """Upload the folder, without checkpoints and logs; returns a sentence that says how it went, and never raises."""
    from huggingface_hub import HfApi

    name = repo_id or folder.resolve().name
    try:
        api = HfApi(token=token)
        repo = api.create_repo(name, exist_ok=True).repo_id
        ignore = ["checkpoint-*/**", ".checkpoint-*/**", "logs/**"]
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Lily adapter", ignore_patterns=ignore)
    except Exception as error:  # the training is done and saved: whatever the network does must not look like a failure
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return f"not uploaded ({reason}); all is saved in {folder}, upload it later with: hf upload {name} {folder}"
    return f"uploaded to https://huggingface.co/{repo} ({WEIGHT_NAME} and README.md)"
