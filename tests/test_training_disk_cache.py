"""The disk cache gives back what was made from exactly the same things, and makes everything else again."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from lily_diffusion.training import TrainingError, disk_cache
from lily_diffusion.training.dataset import Pictures, list_pictures
from lily_diffusion.training.disk_cache import DiskCache, latent_key, module_fingerprint, prompt_key

from .training_base import same

pytest_plugins = ("tests.training_base",)  # its fixtures: base

KEY = "ab" * 20


class Maker:
    """Makes tensors and counts how often."""

    def __init__(self, seed: int = 0):
        self.seed, self.calls = seed, 0

    def __call__(self) -> dict[str, torch.Tensor]:
        self.calls += 1
        generator = torch.Generator().manual_seed(self.seed)
        mean = torch.randn(4, 3, 2, generator=generator)
        return {
            "mean": mean.transpose(0, 2), "std": mean.bfloat16(), "mask": mean[0] > 0, "tokens": mean.argsort(0),
            "one": mean.sum(), "none": mean[:0],
        }  # fmt: skip


def test_a_hit_gives_identical_tensors_and_makes_nothing(tmp_path):
    make = Maker()
    first = DiskCache(tmp_path / "a" / "b").get(KEY, make)
    again = DiskCache(tmp_path / "a" / "b").get(KEY, make)
    assert make.calls == 1 and same(first, Maker()()) and same(again, first)
    assert [tensor.dtype for tensor in again.values()] != [torch.float32] * 6
    assert {name: t.dtype for name, t in again.items()} == {name: t.dtype for name, t in first.items()}
    files = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    assert files == [f"a/b/ab/{KEY}.safetensors"]


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "flipped bit":
        content = content[:-3] + bytes([content[-3] ^ 4]) + content[-2:]
    elif how == "cut":
        content = content[: len(content) // 2]
    elif how == "header":
        content = b"\xff" * 12 + content[12:]
    elif how == "foreign":
        from safetensors.torch import save

        content = save({"mean": torch.zeros(3)})
    else:
        content = how.encode()
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["flipped bit", "cut", "header", "foreign", "some text", ""])
def test_what_is_damaged_or_foreign_is_made_again_with_a_note(tmp_path, how):
    cache, make = DiskCache(tmp_path), Maker()
    cache.get(KEY, make)
    (path,) = tmp_path.rglob("*.safetensors")
    damage(path, how)
    assert same(cache.get(KEY, make), Maker()()) and make.calls == 2
    (note,) = cache.notes
    assert note.startswith(f"{path} is damaged and was made again (")
    assert same(cache.get(KEY, make), Maker()()) and make.calls == 2 and len(cache.notes) == 1


def test_a_renamed_file_is_not_taken_for_another(tmp_path):
    cache, other = DiskCache(tmp_path), "ab" + "cd" * 19
    cache.get(KEY, Maker(0)), cache.get(other, Maker(1))
    a, b = (tmp_path / "ab" / f"{key}.safetensors" for key in (KEY, other))
    a.replace(b)
    make = Maker(1)
    assert same(cache.get(other, make), Maker(1)()) and make.calls == 1
    assert "was written for something else" in cache.notes[0]


def test_what_cannot_be_written_is_made_and_noted(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(disk_cache, "save_file", full)
    cache, make = DiskCache(tmp_path), Maker()
    assert same(cache.get(KEY, make), Maker()()) and same(cache.get(KEY, make), Maker()()) and make.calls == 2
    assert "could not be written (No space left on device)" in cache.notes[0]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(TrainingError, match=r"--disk_cache_dir .*file.below cannot be made \(Not a directory\)"):
        DiskCache(tmp_path / "file" / "below")


def read_write_and_remove(folder: Path, part: int) -> None:
    cache = DiskCache(folder)
    for i in range(300):
        key = f"{i % 7:040d}"
        assert cache.get(key, lambda i=i: {"x": torch.full((20000,), i % 7)})["x"].eq(i % 7).all()
        if i % 3 == part:
            (folder / "00" / f"{key}.safetensors").unlink(missing_ok=True)
    assert not cache.notes, cache.notes


def test_processes_that_write_the_same_keys_never_see_half_a_file(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=read_write_and_remove, args=(tmp_path, part)) for part in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert not list(tmp_path.rglob("*.writing"))


def encoded(pictures: Pictures, fingerprint: str, cache: DiskCache) -> tuple[list[torch.Tensor], list[int]]:
    """What the cache holds for each picture, from a stand-in for an autoencoder, and which had to be made."""
    made, found = [], []
    for index in range(len(pictures)):
        pixels = pictures.pixels(index, (0.5, 0.5), False)
        make = lambda index=index, pixels=pixels: made.append(index) or {"mean": pixels * 2}  # noqa: E731
        found.append(cache.get(latent_key(fingerprint, pixels), make)["mean"])
    return found, made


def test_swapped_pictures_and_another_autoencoder_miss(tmp_path):
    for name, colour in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (16, 16), colour).save(tmp_path / name)
    cache = DiskCache(tmp_path / "cache")

    def run(fingerprint="one"):
        pictures = Pictures(list_pictures(tmp_path, "x").items, [(8, 8)])
        found, made = encoded(pictures, fingerprint, cache)
        assert all(torch.equal(found[i], pictures.pixels(i, (0, 0), False) * 2) for i in range(2))
        return made

    assert run() == [0, 1] and run() == []
    (tmp_path / "a.png").rename(tmp_path / "c.png")  # now the second: found by its content, not by its name
    assert run() == []
    Image.new("RGB", (16, 16), (255, 0, 1)).save(tmp_path / "c.png")
    assert run() == [1] and run("two") == [0, 1]


def test_latents_have_a_key_of_pixels_shape_and_type():
    pixels = torch.rand(3, 4, 8)
    keys = {
        latent_key("vae", p)
        for p in (pixels, pixels.flip(2), pixels.reshape(3, 8, 4), pixels.bfloat16(), pixels + 1e-6, -pixels)
    }
    assert len(keys) == 6 and latent_key("other", pixels) not in keys
    assert latent_key("vae", pixels.flip(2).flip(2)) in keys
    strided = pixels.transpose(1, 2).contiguous().transpose(1, 2)
    assert not strided.is_contiguous() and latent_key("vae", strided) in keys


def test_prompts_have_a_key_of_words_encoder_family_and_options():
    def key(text="fp", family="Flux", options=(("max_sequence_length", 256),), prompt="a dog"):
        return prompt_key(text, family, dict(options), prompt)

    others = [
        key(prompt="a cat"), key(prompt="a dog "), key(prompt=""), key(text="fq"), key(family="SD3"),
        key(options=[("max_sequence_length", 512)]), key(options=[("max_sequence_length", None)]), key(options=[]),
        key(family="Flu", text="fpx"), latent_key("fp", torch.zeros(1)),
    ]  # fmt: skip
    assert len({key(), *others}) == 11
    assert key(options=[("a", 1), ("b", 2)]) == key(options=[("b", 2), ("a", 1)])


def test_keys_are_the_same_in_every_process_and_on_every_machine(monkeypatch):
    monkeypatch.setattr(disk_cache, "MADE_WITH", ["1", "0.0.0", "0.0.0"])
    assert latent_key("vae", torch.arange(6.0).reshape(1, 2, 3)) == "a805a9e78a2dd7093706d05b65cc7447d4b07f99"
    assert prompt_key("text", "Flux", {"max_sequence_length": 256}, "dög") == "ad8c77cac316dc87d2e4b7a3d43848208e67217f"


def test_a_key_knows_which_versions_encoded(monkeypatch):
    before = prompt_key("fp", "Flux", {}, "a dog"), latent_key("fp", torch.zeros(1))
    monkeypatch.setattr(disk_cache, "MADE_WITH", ["1", "0.0.0", "0.0.0"])
    after = prompt_key("fp", "Flux", {}, "a dog"), latent_key("fp", torch.zeros(1))
    assert before[0] != after[0] and before[1] != after[1]


def test_a_fingerprint_covers_every_tensor_and_the_configuration(base):
    pipe, other = (StableDiffusionPipeline.from_pretrained(base) for _ in range(2))
    vae, first = pipe.vae, module_fingerprint(pipe.vae)
    assert module_fingerprint(other.vae) == first
    for tensor in [*vae.parameters(), *vae.buffers()]:
        kept = tensor.data.clone()
        raw = tensor.data.view(-1).view(torch.uint8)
        raw[-1] ^= 1  # one bit of the last number
        assert module_fingerprint(vae) != first
        tensor.data.copy_(kept)
    assert module_fingerprint(vae) == first
    vae.register_to_config(scaling_factor=0.5)
    assert module_fingerprint(vae) != first
    assert module_fingerprint(other.vae.half()) != first


def test_a_fingerprint_covers_tokenizers_and_tells_roles_apart(base):
    pipe, other = (StableDiffusionPipeline.from_pretrained(base) for _ in range(2))
    first = module_fingerprint(pipe.tokenizer)
    pipe.encode_prompt("a dog", "cpu", 1, True)  # a tokenizer remembers how it was called, which does not matter
    assert module_fingerprint(pipe.tokenizer) == first == module_fingerprint(other.tokenizer)
    other.tokenizer.add_tokens(["<sks>"])
    assert module_fingerprint(other.tokenizer) != first
    a, b = pipe.text_encoder, pipe.vae
    prints = [module_fingerprint(x) for x in ([a, b], [b, a], [a], [a, None], {"a": a, "b": b}, {"a": b, "b": a})]
    assert len({*prints, module_fingerprint(a)}) == 7
    assert module_fingerprint({"a": a, "b": b}.values()) == prints[0] == module_fingerprint((a, b))
