"""The library and the rows of adapters in use: what is found and read back, shapes of weights, text that stays text."""

from __future__ import annotations

import json
import math
import re

import pytest

from lily_diffusion.adapter_weight import known_selectors, parse
from ui.generate import library, weight_text
from ui.generate.adapter_rows import ROWS, Choice, Used, as_chosen, read, weights_of
from ui.keeping.recipe import MAX_ADAPTERS
from ui.messages import AdapterCard
from ui.style import error, plain, progress_bar

CARDS = [
    AdapterCard("a", "broken", "", (), "is damaged"),
    AdapterCard("b", "styles/ink", "r 4", ("inked",), None, "styles", "embedded"),
    AdapterCard("c", "styles/old/oil", "", (), None, "styles/old"),
    AdapterCard("d", "Robot", "", ("sks thing",), None),
]
BLOCKS = ["down", "down.0", "mid", "up", "up.1", "attn1", "attn2", "to_q"]


def found(search: str = "", folder: str = "") -> str:
    return "".join(card.id for card in library.find(CARDS, search, folder))


def test_the_library_is_searched_by_every_word_and_by_folder_with_the_unusable_last():
    assert found() == "bcda"
    assert [found(search) for search in ("robot", "SKS", " thing ", "ink embedded", "ink robot")] == [*"dddb", ""]
    assert (found(folder="styles"), found(folder="styles/old"), found(folder=library.TOP)) == ("bc", "c", "da")
    assert library.folders(CARDS) == ["", library.TOP, "styles", "styles/old"] and library.folders([CARDS[3]]) == [""]


def test_cards_are_inert_and_unusable_ones_cannot_be_pressed():
    hostile = AdapterCard(
        "e", "<img src=x onerror=1>${alert(1)}{{x}}", '"><b>', ("<script>'\"",), "<i>no</i>", "", "`${1}`"
    )
    html = library.html([*CARDS, hostile], {"b"}, 10, lambda card: "")
    assert "<img" not in html and "<script" not in html and "<i>no" not in html and not set(html) & set("$`{}")
    assert html.count("disabled") == 2 and html.count('aria-pressed="true"') == 1
    html = library.html(CARDS, (), 1, lambda card: "data:image/webp;base64,AA")
    assert html.count('class="pick"') == 1 and "3 more" in html and 'src="data:image/webp;base64,AA"' in html


def test_only_rows_that_are_on_count_and_a_text_counts_for_the_number():
    ticks, weights, texts = [True, False, True, True], [0.5, 1.0, None, 1.0], [" 1@0,0@1 ", "", None, ""]
    rest = [None] * (ROWS - 4)
    chosen = read(Used(as_chosen(dict.fromkeys("abc", 1.0))), [*ticks, *rest, *weights, *rest, *texts, *rest]).chosen
    assert chosen["a"] == Choice(True, 0.5, "1@0,0@1") and not chosen["b"].on and list(chosen) == ["a", "b", "c"]
    weights = weights_of(chosen)
    assert weights["a"] == "1@0,0@1" and math.isnan(weights["c"]) and weights.keys() == {"a", "c"}
    assert as_chosen({"a": 0.5, "b": "1,mid=0"}) == {"a": Choice(weight=0.5), "b": Choice(text="1,mid=0")}


def test_pages_of_rows_keep_what_they_do_not_show():
    used = Used()
    for number in range(2 * ROWS + 1):
        used = used.with_one_more(str(number))
    assert (used.first, list(used.page)) == (2 * ROWS, [str(2 * ROWS)])
    rest = [None] * (ROWS - 1)
    used = read(used, [False, *rest, 0.5, *rest, "", *rest])
    assert used.turned(ROWS) == used and used.turned(-ROWS).first == ROWS and used.turned(-9 * ROWS).first == 0
    used = used.turned(-ROWS).without("0")
    assert (used.first, len(used.page), used.chosen[str(2 * ROWS)]) == (ROWS, ROWS, Choice(False, 0.5))
    assert used.turned(ROWS) == used and "0" not in used and "1" in used


