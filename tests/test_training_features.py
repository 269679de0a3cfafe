"""What flags add to training: each test fails if its flag does nothing."""

from __future__ import annotations

import functools

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from lily_diffusion import detach, load_lily_weights, read_lily_header, save_lily_weights
from lily_diffusion.training import parse_args, train
from lily_diffusion.training.build import build
from lily_diffusion.training.checks import complete
from lily_diffusion.training.draws import generator_for
from lily_diffusion.training.families import Family
from lily_diffusion.training.losses import denoising_loss
from lily_diffusion.training.objective import adapters_off, batch_loss, conditions, sample_losses
from lily_diffusion.training.saving import save_weights

from .training_base import arguments, base, pictures, same, weights  # noqa: F401

CLASS_PROMPT = "a robot"


@pytest.fixture
def run(arguments):  # noqa: F811
    """A function that builds a run from flags, without training it."""
    return lambda output="out", **flags: build(complete(arguments(output, **flags)))


def stir(built) -> None:
    """Give fresh adapters something to say."""
    torch.manual_seed(7)
    with torch.no_grad():
        for adapter in built.adapters.values():
            for B in adapter.lily_B:
                B.normal_(std=0.3)


def answers(built, samples, captions):
    """The denoiser's answers for samples under other captions."""
    noisy, _, _ = built.family.noised(*(torch.stack([getattr(s, name) for s in samples]) for name in NOISED))
    timesteps = torch.stack([s.timestep for s in samples])
    return built.family.ask(built.trained, noisy, timesteps, conditions(built, captions))


NOISED = ("latents", "noise", "timestep")


def test_dropped_captions_are_trained_as_the_empty_prompt(run, tmp_path):
    prior = {"with_prior_preservation": True, "class_data_dir": tmp_path / "class", "class_prompt": CLASS_PROMPT}
    dropping = run(caption_dropout=0.4, num_class_images=2, cache_latents=True, **prior)
    captions = [sample.caption for sample in dropping.instances.samples(range(300))]
    assert captions.count("") == pytest.approx(120, abs=30)
    assert "" not in [sample.caption for sample in dropping.classes.samples(range(50))]
    dropped = captions.index("")
    (sample,) = dropping.instances.samples([dropped])
    (kept,) = run("plain", cache_latents=True).instances.samples([dropped])
    assert kept.caption and torch.equal(kept.noise, sample.noise) and torch.equal(kept.latents, sample.latents)
    assert not torch.equal(sample_losses(dropping, [sample]), sample_losses(dropping, [kept]))


def test_class_pictures_are_drawn_in_the_precision_that_is_asked_for(run, tmp_path):
    flags = {"with_prior_preservation": True, "class_prompt": CLASS_PROMPT, "num_class_images": 1}
    for name, more in {
        "exact": {}, "half": {"mixed_precision": "bf16"},
        "asked": {"mixed_precision": "bf16", "prior_generation_precision": "fp32"},
    }.items():  # fmt: skip
        run(name, class_data_dir=tmp_path / f"class {name}", **flags, **more)
    exact, half, asked = ((tmp_path / f"class {n}" / "0000.png").read_bytes() for n in ("exact", "half", "asked"))
    assert asked == exact != half


def test_a_noise_offset_shifts_whole_channels(run):
    plain, shifted = run("a", cache_latents=True), run("b", cache_latents=True, noise_offset=0.5)
    pairs = zip(plain.instances.samples(range(200)), shifted.instances.samples(range(200)), strict=True)
    shifts = torch.stack([b.noise - a.noise for a, b in pairs])
    assert shifts.flatten(2).std(2).max() < 1e-6  # one number for each channel of each sample
    assert shifts[:, :, 0, 0].std().item() == pytest.approx(0.5, rel=0.1)


