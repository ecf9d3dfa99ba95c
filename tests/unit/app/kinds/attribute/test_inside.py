"""What the page shows of a model's inside, read back from its blocks, charts and tables."""

import re

import pytest

from app.kinds.attribute.blocks import Internals
from app.kinds.attribute.inside import (
    attention_sentence,
    growth_sentence,
)
from app.reports.render import render
from tests.support import internals_blocks as made
from tests.support.attribute_reports import attribute_variants
from tests.support.html import tree

FULL = attribute_variants()["full"]
DENSE = made.dense()


def page(block):
    return tree(render(FULL | {"internals": block.model_dump(mode="json")}))


def test_every_chart_can_be_read_aloud_and_has_finite_places():
    for block in (DENSE, Internals()):
        for chart in page(block).all("svg"):
            assert chart.children[0].tag == "title"
            assert chart.children[0].text.strip()
            assert re.findall(r"nan|inf", str(chart.attributes)) == []


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


def test_equal_attention_and_no_attention_are_said_to_be_so():
    block = made.attention() | {"js": {"mean": 0.0, "ci": [0.0, 0.0], "clusters": "documents"}}
    assert attention_sentence(made.dense(attention=block).attention).startswith("Every head looks exactly")
    assert attention_sentence(made.dense(attention=block | {"layers": []}).attention).startswith("No layer")
