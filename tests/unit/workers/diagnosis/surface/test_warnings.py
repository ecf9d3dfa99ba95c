"""What a reader is warned of."""

from dataclasses import replace

import pytest

from tests.support.surface_reports import surface_request, surface_table
from workers.diagnosis.surface.warnings import warnings


def drawn(documents=12, **asked):
    return surface_table(surface_request(**({"sparsities": (0.3, 0.6), "bits": (6, 4)} | asked)), documents=documents)


@pytest.mark.parametrize(("documents", "known"), [(2, False), (5, False), (6, True), (12, True)])
def test_that_limits_have_no_interval_is_told_where_documents_are_too_few(documents, known):
    table = drawn(documents)
    assert {limit.ci is not None for limit in table.contour().limits} == {known}
    told = [warning for warning in warnings(table) if warning.code == "no_interval_of_limits"]
    assert len(told) == (not known)


def spoilt(table):
    return [warning for warning in warnings(table) if warning.code == "axis_not_rising"]


def exchanged(table, one, other):
    """The table with what was measured at two settings exchanged, and nothing else."""
    records = list(table.records)
    places = table.index[*one, "as given"], table.index[*other, "as given"]
    records[places[0]], records[places[1]] = records[places[1]], records[places[0]]
    return replace(table, records=records)


def test_a_knob_that_alone_loses_less_further_on_is_told():
    table = drawn(40, sparsities=(0.2, 0.5, 0.7))
    assert spoilt(table) == []
    (first,) = spoilt(exchanged(table, (1, 0), (2, 0)))
    assert first.facts == {"knob": "sparsity", "further": "0.5", "before": "0.2"}
    (second,) = spoilt(exchanged(table, (0, 1), (0, 2)))
    assert second.facts == {"knob": "bits", "further": "4", "before": "6"}
    assert spoilt(exchanged(table, (1, 1), (2, 1))) == [], "of both knobs together it is no axis"
    within = drawn(40, sparsities=(0.5, 0.505))
    assert spoilt(exchanged(within, (1, 0), (2, 0))) == [], "the fall lies within the intervals"


@pytest.mark.parametrize(
    ("where", "count", "first"),
    [
        (((2, 2),), 1, "sparsity 0.6 with bits 4"),
        (((2, 1), (2, 2)), 2, "sparsity 0.6 with bits 6"),
    ],
)
def test_settings_that_have_no_loss_are_counted_and_the_first_is_named(where, count, first):
    asked = surface_request(sparsities=(0.3, 0.6), bits=(6, 4))
    (told,) = warnings(surface_table(asked, documents=12, broken=where))
    assert (told.code, told.facts) == ("nonfinite_settings", {"settings": count, "first": first})
    (told,) = warnings(surface_table(asked, documents=12, refused=where))
    assert (told.code, told.facts["settings"], told.facts["first"]) == ("refused_settings", count, first)