def test_the_loss_looks_where_the_mask_is_white(run, pictures, tmp_path):  # noqa: F811
    masks = tmp_path / "masks"
    masks.mkdir()
    half = Image.new("L", (16, 16), 0)
    half.paste(255, (0, 0, 8, 16))
    for name in ("blue", "green", "red"):
        half.save(masks / f"{name}.png")
    flags = {"cache_latents": True, "mask_data_dir": masks}
    plain, masked = run("plain", cache_latents=True), run("masked", **flags)
    samples = masked.instances.samples([0, 1])
    assert samples[0].mask[0, :, :4].min() == 1 and samples[0].mask[0, :, 4:].max() == 0  # 8x8 latents
    _, target, _ = masked.family.noised(*(torch.stack([getattr(s, name) for s in samples]) for name in NOISED))
    answer = answers(masked, samples, [sample.caption for sample in samples])
    expected = denoising_loss(answer[..., :4], target[..., :4]).mean()
    assert batch_loss(masked, 0).item() == pytest.approx(expected.item(), rel=1e-5)
    everywhere = run("everywhere", unmasked_weight=1.0, **flags)
    assert batch_loss(everywhere, 0).item() == pytest.approx(batch_loss(plain, 0).item(), rel=1e-5)
    assert batch_loss(plain, 0).item() != pytest.approx(expected.item(), rel=1e-3)


def test_transparency_is_a_mask(run, pictures):  # noqa: F811
    picture = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    picture.paste((0, 255, 0, 255), (0, 0, 16, 8))
    picture.save(pictures / "red.png")
    built = run(alpha_mask=True, center_crop=True)
    seen = {sample.caption: sample.mask for sample in built.instances.samples(range(3))}
    upper = seen["a sks robot on a red background"]
    assert upper[0, :4].min() == 1 and upper[0, 4:].max() == 0
    assert seen["a sks robot on a blue background"].min() == 1


def test_buckets_keep_every_picture_and_fill_batches_with_one_shape(run, arguments, pictures):  # noqa: F811
    for i in range(5):
        Image.new("RGB", (32, 16), (40 * i, 0, 0)).save(pictures / f"wide{i}.png")
        Image.new("RGB", (16, 32), (0, 40 * i, 0)).save(pictures / f"tall{i}.png")
    flags = {"use_aspect_ratio_buckets": True, "instance_prompt": "a sks robot", "resolution": 32}
    built = run(**flags, cache_latents=True, train_batch_size=2)
    edges = {built.instances.pictures.edges(i) for i in range(13)}
    assert len(edges) == 3 and (32, 32) in edges
    drawn = [built.instances.draws[position] for position in range(26)]
    for start in (0, 13):
        assert sorted(draw.index for draw in drawn[start : start + 13]) == list(range(13))
    shapes = [tuple(draw.noise.shape) for draw in drawn]
    mixed = [pair for pair in zip(shapes[::2], shapes[1::2], strict=True) if pair[0] != pair[1]]
    assert len(mixed) <= 4  # of 13 batches; three shapes of odd counts leave some over
    samples = [next(s for s in built.instances.samples(range(26)) if s.latents.shape == shape) for shape in set(shapes)]
    assert len(samples) == 3
    batch = [sample_losses(built, [sample]) for sample in samples]
    built.instances.samples = lambda positions: samples
    built.args.train_batch_size = 3
    assert batch_loss(built, 0).item() == pytest.approx(torch.cat(batch).mean().item(), rel=1e-5)
    assert train(arguments("trained", **flags)).steps == 4


def test_the_average_is_saved_and_the_checkpoint_goes_on_with_the_weights(arguments):  # noqa: F811
    plain = train(arguments("plain"))
    averaged = train(arguments("averaged", use_ema=True, ema_decay=0.9, checkpointing_steps=4))
    assert averaged.losses == plain.losses
    assert not same(weights(plain.output_dir), weights(averaged.output_dir))
    assert same(weights(plain.output_dir), weights(averaged.output_dir / "checkpoint-4"))
    between = [train(arguments(f"until {n}", max_train_steps=n)).output_dir for n in (1, 2, 3, 4)]
    tensors = [weights(folder) for folder in between]
    key = next(key for key in tensors[0] if "lily_B" in key)
    mean = tensors[0][key]
    for update, later in enumerate(tensors[1:], start=2):
        mean = torch.lerp(mean, later[key], 1 - min(0.9, update / (update + 9)))
    assert torch.allclose(weights(averaged.output_dir)[key], mean, atol=1e-7)


