"""The front and the recommendation: by brute force and by hand."""

from hypothesis import given
from hypothesis import strategies as st

from app.contracts.report import Mean
from app.kinds.mitigate.request import Budget
from workers.diagnosis.mitigate.front import (
    MOST_POINTS,
    Point,
    broken,
    feasible,
    front_of,
    limits_of,
    recommend,
    thinned,
)


def point(name, kl, size, *, saves=True, latency=0.0):
    saved = Mean(mean=0.1, ci=(0.05, 0.15)) if saves else Mean(mean=0.01, ci=(-0.05, 0.07))
    return Point(name, kl, size, 8 * size / 1000, saved, latency)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 50)), min_size=1, max_size=30))
def test_the_front_is_what_no_other_point_beats(pairs):
    points = [point(str(index), kl, size) for index, (kl, size) in enumerate(pairs)]
    found = {(one.kl, one.bytes) for one in front_of(points)}
    expected = {
        (one.kl, one.bytes)
        for one in points
        if not any(
            other.kl <= one.kl and other.bytes <= one.bytes and (other.kl, other.bytes) != (one.kl, one.bytes)
            for other in points
        )
    }
    assert found == expected
    sizes = [one.bytes for one in front_of(points)]
    assert sizes == sorted(sizes)


def test_the_lowest_kl_is_recommended_and_of_nearly_equal_ones_the_smallest():
    limits = limits_of(Budget(bytes=200), 100)
    front = front_of([point("a", 0.30, 100), point("b", 0.103, 120), point("c", 0.100, 180)])
    found = recommend(front, limits)
    assert found.key == "b"
    found = recommend(front_of([point("b", 0.2, 120), point("c", 0.1, 180)]), limits)
    assert found.key == "c"


def test_what_does_not_save_for_sure_or_breaks_a_limit_is_not_recommended():
    limits = limits_of(Budget(bytes=150, bits_per_weight=1.1, added_latency=0.1), 100)
    assert recommend([point("unsure", 0.1, 100, saves=False)], limits) is None
    assert recommend([point("large", 0.1, 151)], limits) is None
    assert recommend([point("bits", 0.1, 149)], limits) is None
    assert recommend([point("slow", 0.1, 100, latency=0.2)], limits) is None
    found = recommend([point("good", 0.1, 130, latency=0.1)], limits)
    assert found is not None


def test_every_limit_is_named_and_without_a_size_the_budget_is_a_quarter_more():
    limits = limits_of(Budget(bytes=150, bits_per_weight=4.5, added_latency=0.1), 100)
    assert "150" in broken(limits, size=151, bits=1, latency=None)
    assert "4.5" in broken(limits, size=1, bits=4.6, latency=None)
    assert "20 %" in broken(limits, size=1, bits=1, latency=0.2)
    assert broken(limits, size=150, bits=4.5, latency=0.1) == ""
    assert (limits_of(Budget(), 1000).bytes, limits_of(Budget(), 1000).by_default) == (1250, True)
    given_bits = limits_of(Budget(bits_per_weight=5), 1000)
    assert (given_bits.bytes, given_bits.by_default) == (None, False)


@given(st.integers(1, 40), st.integers(0, 39))
def test_a_long_front_is_thinned_but_for_its_ends_and_the_recommended(count, chosen):
    front = [point(str(index), 1 / (index + 1), index + 1) for index in range(count)]
    keep = front[chosen % count]
    kept = thinned(front, keep)
    assert len(kept) == min(count, MOST_POINTS)
    assert {front[0].key, front[-1].key, keep.key} <= {one.key for one in kept}
    assert [one.bytes for one in kept] == sorted(one.bytes for one in kept)


def test_what_is_beyond_the_budget_hides_nothing_that_is_within_it():
    limits = limits_of(Budget(added_latency=0.1), 100)
    untreated = Point("", 0.5, 100, 8.0, None, 0.0)
    slow, quick = point("slow", 0.1, 110, latency=0.3), point("quick", 0.2, 120, latency=0.05)
    assert feasible([untreated, slow, quick], limits) == [untreated, quick]
    assert recommend(front_of(feasible([untreated, slow, quick], limits)), limits) == quick
    beyond = limits_of(Budget(bytes=50), 100)
    assert feasible([untreated, quick], beyond) == [untreated]
