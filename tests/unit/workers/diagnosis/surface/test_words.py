"""What a reader is warned of."""

from dataclasses import replace

import pytest

from tests.support.surface_reports import surface_request, surface_table
from workers.diagnosis.surface.words import sentence, warnings


@pytest.mark.parametrize(("documents", "known"), [(2, False), (5, False), (6, True), (12, True)])
def test_that_limits_have_no_interval_is_told_where_documents_are_too_few(documents, known):
    table = surface_table(surface_request(sparsities=(0.3, 0.6), bits=(6, 4)), documents=documents)
    assert {limit.ci is not None for limit in table.contour().limits} == {known}
    told = [warning for warning in warnings(table) if warning.startswith("Too few documents for an interval")]
    assert len(told) == (not known)


def test_the_sentence_rests_on_the_order_as_given_and_tells_the_exchanged_one_apart():
    table = surface_table(surface_request(sparsities=(0.3, 0.6), bits=(6, 4), orders="both"), documents=32)
    rows = [row.model_copy(update={"kind": "no_departure_shown"}) for row in table.interactions()]
    place = {order: next(n for n, row in enumerate(rows) if row.order == order) for order in ("as given", "reversed")}
    rows[place["as given"]] = rows[place["as given"]].model_copy(update={"kind": "overlaps"})
    rows[place["reversed"]] = rows[place["reversed"]].model_copy(update={"kind": "compounds"})
    text = sentence(table, tuple(rows), table.chosen())
    first, second = text.split("; with the two steps exchanged they ")
    assert first.startswith("The two damages overlap at 1 of 4 settings") and "compound" not in first
    assert second.startswith("compound at 1 of 4 settings") and "overlap" not in second
    rows[place["reversed"]] = rows[place["reversed"]].model_copy(update={"kind": "no_departure_shown"})
    text = sentence(table, tuple(rows), table.chosen())
    assert "with the two steps exchanged they are not shown to depart from adding up at any of the 4 settings" in text


@pytest.mark.parametrize("inside", [0, 1, 3, 5])
def test_settings_whose_damages_add_up_for_sure_are_named_up_to_three(inside):
    table = surface_table(surface_request(sparsities=(0.3, 0.6), bits=(8, 6, 4)), documents=12)
    kinds = ["additive_within_margin"] * inside + ["no_departure_shown"] * (6 - inside)
    rows = [row.model_copy(update={"kind": kind}) for row, kind in zip(table.interactions(), kinds, strict=True)]
    told = sentence(table, tuple(rows), table.chosen()).split("is a departure from adding up shown; ")[1]
    named = [f"sparsity {0.3 if row.first == 1 else 0.6} with bits {(8, 6, 4)[row.second - 1]}" for row in rows]
    expected = {
        0: "at none of them do the damages add up",
        1: f"at 1 of them ({named[0]}) the damages",
        3: f"at 3 of them ({'; '.join(named[:3])}) the damages",
        5: f"at 5 of them ({'; '.join(named[:3])}; and 2 more) the damages",
    }
    assert told.startswith(expected[inside])


def kinds_of(table, *kinds):
    return tuple(row.model_copy(update={"kind": kind}) for row, kind in zip(table.interactions(), kinds, strict=True))


def test_the_sentence_tells_what_is_shown_where():
    table = surface_table(surface_request(sparsities=(0.3, 0.6), bits=(6, 4)), documents=12)
    rows = kinds_of(table, "overlaps", "no_departure_shown", "no_departure_shown", "additive_within_margin")
    text = sentence(table, rows, table.chosen())
    assert text.startswith("The two damages overlap at 1 of 4 settings, most at sparsity 0.3 with bits 6 (")
    assert (
        "nats per token); at one setting they add up within 0.01 nats per token for sure; at 2 settings no departure "
        "is shown, and none is ruled out; the smallest changed setting"
    ) in text
    assert "no departure" not in sentence(table, kinds_of(table, *["compounds"] * 4), table.chosen())