def test_what_is_on_disk_is_not_encoded_again(arguments, tmp_path, monkeypatch):  # noqa: F811
    flags = {"cache_latents": True, "disk_cache_dir": tmp_path / "cache"}
    plain = train(arguments("plain", cache_latents=True))
    train(arguments("first", **flags))

    def never(*_):
        raise AssertionError("encoded again")

    with monkeypatch.context() as patched:
        patched.setattr(Family, "posterior", never)
        patched.setattr(Family, "encode_prompts", never)
        again = train(arguments("again", **flags))
    assert same(weights(plain.output_dir), weights(again.output_dir))
    with pytest.raises(AssertionError, match="encoded again"), monkeypatch.context() as patched:
        patched.setattr(Family, "encode_prompts", never)
        train(arguments("other", **{**flags, "instance_prompt": "x", "validation_prompt": "a new one"}))


def test_output_preservation_holds_the_adapter_to_the_base_on_the_class(run, arguments):  # noqa: F811
    flags = {"with_output_preservation": True, "class_prompt": CLASS_PROMPT, "cache_latents": True}
    plain = run("plain", cache_latents=True)
    built = run("kept", output_preservation_weight=3.0, **flags)
    assert batch_loss(built, 0).item() == pytest.approx(batch_loss(plain, 0).item(), rel=1e-6)
    stir(plain), stir(built)
    samples = built.instances.samples([0, 1])
    adapted = answers(built, samples, [CLASS_PROMPT] * 2)
    with adapters_off(built):
        alone = answers(built, samples, [CLASS_PROMPT] * 2)
    kept = (adapted - alone).square().mean()
    assert kept > 1e-4
    expected = batch_loss(plain, 0) + 3.0 * kept
    assert batch_loss(built, 0).item() == pytest.approx(expected.item(), rel=1e-4)

    def drift(output, **more):
        trained = train(arguments(output, max_train_steps=30, **{"cache_latents": True, **more}))
        fresh = run(f"look {output}", **flags)
        detach(fresh.family.denoiser)
        load_lily_weights(fresh.family.denoiser, trained.weights)
        return (answers(fresh, samples, [CLASS_PROMPT] * 2) - alone).square().mean().item()

    assert drift("held", output_preservation_weight=10.0, **flags) < 0.5 * drift("free")


def test_text_encoders_are_trained_saved_and_resumed(arguments, base):  # noqa: F811
    flags = {"train_text_encoder": True, "text_encoder_lr": 5e-3, "random_flip": True}
    whole = train(arguments("whole", **flags))
    header = read_lily_header(whole.weights)
    assert [part.component for part in header.parts] == ["unet", "text_encoder"]
    experts = {key: tensor for key, tensor in weights(whole.output_dir).items() if "text_encoder.lily_B" in key}
    assert experts and all(B.abs().max() > 0 for B in experts.values())
    slower = train(arguments("slower", **{**flags, "text_encoder_lr": 1e-5}))
    other = weights(slower.output_dir)
    assert all(other[key].abs().max() < 0.1 * B.abs().max() for key, B in experts.items())

    train(arguments("parts", **flags, checkpointing_steps=2), on_step=lambda report: report.step == 2)
    resumed = train(arguments("parts", **flags, checkpointing_steps=2, resume_from_checkpoint="latest"))
    assert same(weights(resumed.output_dir), weights(whole.output_dir))

    pipe = StableDiffusionPipeline.from_pretrained(base)
    before = pipe.encode_prompt("a sks robot", "cpu", 1, False)[0]
    load_lily_weights(pipe, whole.weights, "x")
    assert (pipe.encode_prompt("a sks robot", "cpu", 1, False)[0] - before).abs().max() > 1e-4


