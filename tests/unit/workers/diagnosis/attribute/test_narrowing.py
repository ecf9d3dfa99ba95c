"""Spans of layers are narrowed down to the worst ones within the budget, and none is left unlooked at before."""

import pytest

from workers.diagnosis.attribute.narrowing import Narrowed, Span, narrow, plan

ROW = [range(16)]


def alone(span: Span) -> float:
    """A pass a span, whatever is in it."""
    return 1.0 + 0.0 * len(span)


def narrowed(bad: dict[int, float], budget: float, rows: list[Span] | None = None) -> Narrowed:
    def measure(span: Span, whole: Span | None) -> tuple[bool, float]:
        assert whole is None or (whole.start <= span.start and span.stop <= whole.stop and len(span) < len(whole))
        return True, sum(bad.get(layer, 0.0) for layer in span)

    return narrow(rows or ROW, alone, measure, budget=budget)


def test_every_layer_is_measured_by_itself_where_the_budget_reaches_for_that() -> None:
    found = narrowed({3: 1.0}, 16)
    assert found.measured == tuple(range(layer, layer + 1) for layer in range(16))
    assert not found.split
    assert found.untried == ()
    assert [(step.spans, step.longest, step.split, step.cost) for step in found.steps] == [(16, 1, 0, 16.0)]


def test_the_broken_layer_is_found_by_halves_of_the_worse_spans() -> None:
    found = narrowed({11: 1.0, 2: 0.5}, 12)
    assert [(step.spans, step.longest, step.split) for step in found.steps] == [(4, 4, 2), (4, 2, 2), (4, 1, 0)]
    assert sum(step.cost for step in found.steps) == 12
    assert {range(11, 12), range(2, 3), range(10, 11), range(3, 4)} <= set(found.measured)
    assert {range(4, 8), range(12, 16)} <= set(found.measured) - found.split
    # all that was not cut is the model, each layer once
    rest = sorted(layer for span in found.measured if span not in found.split for layer in span)
    assert rest == list(range(16))
    places = [found.measured.index(range(start, 12)) for start in (8, 10, 11)]
    assert places == sorted(places)


@pytest.mark.parametrize("budget", [1, 2, 3, 5, 7, 9, 11, 13, 15, 40])
def test_the_budget_is_never_overdrawn_and_every_layer_is_looked_at(budget: int) -> None:
    found = narrowed({5: 1.0}, budget, rows=[range(9), range(9, 14)])
    assert sum(step.cost for step in found.steps) <= budget
    seen = {layer for span in found.measured for layer in span}
    assert seen | {layer for span in found.untried for layer in span} == set(range(14))
    assert all(not (span.start < 9 < span.stop) for span in found.measured)
    assert bool(found.untried) is (budget < 2)


def test_what_the_map_hides_goes_on_only_after_what_it_shows() -> None:
    def measure(span: Span, _: Span | None) -> tuple[bool, float]:
        return (0 not in span, 100.0 if 0 in span else 1.0 if 9 in span else 0.0)

    found = narrow(ROW, alone, measure, budget=12)
    assert range(9, 10) in found.measured
    first = [span for span in found.measured if len(span) == 4 and span in found.split]
    assert range(8, 12) in first
    assert range(4) not in first


def test_the_plan_is_what_is_measured() -> None:
    made = plan(ROW, alone, 12)
    assert (made.longest, made.measurements, sum(made.costs)) == (4, 12, 12)
    assert len(narrowed({11: 1.0}, 12).measured) == made.measurements
