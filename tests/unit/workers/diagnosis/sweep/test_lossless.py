"""The near-lossless point by the whole rule: which settings are asked, what stops the knob, and what it says."""

import pytest

from app.contracts.request import Thresholds
from app.kinds.sweep.lossless import Setting
from app.models.strength import Order
from tests.support.answered import answered
from tests.support.sweep_reports import course
from workers.diagnosis.sweep.answered import answered_setting
from workers.diagnosis.sweep.limits import near_lossless
from workers.diagnosis.sweep.lossless import MOST_ASKED, near_lossless_rule
from workers.diagnosis.sweep.sides import form_free, with_tasks

# (value, s, KL, rise of ln perplexity): the first three are within 0.218.
SETTINGS = [(s, s, rise, rise) for s, rise in ((0.1, 0.02), (0.2, 0.08), (0.3, 0.18), (0.4, 0.4), (0.5, 0.9))]


def asking(lost):
    """Of 1,000 items 900 are right; so many of them are lost at a value. With the values that were asked."""
    asked = []

    def ask(point):
        asked.append(point.value)
        gone = lost[point.value]
        return answered_setting(point.value, [answered("sums", 900 - gone, 100, gone, 0)])

    return ask, asked


def rule(made, lost):
    ask, asked = asking(lost)
    found = near_lossless_rule(made, near_lossless(made, seed=0), ask)
    assert found is not None
    return found, asked


def rises(*losses):
    """Settings 0.1, 0.2, … whose mean loss rises so. At 0.214 and 0.223 the interval holds the limit of 0.218, which is
    1.244 times the perplexity; at 0.1 and 0.4 it does not."""
    return [(round(0.1 * n, 1), 0.1 * n, loss, loss) for n, loss in enumerate(losses, 1)]


MANY = [(round(0.01 * n, 2), round(0.01 * n, 2), 0.001 * n, 0.001 * n) for n in range(1, MOST_ASKED + 4)]
DAMPING = [(0.001, None, 0.2, 0.19), (0.01, None, 0.01, 0.008), (0.1, None, 0.02, 0.3), (1.0, None, 0.4, 0.1)]
NEUTRAL = [(1.0, None, 0.214, 0.214), (2.0, None, 0.9, 0.9)]
NULL = [(None, None, 0.01, 0.01), (100, None, 0.9, 0.9)]
HUGE = [(0.1, 0.1, 0.02, 0.02), (0.2, 0.2, 800.0, 800.0)]  # a perplexity above all numbers
DIPPING, NEXT, BOTH = rises(0.02, 0.214, 0.1, 0.9), rises(0.02, 0.1, 0.223, 0.9), rises(0.02, 0.1, 0.214, 0.223, 0.9)
UNKNOWN, FALLING = {"order": Order("unknown", (0, 1, 2, 3))}, {"order": Order("falling", (0, 1))}
AROUND = [{"order": Order("around", places, 1.0)} for places in ((0,), (0, 1))]
STOPPED = {0.3: 180, 0.2: 9}


