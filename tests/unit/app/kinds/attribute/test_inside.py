"""What the page shows of a model's inside, read back from its blocks, charts and tables."""

import re

import pytest

from app.contracts.report import Mean
from app.kinds.attribute.attention import attention, attention_sentence, heads_table
from app.kinds.attribute.blocks import Internals
from app.kinds.attribute.growth import borders_table, growth, growth_sentence, repair_sentence, steps_table
from app.kinds.attribute.layers import alignment_sentence, gaps_table, layers
from app.kinds.attribute.routing import margins_table, routing, routing_sentence
from app.reports.blocks import Chart, Fold
from app.reports.render import render
from tests.support import internals_blocks as made
from tests.support.attribute_reports import attribute_variants
from tests.support.html import tree

FULL = attribute_variants()["full"]
NO_ERROR = {"mean": 0.0, "ci": None}
DENSE, MIXTURE = made.dense(), made.mixture()


def page(block):
    return tree(render(FULL | {"internals": block.model_dump(mode="json")}))


def charts(section):
    inner = [one for block in section.blocks for one in (block.blocks if isinstance(block, Fold) else [block])]
    return [block for block in inner if isinstance(block, Chart)]


def titles(chart):
    return re.findall(r"<title>(.*?)</title>", str(chart))


def test_every_chart_can_be_read_aloud_and_has_finite_places():
    for block in (DENSE, MIXTURE, Internals()):
        for chart in page(block).all("svg"):
            assert chart.children[0].tag == "title"
            assert chart.children[0].text.strip()
            assert re.findall(r"nan|inf", str(chart.attributes)) == []


def test_the_alignment_shows_what_is_gone_and_what_is_new():
    picture, similarity = charts(layers(DENSE.alignment))
    boxes = titles(picture.svg)
    assert "layer 3 of the reference: layer 3 dropped" in boxes
    assert "layer 4 of the candidate: layer 4 inserted, a copy of 4" in boxes
    assert str(picture.svg).count('class="box alone"') == 2
    assert str(picture.svg).count('class="match') == len(made.PAIRS)
    assert str(similarity.svg).count(' framed"') == len(made.PAIRS)
    sentence = alignment_sentence(DENSE.alignment)
    for number in ("0.71 [0.57, 0.85]", "0.220 [0.176, 0.264]", "1.10 [0.88, 1.32]"):
        assert number in sentence
    gap = gaps_table(DENSE.alignment).rows[0]
    assert (gap[1].text, gap[3].text) == ("0.71", "64.5")


def test_gaps_that_were_not_resampled_are_not_called_found_again():
    assert gaps_table(DENSE.alignment).rows[0][0].note == "found again in 99.5 % of resamplings"
    block = made.alignment()
    block |= {"resamplings": 0, "gaps": [gap | {"stability": None} for gap in block["gaps"]]}
    assert "found again" not in gaps_table(made.dense(alignment=block).alignment).rows[0][0].note


def test_the_worst_head_is_first_and_every_head_has_a_cell():
    row = heads_table(DENSE.attention).rows[0]
    assert [(cell.text, cell.note) for cell in row[:3]] == [
        ("4→3, 2", ""),
        ("0.240", "[0.192, 0.288]"),
        ("0.96", "[0.77, 1.15]"),
    ]
    assert "head 2 of layer 3 of the candidate (4 of the reference): 0.240 [0.192, 0.288]." in attention_sentence(
        DENSE.attention
    )
    divergence, heads, _ = charts(attention(DENSE.attention))
    cells = [title for title in titles(heads.svg) if title.startswith("layer")]
    assert len(cells) == len(made.PAIRS) * made.HEADS
    darkest = re.search(r'<rect[^>]*class="cell h7"[^>]*><title>(.*?)</title>', str(heads.svg))
    assert darkest.group(1) == "layer 4→3, head 2: 0.240 nats"
    points = [title for title in titles(divergence.svg) if title.startswith("all heads")]
    assert [re.findall(r"candidate (\d+): ", title) for title in points] == [[str(layer)] for _, layer in made.PAIRS]
    assert points[1].endswith(": 0.0200 [0.0160, 0.0240] nats")
    assert str(divergence.svg).count(">gap</text>") == 2  # the dropped layer, and the copy


