"""The view of a surface report: what its page and terminal say."""

import math

import pytest

from app.kinds.surface.view import interaction_chart, loss_chart
from tests.support.surface_reports import departing, surface_variant


def test_an_overlap_is_not_painted_like_damage():
    svg = str(interaction_chart(departing({("as given", "overlaps"): 1, ("as given", "compounds"): 1})))
    assert svg.count('class="heat c7 cool"') == 1, "the overlap is the largest"
    assert svg.count('class="heat h3"') == 1
    assert svg.count('class="heat h0"') == 18, "nothing is shown of the others"


def test_a_small_interaction_does_not_read_as_none_in_the_chart():
    found = surface_variant("adds-up")
    rows = list(found.interactions)
    for place, mean in enumerate((4.6e-4, -4.6e-4, 0.0)):
        rows[place] = rows[place].model_copy(update={"nats": rows[place].nats.model_copy(update={"mean": mean})})
    svg = str(interaction_chart(found.model_copy(update={"interactions": tuple(rows)})))
    assert svg.count(">+5×10⁻⁴<") == 1 and svg.count(">−5×10⁻⁴<") == 1 and svg.count(">0<") == 1


def test_the_chart_names_every_setting_to_readers_of_the_screen():
    found = surface_variant("adds-up")
    svg = str(loss_chart(found))
    assert svg.count("<rect") == 30
    assert "sparsity 0.7, bits 3" in svg
    assert svg.count('class="contour"') >= 3
    level = found.contour.level
    line = found.contour.lines[0]
    table = {(one.first, one.second): one.loss.mean for one in found.points}
    for p, q in line:
        low = (math.floor(p), math.floor(q))
        high = (math.ceil(p), math.ceil(q))
        part = (p - low[0]) if low[0] != high[0] else (q - low[1])
        one, other = table[low], table[high]
        if min(one, other) > level / 1000:  # KL grows by factors
            assert one ** (1 - part) * other**part == pytest.approx(level, rel=1e-6)
        else:
            assert one + part * (other - one) == pytest.approx(level, rel=1e-6)
