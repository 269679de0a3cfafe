"""The list of adapters on the page: which are shown, what is read back, and text that stays text."""

from __future__ import annotations

import math

import pytest

from ui.adapter_rows import MAX_ROWS, pick, read
from ui.messages import AdapterCard
from ui.style import error, plain, progress_bar

CARDS = [
    AdapterCard("a", "broken", "", (), "is damaged"),
    *(AdapterCard(f"b{i}", f"style {i}", "", (), None) for i in range(30)),
    AdapterCard("c", "Robot", "", ("sks thing",), None),
]


def test_those_that_are_on_come_first_and_unusable_ones_last():
    assert [card.id for card in pick(CARDS[:3], "", {"b1": 1.0})] == ["b1", "b0", "a"]
    assert len(pick(CARDS, None, {})) == MAX_ROWS


@pytest.mark.parametrize("search", ["robot", "SKS", " thing "])
def test_search_looks_at_names_and_trigger_words_and_keeps_those_that_are_on(search):
    assert [card.id for card in pick(CARDS, search, {"b7": 0.5})] == ["b7", "c"]


def test_only_rows_that_are_on_are_read():
    weights = read(["a", "b", "c"], [True, False, True, True], [0.5, 1.0, None, 1.0])
    assert weights["a"] == 0.5 and math.isnan(weights["c"]) and weights.keys() == {"a", "c"}


def test_text_stays_text():
    shown = plain("<b>*x*</b> [l](javascript:y) &amp; `c` http://h")
    assert not set(shown) & set("<>*[]()`:/\"'") and "&#60;b&#62;" in shown
    assert "<" not in error("<img src=x>").message
    assert "<i>" not in progress_bar(2.0, "<i>") and "width:100%" in progress_bar(2.0, "")
