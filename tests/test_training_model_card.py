"""README.md of a run folder: a header that the Hub reads, lines that run, and whatever else is in the folder."""

from __future__ import annotations

import ast

import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.utils import filter_repo_objects

from lily_diffusion import base_model
from lily_diffusion.training.model_card import push_to_hub, usage, write_model_card

FACTS = {"steps": 300, "rank": 32}


def card(folder, **given) -> str:
    values = {
        "title": "robot: a Lily adapter", "base_model": "someone/model", "trigger_words": ("a sks robot",),
        "prompt": 'a "sks" robot: on blue', "facts": FACTS, "source": "me/robot", "sheet": None, **given,
    }  # fmt: skip
    return write_model_card(folder, **values).read_text(encoding="utf-8")


def test_the_hub_reads_base_model_trigger_words_tags_and_gallery(tmp_path):
    (tmp_path / "samples").mkdir()
    data = ModelCard(card(tmp_path, sheet=tmp_path / "samples" / "step-300.png")).data.to_dict()
    assert data["base_model"] == "someone/model" and data["base_model_relation"] == "adapter"
    assert data["instance_prompt"] == "a sks robot" and data["library_name"] == "diffusers"
    assert {"text-to-image", "diffusers", "lily"} <= set(data["tags"])
    assert data["widget"] == [{"text": 'a "sks" robot: on blue', "output": {"url": "samples/step-300.png"}}]


@pytest.mark.parametrize("name", ["embedded", "folder/model"])
def test_a_base_model_that_is_not_on_the_hub_is_not_linked(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder" / "model").mkdir(parents=True)
    assert ModelCard(card(tmp_path, base_model=name)).data.base_model is None


def test_pictures_numbers_and_settings_are_shown_when_they_are_there(tmp_path):
    bare = card(tmp_path)
    assert "![" not in bare and "run.yaml" not in bare and "loss" not in bare
    for name in ("loss.png", "loss.csv", "run.yaml"):
        (tmp_path / name).touch()
    full = card(tmp_path, sheet=tmp_path / "samples" / "step-4.png")
    assert "![losses](loss.png)" in full and "`loss.csv`" in full
    assert "![without and with the adapter](samples/step-4.png)" in full
    assert "--config run.yaml --output_dir ANOTHER_FOLDER" in full


def test_settings_and_versions_are_in_tables(tmp_path):
    text = card(tmp_path)
    assert "| steps | 300 |" in text and "| rank | 32 |" in text
    assert f"| torch | {torch.__version__} |" in text and "| lily_diffusion | " in text and "| python | 3." in text
    assert [p.name for p in tmp_path.iterdir()] == ["README.md"]


@pytest.mark.parametrize("base", ["embedded", "someone/model"])
def test_the_lines_that_use_it_say_prompt_by_name_and_are_python(base):
    code = ast.parse(usage(base, "me/robot", 'it\'s a "sks" robot'))
    calls = [node for node in ast.walk(code) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    (pipe,) = [call for call in calls if call.func.id == "pipe"]
    assert not pipe.args and [keyword.arg for keyword in pipe.keywords] == ["prompt"]
    assert ast.literal_eval(pipe.keywords[0].value) == 'it\'s a "sks" robot'
    assert ("embedded" in usage(base, "a", "b")) == (base == "embedded")


def test_the_lines_that_use_it_run(tmp_path, monkeypatch):
    from lily_diffusion import LilyConfig, attach, save_lily_weights

    pipe = base_model.load_pipeline("embedded")
    attach(pipe.unet, LilyConfig(r=2))
    save_lily_weights(pipe, tmp_path / "it")
    monkeypatch.chdir(tmp_path)
    lines = usage("embedded", "it", "a robot").replace("prompt=", "num_inference_steps=1, prompt=")
    exec(compile(lines, "card", "exec"), {})
    assert (tmp_path / "picture.png").exists()


def test_what_is_uploaded_is_for_others_and_what_is_not_stays(tmp_path, monkeypatch):
    import types

    import huggingface_hub

    seen = {}

    class Hub:
        def __init__(self, token=None): ...

        def create_repo(self, name, exist_ok):
            return types.SimpleNamespace(repo_id=f"me/{name}")

        def upload_folder(self, **kwargs):
            seen.update(kwargs)

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    assert "uploaded to https://huggingface.co/me/it" in push_to_hub(tmp_path, "it", None, ["logs", "cache/latents"])
    public = [
        "README.md", "loss.png", "loss.csv", "run.yaml", "samples/step-4.png", "pytorch_lily_weights.safetensors",
    ]  # fmt: skip
    private = [
        "checkpoint-4/optimizer.pt", ".checkpoint-6.writing/optimizer.pt", ".loss.csv.writing", "first_batch.png",
        "logs/wandb/run.log", "logs/events", "cache/latents/ab/cd.safetensors",
    ]  # fmt: skip
    kept = filter_repo_objects([*public, *private], ignore_patterns=seen["ignore_patterns"])
    assert list(kept) == public