@pytest.mark.parametrize(
    ("cascade", "many", "one"),
    [
        (made.mean(1.8, 0.3), "a cascade", "later layers amplify it; no errors add up"),
        (made.mean(0.5, 0.2), "no cascade", "later layers damp it"),
        (made.mean(1.1, 0.3), "is not sure", "is not sure"),
        ({"mean": 7.9, "ci": None}, "is not known", "is not known"),
    ],
)
def test_a_cascade_is_called_one_if_its_interval_shows_it(cascade, many, one):
    block = made.activations() | {"cascade": cascade}
    assert growth_sentence(made.dense(activations=block).activations).endswith(f"{many}.")
    steps = [
        step if step["gap"] and step["reference"] == [3, 4] else step | {"fresh": NO_ERROR} for step in block["steps"]
    ]
    unharmed = [block["borders"][0] | {"relative": NO_ERROR}, *block["borders"][1:]]
    alone = growth_sentence(made.dense(activations=block | {"steps": steps, "borders": unharmed}).activations)
    assert "the one fresh error, of the gap (3 dropped): " in alone
    assert alone.endswith(f"{one}.")
    assert "cascade" not in alone


def test_an_error_of_the_last_layer_alone_is_seen_by_no_later_layer():
    block = made.activations()
    steps = [*(step | {"fresh": NO_ERROR} for step in block["steps"][:-1]), block["steps"][-1]]
    unharmed = [block["borders"][0] | {"relative": NO_ERROR}, *block["borders"][1:]]
    sentence = growth_sentence(made.dense(activations=block | {"steps": steps, "borders": unharmed}).activations)
    assert "layer 5, which no later layer sees" in sentence


def test_steps_are_named_after_their_layers_and_gaps_after_what_happened():
    rows = steps_table(DENSE.activations).rows
    assert [row[0].text for row in rows] == ["0", "1", "2", "3 dropped", "4→3", "4 inserted", "5"]
    assert rows[0][2].text == "–"  # no error enters the first layer
    assert re.findall(r"\d+", repair_sentence(DENSE.activations))[:3] == ["6", "2", "4"]
    (curves,) = charts(growth(DENSE.activations))
    assert str(curves.svg).count("error of the states, layer border") == 8


def test_routing_shows_the_worst_layer_and_the_load_of_each_expert():
    assert "in layer 3: 14.0 [11.2, 16.8]\u00a0%" in routing_sentence(MIXTURE.routing)
    (loads,) = charts(routing(MIXTURE.routing))
    assert {"layer 0, expert 0: 4.00 points", "layer 0, expert 5: 0 points"} <= set(titles(loads.svg))
    assert margins_table(MIXTURE.routing).rows[0][4].text == "0: 16.5 %"


def test_what_was_not_measured_is_shown_and_escaped():
    drawn = page(MIXTURE)
    assert drawn.one(id_="not-inside").one("li").text.strip() == "layers are <not> run one at a time"
    assert drawn.one(id_="routing")


def test_sink_entropy_and_range_of_a_head_have_the_intervals_of_the_report():
    block = DENSE.attention
    head = block.layers[0].heads[0]
    intervals = {"reference_ci": (0.5, 0.75), "candidate_ci": (0.25, 0.5)}
    both = head.sink.model_copy(update={"reference": 0.625, "candidate": 0.375} | intervals)
    moved = head.model_copy(update={"js": Mean(mean=9.0, ci=None), "sink": both, "entropy": both, "range": both})
    layer = block.layers[0].model_copy(update={"heads": (moved,)})
    row = heads_table(block.model_copy(update={"layers": (layer,)})).rows[0]
    assert [(cell.text, cell.note) for cell in row[4:]] == [("0.62 → 0.38", "[0.50, 0.75] → [0.25, 0.50]")] * 3


def test_the_share_of_error_in_outlier_channels_has_the_interval_of_the_report():
    block = DENSE.activations
    border = block.borders[1].model_copy(update={"outlier_share": 0.25, "outlier_share_ci": (0.125, 0.375)})
    bare = border.model_copy(update={"outlier_share_ci": None})
    rows = borders_table(block.model_copy(update={"borders": (bare, border, *block.borders[2:])})).rows
    assert [(row[4].text, row[4].note) for row in rows[:2]] == [("25.0", "no interval"), ("25", "[12, 38]")]


def test_without_a_gap_all_layers_match():
    block = made.dense(alignment=made.alignment() | {"gaps": [], "control": None}).alignment
    assert alignment_sentence(block).startswith("All 6 layers")
    assert gaps_table(block).rows == ()


def test_equal_attention_and_no_attention_are_said_to_be_so():
    block = made.attention() | {"js": {"mean": 0.0, "ci": [0.0, 0.0], "clusters": "documents"}}
    assert attention_sentence(made.dense(attention=block).attention).startswith("Every head looks exactly")
    assert attention_sentence(made.dense(attention=block | {"layers": []}).attention).startswith("No layer")
