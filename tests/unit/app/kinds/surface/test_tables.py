"""The tables of a surface report, on the page and in a terminal."""

import pytest

from app.kinds.surface import tables
from app.kinds.surface.tables import limit_interval, limit_text
from app.kinds.surface.words import label, orders_note, setting
from tests.support.surface_reports import surface_variant
from tests.support.terminal import printed


def test_limits_tell_ends_beyond_the_range():
    found = surface_variant("adds-up")
    template = found.contour.limits[0]
    assert limit_text(found, template.model_copy(update={"place": None})) == "beyond 0.7"
    assert limit_text(found, template.model_copy(update={"place": 0.0, "largest": None})) == "already passed"
    assert limit_text(found, template.model_copy(update={"value": None, "place": 1.5})) == "0.2 to 0.35"
    assert limit_interval(found, template.model_copy(update={"ci": (0.2, None)})) == "from 0.200 to beyond"
    assert limit_interval(found, template.model_copy(update={"ci": (8.0, 6.0)})) == "[6.00, 8.00]"
    assert limit_interval(found, template.model_copy(update={"ci": (None, None)})) == "beyond the range"
    assert limit_interval(found, template.model_copy(update={"ci": None})) == "too few documents"


def of_rank(**changed):
    """A report whose first knob is a rank in a step of its own, and its first limit so changed."""
    found = surface_variant("adds-up")
    knob = found.knobs[0].model_copy(update={"field": "rank", "values": (None, 256, 128, 64, 32, 16), "zero": None})
    limit = found.contour.limits[0].model_copy(update=changed)
    contour = found.contour.model_copy(update={"limits": (limit, *found.contour.limits[1:])})
    return found.model_copy(update={"knobs": (knob, found.knobs[1]), "contour": contour})


@pytest.mark.parametrize(
    ("limit", "text", "interval"),
    [
        ({"place": 2.14, "value": 119.1, "ci": (2.0, 3.0), "largest": 2}, "119", "[64.0, 128]"),
        ({"place": 1.5, "value": 192.0, "ci": (0.0, 2.0), "largest": 1}, "192", "[left out, 128]"),
        ({"place": 0.5, "value": None, "ci": (0.0, None), "largest": 0}, "left out to 256", "from left out to beyond"),
    ],
)
def test_a_limit_and_its_interval_are_in_one_unit(limit, text, interval):
    found = of_rank(**limit)
    row = tables.limits(found).rows[0]
    assert (row[2].text, row[3].text) == (text, interval)


@pytest.mark.parametrize(
    ("refused", "why"), [("", "0.2 gives no finite logits"), ("no such layer", "the model cannot take 0.2")]
)
def test_before_a_collapse_the_mildest_setting_is_not_said_to_be_passed(refused, why):
    found = surface_variant("adds-up")
    points = [
        one.model_copy(update={"refused": refused, "loss": one.loss.model_copy(update={"mean": None, "ci": None})})
        if (one.first, one.second) == (1, 0)
        else one
        for one in found.points
    ]
    limit = found.contour.limits[0].model_copy(update={"place": 0.0, "value": 0.0, "ci": (0.0, 0.2), "largest": 0})
    contour = found.contour.model_copy(update={"limits": (limit, *found.contour.limits[1:])})
    found = found.model_copy(update={"points": tuple(points), "contour": contour})
    row = tables.limits(found).rows[0]
    assert [cell.text for cell in row[2:]] == [f"left out; {why}", "[0, 0.200]", "left out"]
    text = printed(found.model_dump(mode="json"), 200, details=True)
    assert f"left out; {why}" in text
    beyond = limit.model_copy(update={"largest": None})
    assert limit_text(found, beyond) == "already passed"
    nowhere = [
        one.model_copy(update={"refused": refused, "loss": one.loss.model_copy(update={"mean": None, "ci": None})})
        if (one.first, one.second) == (0, 0)
        else one
        for one in points
    ]
    told = limit_text(found.model_copy(update={"points": tuple(nowhere)}), beyond)
    assert told == why.replace("0.2", "left out")


def test_the_furthest_setting_within_is_told_by_the_mean_and_for_sure():
    found = surface_variant("both-orders")
    furthest = found.contour.limits[0].largest
    points = [
        one.model_copy(update={"within": "undecided", "loss": one.loss.model_copy(update={"ci": (0.0, 1.0)})})
        if (one.first, one.second, one.order) == (furthest, 0, "as given")
        else one
        for one in found.points
    ]
    found = found.model_copy(update={"points": tuple(points)})
    rows = tables.limits(found).rows
    within = {
        (one.first, one.second): (one.loss.mean, one.loss.ci[1]) for one in found.points if one.order == "as given"
    }
    level, differ = found.contour.level, 0
    for limit, row in zip(found.contour.limits, rows, strict=True):
        which = 0 if limit.knob == "first" else 1
        places = range(len(found.knobs[which].values))
        line = [within[(place, limit.at) if which == 0 else (limit.at, place)] for place in places]
        told = []
        for bound in (0, 1):
            count = next((place for place in places if line[place][bound] > level), len(line))
            told.append(label(found, which, count - 1) if count else None)
        assert row[-1].text == (told[0] or "–")
        assert row[-1].note == ("" if told[0] == told[1] else f"for sure: {told[1] or 'none'}")
        differ += told[0] != told[1]
    assert differ


def test_each_measure_of_an_order_effect_has_its_own_p():
    found = surface_variant("both-orders")
    first, *others = found.order_effects
    none = [row.model_copy(update={"p": 1.0, "p_kl": 1.0}) for row in others]
    split = first.model_copy(update={"p": 0.4, "p_kl": 0.003})
    changed = found.model_copy(update={"order_effects": (split, *none)})
    table, note = tables.orders(changed), orders_note(changed)
    heads = [column.label for column in table.columns]
    row = dict(zip(heads, table.rows[0], strict=True))
    assert (row["p of ln PPL, corrected"].text, row["p of KL, corrected"].text) == ("0.400", "0.003")
    assert table.rows[0][-1].text == "as given is better by KL"
    assert note.startswith(
        "Exchanging the two steps makes a difference in KL at 1 of 20 settings (better at 0, worse at 1)"
    )
    where = f"{row['Setting'].text} ({row['KL, nats per token'].text} {row['KL, nats per token'].note} nats per token)"
    assert f"worse at 1), at {where}, by Holm" in note
    three = [effect.model_copy(update={"p": 0.01, "p_kl": 1.0}) for effect in found.order_effects[:3]]
    named = orders_note(found.model_copy(update={"order_effects": (*three, *none[2:])}))
    assert all(setting(found, effect.first, effect.second) in named for effect in three)
    every = tuple(effect.model_copy(update={"p": 0.01, "p_kl": 1.0}) for effect in found.order_effects)
    largest = max(every, key=lambda effect: abs(effect.log_perplexity.mean))
    told = orders_note(found.model_copy(update={"order_effects": every}))
    assert f", most at {setting(found, largest.first, largest.second)} (" in told and told.count("nats per token") == 1
    both = tables.orders(found.model_copy(update={"order_effects": (split.model_copy(update={"p": 0.01}), *none)}))
    assert both.rows[0][-1].text == "as given is better by ln PPL and KL"
    assert {row[-1].text for row in both.rows[1:]} == {"no difference shown"}