def test_the_sheet_of_a_trained_text_encoder_is_what_the_pipeline_draws(arguments, base):  # noqa: F811
    flags = {"validation_prompt": "a cat", "num_validation_images": 1, "validation_inference_steps": 2}
    built = build(complete(arguments(train_text_encoder=True, **flags)))
    stir(built)
    built.validation.sheet(0, built.accelerator.autocast())
    drawn = built.validation._row("a cat")[0]
    pipe = StableDiffusionPipeline.from_pretrained(base)
    load_lily_weights(pipe, save_lily_weights(built.parts, built.output_dir), "x")
    generator = generator_for(0, "validation", 0)
    guidance = built.validation.guidance_scale
    size = {"height": 16, "width": 16, "num_inference_steps": 2}
    expected = pipe("a cat", generator=[generator], guidance_scale=guidance, **size).images[0]
    assert drawn.tobytes() == expected.tobytes()


def test_held_out_pictures_are_measured_and_never_trained_on(arguments, tmp_path, pictures):  # noqa: F811
    plain = train(arguments("plain"))
    held_out = tmp_path / "held_out"
    held_out.mkdir()
    Image.new("RGB", (16, 16), "yellow").save(held_out / "yellow.png")
    flags = {"validation_data_dir": held_out, "validation_steps": 2, "instance_prompt": "a sks robot"}
    looked = train(arguments("looked", **flags))
    assert looked.losses == plain.losses and same(weights(plain.output_dir), weights(looked.output_dir))
    rows = (looked.output_dir / "loss.csv").read_text().splitlines()
    assert sum("held_out" in name for name in rows[0].split(",")) == 4
    measured = [row.split(",")[0] for row in rows[1:] if row.split(",")[-1]]
    assert measured == ["0", "2", "4"]


def test_a_dry_run_says_what_training_would_do_and_leaves_no_weights(arguments):  # noqa: F811
    dry = train(arguments(dry_run=True, validation_prompt="a cat"))
    real = train(arguments("real"))
    assert dry.losses[0] == pytest.approx(real.losses[0], rel=1e-6) and dry.steps == 0
    assert sorted(p.name for p in dry.output_dir.iterdir()) == ["first_batch.png"]
    for words in ("to_q 8->8", "activations kept for the backward pass", "nothing was trained"):
        assert words in dry.message
    assert train(arguments()).steps == 4  # the folder is still free


def test_a_run_is_repeated_from_its_run_yaml(arguments, tmp_path):  # noqa: F811
    first = train(arguments("first", seed=None, random_flip=True, rank=2, target_modules=["to_q", "to_k"]))
    again = parse_args(["--config", str(first.output_dir / "run.yaml"), "--output_dir", str(tmp_path / "again")])
    assert same(weights(first.output_dir), weights(train(again).output_dir))


def test_a_quantised_base_is_trained_on(run):
    built = run(quantize_base="int8", cache_latents=True, validation_prompt="a cat", validation_inference_steps=1)
    projections = [module for module in built.family.denoiser.modules() if isinstance(module, torch.nn.Linear)]
    assert all("Int8" in type(linear.weight).__name__ for linear in projections)
    before = [linear.weight.dequantize().clone() for linear in projections]
    first = batch_loss(built, 0)
    for _ in range(5):
        built.accelerator.backward(batch_loss(built, 0))
        built.optimizer.step()
        built.optimizer.zero_grad()
    assert batch_loss(built, 0) < 0.99 * first
    assert all(torch.equal(linear.weight.dequantize(), b) for linear, b in zip(projections, before, strict=True))
    assert save_weights(built).is_file()
    assert built.validation.sheet(1, built.accelerator.autocast()).width > 16


def test_a_compiled_base_gives_the_same_steps(arguments, monkeypatch):  # noqa: F811
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))  # inductor takes long
    plain = train(arguments("plain"))
    compiled = train(arguments("compiled", compile_base=True))
    assert compiled.losses == pytest.approx(plain.losses, rel=1e-4)
