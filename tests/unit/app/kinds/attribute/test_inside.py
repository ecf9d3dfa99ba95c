"""What the page shows of a model's inside, read back from its blocks, charts and tables."""

import re

import pytest

from app.kinds.attribute.blocks import Internals
from app.kinds.attribute.inside import (
    alignment_sentence,
    attention,
    attention_sentence,
    growth,
    growth_sentence,
    steps_table,
)
from app.reports.blocks import Chart
from app.reports.render import render
from tests.support import internals_blocks as made
from tests.support.attribute_reports import attribute_variants
from tests.support.html import tree

FULL = attribute_variants()["full"]
DENSE = made.dense()


def page(block):
    return tree(render(FULL | {"internals": block.model_dump(mode="json")}))


def titles(section):
    (chart,) = (block for block in section.blocks if isinstance(block, Chart))
    return re.findall(r"<title>(.*?)</title>", str(chart.svg))


def test_every_chart_can_be_read_aloud_and_has_finite_places():
    for block in (DENSE, Internals()):
        for chart in page(block).all("svg"):
            assert chart.children[0].tag == "title"
            assert chart.children[0].text.strip()
            assert re.findall(r"nan|inf", str(chart.attributes)) == []


def test_the_alignment_shows_what_is_gone_and_what_is_new():
    sentence = alignment_sentence(DENSE.alignment)
    for number in ("layer 3 dropped (0.71 [0.57, 0.85]", "layer 4 inserted (0.220 [0.176, 0.264]", "1.10 [0.88, 1.32]"):
        assert number in sentence
    block = made.dense(alignment=made.alignment() | {"gaps": [], "control": None}).alignment
    assert alignment_sentence(block).startswith("All 6 layers")


def test_the_layer_that_moved_most_is_named_and_every_pair_has_a_point():
    assert "most in layer 5: 0.05" in attention_sentence(DENSE.attention)
    points = [title for title in titles(attention(DENSE.attention)) if title.startswith("all heads")]
    assert [re.findall(r"candidate (\d+): ", title) for title in points] == [[str(layer)] for _, layer in made.PAIRS]
    assert points[1].endswith(": 0.0200 [0.0160, 0.0240] nats")


@pytest.mark.parametrize(
    ("cascade", "end"),
    [
        (made.mean(1.8, 0.3), ": a cascade"),
        (made.mean(0.5, 0.2), "no cascade"),
        (made.mean(1.1, 0.3), "is not shown"),
        ({"mean": 7.9, "ci": None}, "is not known"),
    ],
)
def test_a_cascade_is_called_one_if_its_interval_shows_it(cascade, end):
    block = made.activations() | {"cascade": cascade}
    assert growth_sentence(made.dense(activations=block).activations).endswith(f"{end}.")


def test_steps_are_named_after_their_layers_and_gaps_after_what_happened():
    rows = steps_table(DENSE.activations).rows
    assert [row[0].text for row in rows] == ["0", "1", "2", "3 dropped", "4→3", "4 inserted", "5"]
    assert rows[0][2].text == "–"  # no error enters the first layer
    assert (
        sum(title.startswith("error of the states, layer border") for title in titles(growth(DENSE.activations))) == 8
    )


def test_what_was_not_measured_is_shown_and_escaped():
    drawn = page(Internals(not_measured=("layers are <not> run one at a time",)))
    assert drawn.one(id_="not-inside").one("li").text.strip() == "layers are <not> run one at a time"


def test_equal_attention_and_no_attention_are_said_to_be_so():
    block = made.attention() | {"js": {"mean": 0.0, "ci": [0.0, 0.0], "clusters": "documents"}}
    assert attention_sentence(made.dense(attention=block).attention).startswith("Every head looks exactly")
    assert attention_sentence(made.dense(attention=block | {"layers": []}).attention).startswith("No layer")
