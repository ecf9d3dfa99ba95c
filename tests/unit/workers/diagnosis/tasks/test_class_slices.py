"""Slices of tasks by class, against tables counted by hand, scipy's tests, and Holm's steps one by one."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from app.kinds.tasks.report import ItemClasses
from app.kinds.tasks.request import TasksRequest
from tests.unit.workers.answering.test_likelihood import PLAN
from tests.unit.workers.diagnosis.tasks.test_result import answered
from workers.diagnosis.tasks.answer_classes import ANSWER_CLASSES, AnswerClasses
from workers.diagnosis.tasks.class_slices import sliced
from workers.diagnosis.tasks.result import results

REQUEST = TasksRequest.model_validate({"kind": "tasks", "reference": {"model": "a"}, "candidate": {"model": "b"}})
NAMES = [one.name for one in ANSWER_CLASSES]


def mask(count, chosen):
    found = np.zeros(count, dtype=np.bool_)
    found[list(chosen)] = True
    return found


def classes(count, **held):
    return AnswerClasses(
        "key", "Looked at is the key.", {name: mask(count, held.get(name, range(0))) for name in NAMES}
    )


# Sums: of 20 items with numbers 12 are lost and 1 gained; of 40 others 1 is lost. Names stand in three items,
# punctuation in all.
SUMS = answered("sums", [n < 18 or n >= 20 for n in range(60)], [12 <= n < 19 or n > 20 for n in range(60)])
OF_SUMS = classes(60, numbers=range(20), names=range(15, 18), punctuation=range(60))
# Code: the reference answers none of the ten items with code; four of the thirty others are lost, two gained.
CODE = answered("code", [n >= 16 for n in range(40)], [n in {10, 11} or n >= 20 for n in range(40)])
OF_CODE = classes(40, code=range(10))


@pytest.fixture(scope="module")
def told():
    both = [SUMS, CODE]
    return sliced(results(both, [PLAN] * 2, REQUEST), both, [OF_SUMS, OF_CODE])


def rows(result):
    return {one.name: one for one in result.token_classes.classes}


def test_the_counts_are_those_of_the_table_made_by_hand(told):
    sums, code = map(rows, told[0])
    assert list(sums) == ["numbers", "names", "punctuation"], "all items have a class"
    assert list(code) == ["code", "none"]
    one = sums["numbers"]
    assert (one.items, one.harmful, one.helpful) == (20, 12, 1)
    assert (one.reference.mean, one.candidate.mean) == (18 / 20, 7 / 20)
    assert one.difference.mean == pytest.approx(-11 / 20)
    assert (one.rate.mean, one.rate_others.mean) == (13 / 20, 1 / 40)
    assert (one.share, one.share_of_flips) == (20 / 60, 13 / 14)
    assert (code["none"].items, code["none"].harmful, code["none"].helpful) == (30, 4, 2)
    assert code["code"].share_of_flips == 0


def test_p_values_are_scipys_adjusted_step_by_step_over_both_tasks(told):
    sums, code = map(rows, told[0])
    judged = [sums["numbers"], code["code"], code["none"]]
    fisher = [
        stats.fisher_exact([[13, 7], [1, 39]]).pvalue,
        stats.fisher_exact([[0, 10], [6, 24]]).pvalue,
        stats.fisher_exact([[6, 24], [0, 10]]).pvalue,
    ]
    assert [one.fisher_p for one in judged] == pytest.approx(fisher)
    # Three are judged: the smallest p counts three times, the next twice, each no less than the one before.
    assert judged[0].fisher_p_holm == pytest.approx(3 * fisher[0])
    assert judged[1].fisher_p_holm == judged[2].fisher_p_holm == pytest.approx(2 * fisher[1])
    assert "over the 3 kinds of all tasks that can be judged" in told[1]


def test_what_cannot_be_judged_has_no_p_and_is_not_counted(told):
    sums = rows(told[0][0])
    for one in (sums["names"], sums["punctuation"]):
        assert (one.fisher_p, one.fisher_p_holm) == (None, None)
    assert sums["punctuation"].rate_others is None
    assert "1 kind in fewer than 6 items" in told[1]


def test_classes_of_items_that_share_passages_are_not_judged():
    shared = replace(SUMS, items=[replace(item, passage=str(n // 3)) for n, item in enumerate(SUMS.items)])
    found, multiplicity = sliced(results([shared], [PLAN], REQUEST), [shared], [OF_SUMS])
    assert all(one.fisher_p is None for one in rows(found[0]).values())
    assert multiplicity == "Not judged: 2 kinds in items that share passages."


def test_where_nothing_was_looked_at_that_alone_is_told():
    nothing = AnswerClasses(None, "Nothing was looked at: why.", {})
    found, multiplicity = sliced(results([SUMS], [PLAN], REQUEST), [SUMS], [nothing])
    assert found[0].token_classes == ItemClasses(where=None, note="Nothing was looked at: why.")
    assert multiplicity == ""


def test_classes_of_a_task_that_could_not_be_scored_make_no_other_easier_to_show():
    """Which tasks have no result hangs on what the models said: their classes count as if they showed nothing."""
    both = [SUMS, CODE]
    told = results(both, [PLAN] * 2, REQUEST)
    # Of 50 items 20 hold numbers, 3 names (too few), all punctuation (no others): one class could be judged.
    lost = classes(50, numbers=range(20), names=range(3), punctuation=range(50))
    untold = AnswerClasses(None, "Nothing was looked at: why.", {})
    alone = answered("lost", [True] * 50, [True] * 50)
    own, shared = (
        replace(alone, items=[replace(item, passage=f"{n // of}") for n, item in enumerate(alone.items)])
        for of in (1, 2)
    )
    # Items that share passages are not judged; passages of one item each are none.
    unscored = [(own, lost), (shared, lost), (alone, untold)]
    found, multiplicity = sliced(told, both, [OF_SUMS, OF_CODE], unscored=unscored)
    one = rows(found[0])["numbers"]
    assert one.fisher_p_holm == pytest.approx(4 * stats.fisher_exact([[13, 7], [1, 39]]).pvalue)
    assert (
        "over the 4 kinds of all tasks that can be judged (Holm), 1 of tasks that could not be scored" in multiplicity
    )
