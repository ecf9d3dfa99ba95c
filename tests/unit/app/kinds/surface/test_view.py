"""The view of a surface report: what its page and terminal say."""

import math

import pytest

from app.kinds.surface.view import interaction_chart, loss_chart
from app.kinds.surface.words import answer, outcome, setting
from app.reports.render import render
from tests.support.html import tree
from tests.support.surface_reports import departing, surface_variant, surface_variants
from tests.support.terminal import printed

VARIANTS = surface_variants()


def test_the_page_is_headed_by_both_knobs_and_their_ranges():
    for of, said in (
        ("both-orders", "prune.magnitude with sparsity from 0.2 to 0.7 (5 values), then quantize.rtn with bits from 8"),
        ("one-step", "quantize.rtn with bits from 8 to 3 (4 values) and group_size from 32 to null"),
    ):
        assert tree(render(VARIANTS[of])).one("h1").text.startswith(f"smollm2-135m · {said}")
    assert tree(render(VARIANTS["both-orders"] | {"request": None})).one("h1").text == "smollm2-135m · sparsity × bits"


def test_an_overlap_is_not_painted_like_damage():
    svg = str(interaction_chart(departing({("as given", "overlaps"): 1, ("as given", "compounds"): 1})))
    assert svg.count('class="heat c7 cool"') == 1, "the overlap is the largest"
    assert svg.count('class="heat h3"') == 1
    assert svg.count('class="heat h0"') == 18, "nothing is shown of the others"


def test_where_no_changed_setting_is_within_nothing_is_recommended_and_the_mildest_is_told_as_such():
    body = VARIANTS["nothing-changed-within"]
    found = surface_variant("nothing-changed-within")
    assert next(one for one in found.points if not one.recipe).within == "yes"
    assert not found.chosen.within and found.chosen.recipe
    where = setting(found, found.chosen.first, found.chosen.second, found.chosen.order)
    told = outcome(found)
    assert told.startswith("No changed setting is shown to be within 0.0005 nats per token: ")
    assert told.endswith(f"{where[:1].upper()}{where[1:]} loses least of them. Nothing is recommended.")
    losses = [one.loss.mean for one in found.points if one.recipe]
    assert min(losses) == next(
        one.loss.mean for one in found.points if (one.first, one.second) == (found.chosen.first, found.chosen.second)
    )
    page = render(body)
    assert "Take." not in page and "hosen setting" not in page
    assert "What the mildest setting loses" in page and "Excess KL of the mildest setting" in page
    title = tree(page).one("title").text.strip()
    assert (
        title.startswith(f"{answer(found)}: ")
        and "; no changed setting is within the loss for sure, the mildest is chosen: " in title
    )
    assert '"type"' not in printed(body, 200), "no recipe to take"
    assert f"The mildest setting ({where}) loses" in printed(body, 200, details=True)


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
