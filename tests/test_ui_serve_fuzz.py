"""Damaged adapter files do no harm: a sample of `tests.fuzz_adapters`, which does ten thousand by itself."""

from __future__ import annotations

from tests.fuzz_adapters import Mutations, run


def test_five_hundred_mutations_of_an_adapter(tmp_path):
    ends = run(tmp_path, 500)
    assert sum(ends.values()) == 500 and set(ends) <= {"not added", "not loaded", "loaded"}
    assert ends["not added"] > 200 and ends["not loaded"] > 20  # both doors are tried


def test_mutations_are_the_same_for_a_seed():
    data = (2).to_bytes(8, "little") + b"{}" + bytes(64)
    kinds = [Mutations(data, 3).bits() for _ in range(2)]
    assert kinds[0] == kinds[1] != data