def test_of_one_setting_the_sentence_speaks_in_the_singular():
    table = surface_table(surface_request(sparsities=(0.3, 0.6), bits=(6, 4), orders="both"), documents=12)
    given, *_, exchanged = table.interactions()
    kinds = [
        one.model_copy(update={"kind": kind}) for one, kind in ((given, "compounds"), (exchanged, "no_departure_shown"))
    ]
    text = sentence(table, tuple(kinds), table.chosen())
    assert text.startswith("The two damages compound at the one setting, sparsity 0.3 with bits 6 (")
    assert "exchanged they are not shown to depart from adding up at the one setting;" in text


def test_the_sentence_recommends_no_unmodified_model():
    table = surface_table(surface_request(contour={"measure": "kl", "level": 1e-9}), documents=12)
    text = sentence(table, table.interactions(), table.chosen())
    assert "; no changed setting is shown to be within a KL of 1×10⁻⁹ nats per token, and " in text
    assert text.endswith(") loses least of them.") and "sparsity left out with bits left out" not in text


def test_a_setting_that_saves_nothing_is_not_told_as_if_it_did():
    request = surface_request(sparsities=(0.1, 0.2), bits=(8, 6), storage="dense")
    table = surface_table(request, documents=12)
    pruned = table.along(0, 0, 1)
    assert table.within(pruned) == "yes" and not table.spares(pruned)
    assert sentence(table, (), pruned).endswith("), no smaller than the unmodified model.")
    assert "no smaller" not in sentence(table, (), table.chosen())


def spoilt(table):
    return [warning for warning in warnings(table) if "not one of rising damage" in warning]


def exchanged(table, one, other):
    """The table with what was measured at two settings exchanged, and nothing else."""
    records = list(table.records)
    places = table.index[*one, "as given"], table.index[*other, "as given"]
    records[places[0]], records[places[1]] = records[places[1]], records[places[0]]
    return replace(table, records=records)


def test_a_knob_that_alone_loses_less_further_on_is_told():
    table = surface_table(surface_request(sparsities=(0.2, 0.5, 0.7), bits=(6, 4)), documents=40)
    assert spoilt(table) == []
    assert spoilt(exchanged(table, (1, 0), (2, 0))) == [
        "sparsity alone loses less at 0.5 than at 0.2: the axis is not one of rising damage, and interactions and "
        "limits along it say little."
    ]
    (second,) = spoilt(exchanged(table, (0, 1), (0, 2)))
    assert second.startswith("bits alone loses less at 4 than at 6: ")
    assert spoilt(exchanged(table, (1, 1), (2, 1))) == [], "of both knobs together it is no axis"


def test_an_axis_whose_fall_lies_within_the_intervals_is_not_called_spoilt():
    table = surface_table(surface_request(sparsities=(0.5, 0.505), bits=(6, 4)), documents=40)
    assert spoilt(exchanged(table, (1, 0), (2, 0))) == []


@pytest.mark.parametrize(
    ("where", "broken", "refused"),
    [
        (((2, 2),), "One setting gave logits that", "One setting could not be made (first sparsity 0.6 with bits 4: "),
        (((2, 1), (2, 2)), "2 settings gave logits that", "2 settings could not be made (first sparsity 0.6 with "),
    ],
)
def test_settings_that_have_no_loss_are_counted_and_the_first_is_named(where, broken, refused):
    asked = surface_request(sparsities=(0.3, 0.6), bits=(6, 4))
    (told,) = warnings(surface_table(asked, documents=12, broken=where))
    assert told.startswith(broken) and "(first sparsity 0.6 with bits " in told
    (told,) = warnings(surface_table(asked, documents=12, refused=where))
    assert told.startswith(refused) and "the model has no such layer" in told


def test_one_document_is_not_told_in_the_plural():
    (told, _) = warnings(surface_table(surface_request(sparsities=(0.3, 0.6), bits=(6, 4)), documents=1))
    assert told.startswith("Only 1 document: intervals are clustered by windows")