@pytest.mark.parametrize(
    ("settings", "options", "lost", "expected"),
    [
        (SETTINGS, {}, {0.3: 9}, (0.3, "perplexity", True, (), ())),
        (SETTINGS, {}, {0.3: 180, 0.2: 90, 0.1: 9}, (0.1, "tasks", True, (), ())),
        (SETTINGS, {}, {0.3: 50, 0.2: 40}, (0.2, "tasks", False, (), (0.3, 0.2))),
        (SETTINGS[:3], {}, {0.3: 0}, (0.3, "nothing", True, (), ())),
        (SETTINGS[3:], {}, {}, (None, "perplexity", True, (), ())),
        (SETTINGS, {}, {0.3: 180, 0.2: 90, 0.1: 80}, (None, "tasks")),
        (SETTINGS[:3], {"broken": 2}, {0.2: 0}, (0.2, "perplexity", True, (), ())),  # a collapse is beyond for sure
        (DAMPING, UNKNOWN, {0.001: 100, 1.0: 90, 0.01: 0}, (0.01, "tasks")),  # the most damaging first
        (NULL, FALLING, {None: 0}, (None, "perplexity", True, (), ())),
        (BOTH, {}, {0.3: 9}, (0.3, "perplexity", False, (0.3, 0.4), ())),
        (NEXT, {}, {0.2: 9}, (0.2, "perplexity", False, (0.3,), ())),
        (NEXT, {}, {0.2: 40}, (0.2, "perplexity", False, (0.3,), (0.2,))),
        (rises(0.02, 0.214, 0.4), {}, {0.2: 9}, (0.2, "perplexity", False, (0.2,), ())),
        # what the tasks stop does not hang on the perplexity of what is stronger, and hangs on its own
        (BOTH[:4], {}, STOPPED, (0.2, "tasks", True, (), ())),
        (rises(0.02, 0.214, 0.215, 0.9), {}, STOPPED, (0.2, "tasks", False, (0.2,))),
        # it hangs on every weaker setting if there is an order, and on itself alone if there is none
        (DIPPING, {}, {0.3: 9}, (0.3, "perplexity", False, (0.2,))),
        (DIPPING, UNKNOWN, {0.2: 180, 0.3: 9}, (0.3, "tasks", True, ())),
        (rises(0.02, 0.4, 0.05), {}, {0.1: 9}, (0.1, "perplexity", True, (), ())),  # a stronger one loses less
        (rises(0.223, 0.9), {}, {}, (None, "perplexity", False, (0.1,))),
        (NEUTRAL, AROUND[1], {}, (1.0, "perplexity", True, ())),  # of what changes nothing nothing is open
        (NEUTRAL[:1], AROUND[0], {}, (1.0, "nothing")),
        (SETTINGS, {"documents": 1}, {0.3: 9}, (0.3, "perplexity", False)),  # too short for an interval
        (HUGE, {}, {0.1: 9}, (0.1, "perplexity", True, ())),
    ],
)
def test_the_strongest_setting_within_both_halves_what_stops_it_and_what_is_open(settings, options, lost, expected):
    found, asked = rule(course(settings, **options), lost)
    assert asked == list(lost)
    largest = found.largest and found.largest.value
    told = (largest, found.limited_by, found.decided, found.open_by_perplexity, found.open_by_tasks)
    assert told[: len(expected)] == expected


def test_each_setting_that_was_asked_has_what_it_lost():
    found, _ = rule(course(SETTINGS), {0.3: 180, 0.2: 90, 0.1: 9})
    assert [(one.value, one.within) for one in found.answered] == [(0.3, False), (0.2, False), (0.1, True)]
    found, _ = rule(course(SETTINGS), {0.3: 9})
    assert found.unasked == 0
    found, _ = rule(course(NULL, order=Order("falling", (0, 1))), {None: 0})
    assert found.largest == Setting(value=None)


def test_no_more_than_so_many_are_asked():
    found, asked = rule(course(MANY), {value: 500 for value, *_ in MANY})
    assert asked == [value for value, *_ in MANY][::-1][:MOST_ASKED]
    assert (found.largest, found.limited_by, found.unasked) == (None, "tasks", 3)


def test_a_reference_at_chance_ends_the_asking():
    asked = []

    def ask(point):
        asked.append(point.value)
        return answered_setting(point.value, [answered("sums", 0, 100, 0, 0)])

    made = course(SETTINGS)
    found = near_lossless_rule(made, near_lossless(made, seed=0), ask)
    assert asked == [0.3]
    assert (found.largest, found.limited_by, found.decided, found.at_chance) == (None, None, False, ("sums",))


def test_each_side_of_a_neutral_value_is_asked_by_itself_and_that_value_never():
    around = [(0.5, None, 0.1, 0.1), (0.8, None, 0.05, 0.05), (1.0, None, 0.001, 0.001), (1.5, None, 0.1, 0.1)]
    made = course(around, order=Order("around", (2, 1, 3, 0), 1.0, ((2, 1, 0), (2, 3))))
    ask, asked = asking({0.5: 90, 0.8: 0, 1.5: 90})
    whole, sides = with_tasks(made, form_free(made, Thresholds(), seed=0), ask)
    assert asked == [0.5, 0.8, 1.5] and whole.near_lossless_rule is None
    below, above = (side.near_lossless_rule for side in sides)
    assert (below.largest, below.limited_by) == (Setting(value=0.8), "tasks")
    assert (above.largest, above.limited_by) == (Setting(value=1.0), "tasks"), "what changes nothing loses nothing"


def test_no_finite_perplexity_leaves_nothing_to_ask():
    for documents in (1, 24):
        made = course(SETTINGS[:1], broken=0, documents=documents)
        assert near_lossless_rule(made, near_lossless(made, seed=0), asking({})[0]) is None


def test_the_perplexity_half_alone_says_where_it_is_open():
    found = near_lossless(course(rises(0.02, 0.1, 0.214, 0.223, 0.9)), seed=0)
    assert (found.largest, found.undecided) == (Setting(value=0.3), (0.3, 0.4))
    single = near_lossless(course(SETTINGS, documents=1), seed=0)
    assert single.undecided == (), "without an interval its own says so"