def test_what_the_browser_keeps_comes_back_and_anything_else_is_nothing():
    used = Used({"a": Choice(), "b": Choice(False, math.nan), "c": Choice(text="1@0,0@1")}).turned(0)
    again = Used.of(json.loads(json.dumps(used.sent)))
    assert again.chosen["b"].on is False and math.isnan(again.chosen["b"].weight) and again.sent == used.sent
    many = {"first": 10**9, "chosen": [[str(i), True, 1, ""] for i in range(10_000)]}
    assert len(Used.of(many).chosen) == MAX_ADAPTERS and len(Used.of(many).page) <= ROWS
    for wrong in (None, "x", [], {"chosen": 5}, {"chosen": [["a"]], "first": 0}, {"chosen": [["a", 1, "x", ""]]},
                  {"first": "1e999", "chosen": []}, {"first": math.inf, "chosen": []}):  # fmt: skip
        assert Used.of(wrong) == Used()


def test_presets_of_steps_keep_blocks_and_the_other_way_round():
    faded = weight_text.apply("Fade in", "", 0.8, BLOCKS)
    assert [parse(faded).by_layer(["mid_block.x"], at)["mid_block.x"] for at in (0, 0.5, 1)] == [0, 0.4, 0.8]
    both = weight_text.apply("Only mid", faded, 0.8, BLOCKS)
    late = weight_text.apply("Late steps", both, 0.8, BLOCKS)
    layers = ["mid_block.x", "up_blocks.1.x"]
    assert [tuple(parse(late).by_layer(layers, at).values()) for at in (0.3, 0.9)] == [(0, 0), (0.8, 0)]
    assert weight_text.apply(weight_text.PLAIN, late, 0.8, BLOCKS) == ""


def test_only_one_kind_of_attention_is_without_feed_forward_layers():
    layers = [f"mid_block.{end}" for end in ("attn1.to_q", "attn2.to_q", "ff.net.0.proj", "ff.net.2")]
    for name, kept in (("Only self-attention", [1, 0, 0, 0]), ("Only cross-attention", [0, 1, 0, 0])):
        text = weight_text.apply(name, "", 1.0, known_selectors(layers))
        assert list(parse(text).by_layer(layers).values()) == kept


@pytest.mark.parametrize("blocks", [BLOCKS, [f"transformer_blocks.{n}" for n in range(12)], []])
def test_every_preset_is_a_weight_that_the_adapter_has(blocks):
    layers = [f"{b}.attn{n}.to_q".replace("down", "down_blocks").replace("up", "up_blocks").replace("mid", "mid_block")
              for b in blocks or ["x"] for n in (1, 2)]  # fmt: skip
    names = weight_text.presets(blocks)
    assert len(names) == len(set(names)) >= 6
    for name in names[1:]:
        parse(weight_text.apply(name, "", 1.0, blocks)).check(layers)


def test_the_curve_shows_the_weight_or_says_what_is_wrong():
    drawn = weight_text.curve("1@0,0@1,mid=0.5", 1.0)
    lines = re.findall(r'class="line\d" points="([^"]*)"', drawn)
    ends = [[float(point.split(",")[1]) for point in (line.split()[0], line.split()[-1])] for line in lines]
    bottom = weight_text.HEIGHT - 4
    assert ends == [[4, bottom], [bottom / 2 + 2, bottom]] and "elsewhere" in drawn and "mid" in drawn
    for wrong in ("half", "1@0", "99", "1@0,99@1", "x" * 2000, ",".join(f"b{n}=1" for n in range(99))):
        assert "curve-problem" in weight_text.curve(wrong, 1.0), wrong
    assert "<b" not in weight_text.curve("<b>=1", 1.0) and "curve-problem" in weight_text.curve("", math.nan)


def test_text_stays_text():
    shown = plain("<b>*x*</b> [l](javascript:y) &amp; `c` http://h")
    assert not set(shown) & set("<>*[]()`:/\"'") and "&#60;b&#62;" in shown
    assert "<" not in error("<img src=x>").message
    assert "<i>" not in progress_bar(2.0, "<i>") and "width:100%" in progress_bar(2.0, "")
