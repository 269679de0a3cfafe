"""What chance decides: the same for a position whatever came before it, and no two positions alike."""

from __future__ import annotations

import torch

from lily_diffusion.training.draws import Draws, micro_batch_positions, mixed_seed

SQUARES = ((4, 2, 2),) * 5


def test_every_picture_comes_once_in_each_round_and_rounds_differ():
    draws = Draws(seed=3, stream="instance", latent_shapes=SQUARES)
    rounds = [[draws[5 * n + i].index for i in range(5)] for n in range(6)]
    assert all(sorted(r) == list(range(5)) for r in rounds)
    assert len({tuple(r) for r in rounds}) > 1


def test_draws_depend_on_seed_stream_and_position_alone():
    def draw(seed=3, stream="instance", position=7):
        return Draws(seed, stream, ((4, 8, 8),) * 5, random_flip=True)[position]

    assert torch.equal(draw().noise, draw().noise) and draw().u == draw().u
    for other in (draw(seed=4), draw(stream="class"), draw(position=8)):
        assert not torch.equal(other.noise, draw().noise)
    assert not torch.equal(draw().noise, draw().posterior_noise)
    assert mixed_seed(3, "a", 1) == 5356279983702439251  # the same on every machine, or old runs could not go on


def test_flips_and_crops_are_drawn_anew_each_time():
    draws = Draws(0, "instance", ((4, 2, 2),), random_flip=True)
    drawn = draws.at(range(200))
    assert 70 < sum(d.flip for d in drawn) < 130
    assert len({d.crop for d in drawn}) == 200
    assert {d.crop for d in Draws(0, "instance", ((4, 2, 2),), center_crop=True).at(range(5))} == {(0.5, 0.5)}


def test_processes_and_accumulated_batches_share_the_positions_without_gap_or_overlap():
    parts = [micro_batch_positions(24, m, 2, rank, 3) for m in range(4) for rank in range(3)]
    assert sorted(p for part in parts for p in part) == list(range(24, 48))


def test_runs_of_one_shape_fill_the_batches_and_noise_has_the_shape_of_its_picture():
    shapes = ((4, 2, 2), (4, 2, 3)) * 5
    draws = Draws(0, "instance", shapes, batch_size=5)
    assert all(draw.noise.shape == draw.posterior_noise.shape == shapes[draw.index] for draw in draws.at(range(20)))
    batches = [[shapes[draw.index] for draw in draws.at(range(start, start + 5))] for start in range(0, 50, 5)]
    assert all(len(set(batch)) == 1 for batch in batches)


def test_captions_are_dropped_as_often_as_asked_and_nothing_else_changes():
    plain, dropped = (Draws(0, "instance", SQUARES, caption_dropout=p).at(range(300)) for p in (0.0, 0.2))
    assert not any(draw.drop_caption for draw in plain) and 35 < sum(draw.drop_caption for draw in dropped) < 85
    assert all(torch.equal(a.noise, b.noise) and a.crop == b.crop for a, b in zip(plain, dropped, strict=True))
