"""The heat map's pixels, against probabilities that are known."""

import itertools

import pytest

from lily_diffusion import heat_map
from lily_diffusion.heat_map import Layer, Layout, Panel, cell_colour, colour_of, places_of, routing_map

ONE, TWO, EVEN = [1.0, 0.0], [0.25, 0.75], [0.5, 0.5]
LAYERS = [
    Layer("to_q", "attn1", "down_blocks.0", "0.0", "to_q 64->64", [ONE, TWO, EVEN], [0.0, 0.75, 1.0]),
    Layer("to_k", "attn1", "down_blocks.0", "0.0", "to_k 64->64", [TWO, TWO, TWO], [0.75, 0.75, 0.75]),
    Layer("to_q", "attn2", "down_blocks.0", "0.0", "to_q 64->64", [EVEN, EVEN, EVEN], [1.0, 1.0, 1.0]),
    Layer("to_q", "attn1", "mid_block", "0.0", "to_q 128->128", [ONE, ONE, ONE], [0.0, 0.0, 0.0]),
    Layer("to_q", "attn1", "up_blocks.0", "0.0", "to_q 128->128", [TWO, TWO, ONE], [0.19, 0.36, 0.0]),
]
PANELS = [Panel("first", LAYERS), Panel("second", [layer._replace(usage=[ONE] * 3) for layer in LAYERS])]


@pytest.fixture(scope="module")
def drawn():
    layout = Layout(PANELS, "title", "note")
    picture = routing_map(PANELS, title="title", note="note")
    assert picture.size == layout.size
    return layout, picture


def test_cell_colours():
    assert cell_colour([0.2, 0.5, 0.3], 1.0) == (255, 255, 255)
    assert cell_colour([0.2, 0.5, 0.3], 0.0) == colour_of(1)
    half = cell_colour([0.9, 0.1], 0.75)  # the strength is the root of 1 - 0.75
    assert half == tuple(round(255 + 0.5 * (part - 255)) for part in colour_of(0))


def test_sixteen_experts_have_colours_of_their_own():
    colours = [colour_of(expert) for expert in range(16)]
    distances = [sum(abs(a - b) for a, b in zip(x, y, strict=True)) for i, x in enumerate(colours) for y in colours[:i]]
    assert min(distances) > 60


def test_every_cell_has_the_colour_of_its_mixture(drawn):
    layout, picture = drawn
    for number, panel in enumerate(PANELS):
        for layer in panel.layers:
            for step in range(3):
                left, top, right, bottom = layout.cell(number, layer, step)
                wanted = cell_colour(layer.usage[step], layer.entropy[step])
                corners = [(left, top), (right, top), (left, bottom), (right, bottom)]
                assert {picture.getpixel(corner) for corner in corners} == {wanted}
    left, top, *_ = layout.cell(0, LAYERS[0], 1)
    assert picture.getpixel((left, top)) == (238, 174, 128)  # half of the second expert's (222, 94, 0) on white


def test_rows_stand_section_by_section_in_forward_order(drawn):
    layout, _ = drawn
    assert layout.columns == {"attn1": ["to_q", "to_k"], "attn2": ["to_q"]}
    assert [row[:2] for row in layout.rows] == [
        ("attn1", "down_blocks.0"),
        ("attn1", "mid_block"),
        ("attn1", "up_blocks.0"),
        ("attn2", "down_blocks.0"),
    ]
    tops = [layout.y(panel, row) for panel in range(2) for row in layout.rows]
    assert tops == sorted(tops)
    assert all(b - a >= heat_map.ROW for a, b in itertools.pairwise(tops))


def test_shares_are_as_wide_as_the_mean_probabilities(drawn):
    layout, picture = drawn
    x, y = layout.shares(0, LAYERS[0])  # (1 + 0.25 + 0.5) / 3 and the rest
    row = [picture.getpixel((x + i, y + 5)) for i in range(heat_map.SHARES_WIDTH)]
    first = round(1.75 / 3 * heat_map.SHARES_WIDTH)
    assert row == [colour_of(0)] * first + [colour_of(1)] * (heat_map.SHARES_WIDTH - first)


def test_a_dark_line_parts_layers_with_other_experts_only(drawn):
    layout, picture = drawn
    _, mid, up = (next(x for x in LAYERS if x.block == b) for b in ("down_blocks.0", "mid_block", "up_blocks.0"))
    x = layout.x(0) + 1
    assert picture.getpixel((x, layout.y(0, mid.row) - 1)) == heat_map.INK
    assert picture.getpixel((x, layout.y(0, up.row) - 1)) == heat_map.FRAME
    assert picture.getpixel((x, layout.y(0, LAYERS[2].row) - 1)) == heat_map.FRAME  # a section begins


