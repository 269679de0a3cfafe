"""What a LilyConfig refuses."""

import pytest

from lily_diffusion import LilyConfig


@pytest.mark.parametrize(
    "bad",
    [
        {"r": 0},
        {"r": 2.0},
        {"r": True},
        {"stride_A": 0},
        {"num_A": 0},
        {"num_B": 1},
        {"scaling": float("nan")},
        {"scaling": "2"},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"routing": "dice"},
        {"target_modules": []},
        {"target_modules": [""]},
    ],
    ids=str,
)
def test_bad_configs(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        LilyConfig(**bad)
