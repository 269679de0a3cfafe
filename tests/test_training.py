"""The training loop: what a run leaves behind, that it learns, and that its options do what they say."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from lily_diffusion import get_adapter_weights, load_lily_weights, read_lily_header
from lily_diffusion.training import TrainingError, train
from lily_diffusion.training.build import build
from lily_diffusion.training.checks import complete
from lily_diffusion.training.objective import batch_loss, sample_losses
from lily_diffusion.training.reports import trigger_words

from .training_base import same, save_tiny_pipeline, weights

pytest_plugins = ("tests.training_base",)  # its fixtures: base, pictures, arguments


def test_a_run_leaves_a_file_that_loads_and_says_where_it_comes_from(arguments, base):
    result = train(arguments(instance_prompt="a sks robot"))
    assert len(result.losses) == result.steps == 4 and all(math.isfinite(x) for x in result.losses)
    header = read_lily_header(result.weights)
    assert header.trigger_words == ("a sks robot",) and header.base_model == base.name
    assert header.metadata["training.steps"] == "4" and header.dtype == "float32"
    pipe = StableDiffusionPipeline.from_pretrained(base)
    name = load_lily_weights(pipe, result.output_dir)
    assert get_adapter_weights(pipe) == {name: 1.0}
    card = (result.output_dir / "README.md").read_text()
    assert "a sks robot" in card and "load_lily_weights(pipe, " in card
    assert "Use it:" in result.message


def test_only_the_adapter_is_trained_and_the_loss_of_a_fixed_picture_goes_down(arguments, pictures):
    for other in ("green", "red"):
        (pictures / f"{other}.png").unlink()
    args = arguments(max_train_steps=60, cache_latents=True, train_batch_size=8)
    losses = train(args).losses
    assert sum(losses[-10:]) < 0.97 * sum(losses[:10])


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_both_kinds_of_prediction_train(arguments, tmp_path, prediction_type):
    folder = save_tiny_pipeline(tmp_path / "other", prediction_type)
    run = build(complete(arguments(pretrained_model_name_or_path=folder, snr_gamma=5)))
    assert run.family.objective == prediction_type
    assert math.isfinite(batch_loss(run, 0).item())


def test_cached_latents_give_the_loss_that_uncached_ones_give(arguments):
    flags = {"random_flip": True, "max_train_steps": 3}
    plain = train(arguments("plain", **flags))
    cached = train(arguments("cached", cache_latents=True, **flags))
    assert cached.losses == pytest.approx(plain.losses, rel=1e-5)


def test_accumulated_small_batches_make_the_step_of_the_large_batch(arguments):
    large = train(arguments("large", train_batch_size=6, max_train_steps=3))
    small = train(arguments("small", train_batch_size=2, gradient_accumulation_steps=3, max_train_steps=3))
    assert small.losses == pytest.approx(large.losses, rel=1e-5)
    a, b = weights(large.output_dir), weights(small.output_dir)
    assert all(torch.allclose(a[key], b[key], atol=1e-4) for key in a)


def test_a_batch_may_be_larger_than_the_folder(arguments):
    assert train(arguments(train_batch_size=8, max_train_steps=2)).steps == 2


def test_epochs_count_pictures_and_repeats(arguments):
    result = train(arguments(max_train_steps=None, num_train_epochs=2, repeats=3, train_batch_size=4))
    assert result.steps == math.ceil(2 * 3 * 3 / 4)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(arguments):
    a, b = train(arguments("a")), train(arguments("b"))
    c = train(arguments("c", seed=2))
    assert same(weights(a.output_dir), weights(b.output_dir))
    assert not same(weights(a.output_dir), weights(c.output_dir))


def test_every_latent_meets_the_embedding_of_its_own_caption(arguments):
    run = build(complete(arguments(cache_latents=True, random_flip=True)))
    colours = {"blue": 2, "green": 1, "red": 0}
    pipe = StableDiffusionPipeline.from_pretrained(run.args.pretrained_model_name_or_path)
    for position in range(9):
        draw = run.instances.draws[position]
        caption = run.instances.samples([position])[0].caption
        colour = caption.split()[-2]
        picture = run.instances.pictures.pixels(draw.index, (0, 0), False)
        assert int(picture.mean((1, 2)).argmax()) == colours[colour]
        expected = pipe.encode_prompt(caption, "cpu", 1, False)[0][0]
        assert torch.allclose(run.prompts[caption]["prompt_embeds"], expected, atol=1e-6)


def test_validation_draws_one_sheet_and_changes_nothing(arguments):
    plain = train(arguments("plain", lily_dropout=0.2))
    looked = train(
        arguments(
            "looked", lily_dropout=0.2, validation_prompt=["a sks robot", "a cat"], num_validation_images=2,
            validation_steps=2, validation_inference_steps=2,
        )
    )  # fmt: skip
    assert same(weights(plain.output_dir), weights(looked.output_dir))
    assert sorted(p.name for p in (looked.output_dir / "samples").iterdir()) == ["step-2.png", "step-4.png"]
    with Image.open(looked.output_dir / "samples" / "step-4.png") as sheet:
        assert sheet.height > sheet.width  # four rows of two
    assert "samples/step-4.png" in (looked.output_dir / "README.md").read_text()


def test_the_base_row_shows_the_base_and_the_other_row_the_adapter(arguments, base):
    run = build(complete(arguments(validation_prompt=["a cat"], num_validation_images=1, validation_inference_steps=2)))
    sheets = [run.validation.sheet(0, run.accelerator.autocast())]
    with torch.no_grad():
        for B in run.adapter.lily_B:
            B.normal_()
    before = run.validation._base[0][0].tobytes()
    sheets.append(run.validation.sheet(1, run.accelerator.autocast()))
    assert run.validation._base[0][0].tobytes() == before
    assert sheets[0].tobytes() != sheets[1].tobytes()
    pipe = StableDiffusionPipeline.from_pretrained(base)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(_validation_seed()))
    expected = pipe("a cat", latents=noise, num_inference_steps=2, height=16, width=16, output_type="pil").images[0]
    assert expected.tobytes() == before


def _validation_seed() -> int:
    from lily_diffusion.training.draws import mixed_seed

    return mixed_seed(0, "validation", 0)


def test_class_pictures_are_made_once_and_take_part_with_their_weight(arguments, tmp_path):
    flags = {
        "with_prior_preservation": True, "class_data_dir": tmp_path / "class", "class_prompt": "a robot",
        "num_class_images": 3, "sample_batch_size": 2, "cache_latents": True,
    }  # fmt: skip
    plain = build(complete(arguments("plain", cache_latents=True)))
    run = build(complete(arguments("prior", prior_loss_weight=0.5, **flags)))
    made = sorted((tmp_path / "class").iterdir())
    assert len(made) == 3 and all(p.suffix == ".png" for p in made)
    samples = run.classes.samples([0, 1])
    assert [sample.caption for sample in samples] == ["a robot", "a robot"]
    class_loss = sample_losses(run, samples).mean()
    expected = batch_loss(plain, 0) + 0.5 * class_loss
    assert batch_loss(run, 0).item() == pytest.approx(expected.item(), rel=1e-5)
    stamps = [p.stat().st_mtime_ns for p in made]
    assert train(arguments("again", **flags)).steps == 4
    assert [p.stat().st_mtime_ns for p in sorted((tmp_path / "class").iterdir())] == stamps


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_weights_from_before(arguments, monkeypatch):
    from lily_diffusion.training import loop

    real, calls = loop.batch_loss, []

    def poisoned(run, micro_batch):
        calls.append(run.progress.step)
        return real(run, micro_batch) * (float("nan") if run.progress.step == 3 else 1.0)

    monkeypatch.setattr(loop, "batch_loss", poisoned)
    with pytest.raises(TrainingError, match=r"nan at step 4.*after step 2 are saved"):
        train(arguments("nan", max_train_steps=6))
    monkeypatch.setattr(loop, "batch_loss", real)
    nan, two = arguments("nan").output_dir, train(arguments("two", max_train_steps=2)).output_dir
    assert same(weights(nan), weights(two))


def test_a_rate_that_explodes_is_stopped_at_once(arguments):
    with pytest.raises(TrainingError, match="at step 2"):
        train(arguments(learning_rate=1e30))


def test_bfloat16_and_checkpointed_gradients_work_on_the_cpu(arguments):
    result = train(arguments(mixed_precision="bf16", gradient_checkpointing=True, cache_latents=True))
    assert all(tensor.dtype == torch.float32 for tensor in weights(result.output_dir).values())
    assert all(math.isfinite(loss) for loss in result.losses)


def test_checkpointed_gradients_are_the_same_gradients(arguments):
    plain, checkpointed = train(arguments("a")), train(arguments("b", gradient_checkpointing=True))
    assert checkpointed.losses == pytest.approx(plain.losses, rel=1e-5)


@pytest.mark.parametrize("name", ["linear", "cosine", "cosine_with_restarts", "polynomial", "constant_with_warmup"])
def test_the_schedule_counts_optimizer_steps(arguments, name):
    rates = []
    args = arguments(lr_scheduler=name, lr_warmup_steps=2, gradient_accumulation_steps=2, max_train_steps=6)
    train(args, on_step=lambda report: rates.append(report.learning_rate))
    assert rates[:3] == pytest.approx([0, 0.005, 0.01])
    assert rates[-1] == pytest.approx(0.01) if name == "constant_with_warmup" else 0 < rates[-1] < 0.006


def test_tensorboard_gets_the_scalars(arguments):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = train(arguments(report_to="tensorboard", logging_steps=2))
    events = EventAccumulator(str(result.output_dir / "logs" / "dreambooth-lily"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"loss", "smoothed_loss", "lr", "grad_norm", "router_entropy", "expert_similarity"} <= tags
    assert [e.value for e in events.Scalars("loss")] == pytest.approx(result.losses)
    assert len(events.Scalars("router_entropy")) == 2


def test_the_trigger_words_are_the_prompt_or_what_the_captions_share(arguments):
    assert trigger_words(build(complete(arguments()))) == ("a sks robot",)
    assert trigger_words(build(complete(arguments(instance_prompt="sks")))) == ("sks",)