def test_where_there_is_no_layer_the_paper_stays(drawn):
    layout, picture = drawn
    top, left = layout.y(0, LAYERS[3].row), layout.x(1)  # the mid block has no to_k here
    box = picture.crop((left, top + 1, left + layout.pitch - 30, top + heat_map.ROW - 2))
    assert box.getcolors() == [(box.width * box.height, heat_map.PAPER)]


def test_the_legend_shows_every_expert_at_every_entropy(drawn):
    layout, picture = drawn
    wide, high = heat_map.SWATCH
    for expert in range(2):
        one = [float(expert == 0), float(expert == 1)]
        y = layout.legend_top + (expert + 1) * (high + 2) + high // 2
        for i, entropy in enumerate(heat_map.LEGEND):
            assert picture.getpixel((layout.legend_left + i * wide + wide // 2, y)) == cell_colour(one, entropy)


def test_many_steps_and_a_long_prompt_stay_on_the_sheet():
    layers = [LAYERS[0]._replace(usage=[ONE] * 999 + [[0.0, 1.0]], entropy=[0.0] * 1000)]
    panels = [Panel("word " * 200, layers)]
    layout, picture = Layout(panels, "t", ""), routing_map(panels, title="t")
    assert len(layout.captions[0]) > 1
    left, top, right, bottom = layout.cell(0, layers[0], 999)
    assert right < picture.width
    assert bottom < picture.height
    assert picture.getpixel((left, top)) == colour_of(1)
    ink = [picture.getpixel((x, y)) for x in range(picture.width - 20, picture.width) for y in range(picture.height)]
    assert set(ink) == {heat_map.PAPER}


def test_places():
    sd = "down_blocks.0.attentions.1.transformer_blocks.0.attn2.to_out.0"
    names = {
        sd: "to_out.0",
        "mid_block.attentions.0.transformer_blocks.1.attn1.to_q": "to_q",
        "transformer_blocks.7.attn.add_k_proj": "add_k_proj",
        "down_blocks.1.attentions.0.to_q": "to_q",
        "attn.to_q": "to_q",
        "up_blocks.1.attentions.0.transformer_blocks.0.ff.net.0.proj": "ff.net.0.proj",
        "transformer_blocks.7.ff_context.net.2": "ff_context.net.2",
        "single_transformer_blocks.7.proj_mlp": "proj_mlp",
    }
    assert list(places_of(names).values()) == [
        ("attn2", "down_blocks.0", "1.0"),
        ("attn1", "mid_block", "0.1"),
        ("attn", "transformer_blocks", "7"),
        ("attentions", "down_blocks.1", "0"),
        ("attn", "attn", ""),
        ("ff", "up_blocks.1", "0.0"),
        ("ff_context", "transformer_blocks", "7"),
        ("single_transformer_blocks", "single_transformer_blocks", "7"),
    ]


def test_two_modules_that_would_share_a_place_keep_their_names():
    spatial = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
    motion = "down_blocks.0.motion_modules.0.transformer_blocks.0.attn1"
    places = places_of({f"{spatial}.to_q": "to_q", f"{spatial}.to_k": "to_k", f"{motion}.to_q": "to_q"})
    assert list(places.values()) == [("attn1", spatial, "")] * 2 + [("attn1", motion, "")]


@pytest.mark.parametrize(
    ("panels", "sentence"),
    [
        ([], "at least one panel with at least one layer"),
        ([Panel("x", [])], "at least one panel with at least one layer"),
        ([Panel("x", [LAYERS[0], LAYERS[0]])], "have the same place: 2 have 1 places"),
        ([PANELS[0], Panel("x", LAYERS[:2])], "the same layers in the same order"),
        ([Panel("x", [LAYERS[0], LAYERS[1]._replace(usage=[ONE], entropy=[0.0])])], "the same steps, experts"),
        ([Panel("x", [LAYERS[0]._replace(entropy=[0.0])])], "the same steps, experts and entropies"),
        ([Panel("x", [LAYERS[0]._replace(usage=[], entropy=[])])], "the same steps, experts and entropies"),
        ([Panel("x", [LAYERS[0]._replace(usage=[ONE, ONE, [0.5, 0.6]])])], r"1 of 3 mixtures .* first \[0.5, 0.6\]"),
        ([Panel("x", [LAYERS[0]._replace(usage=[ONE, ONE, [float("nan"), 1.0]])])], "1 of 3 mixtures"),
        ([Panel("x", [LAYERS[0]._replace(usage=[ONE, ONE, [1.5, -0.5]])])], "are no probabilities"),
    ],
)
def test_what_cannot_be_drawn(panels, sentence):
    with pytest.raises(ValueError, match=sentence):
        routing_map(panels, title="x")
