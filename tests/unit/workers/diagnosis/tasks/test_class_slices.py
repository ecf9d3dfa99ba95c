"""Slices of tasks by class, against tables counted by hand, scipy's tests, and Holm's steps one by one."""

import numpy as np
import pytest
from scipy import stats

from app.contracts.task import FileTask
from app.kinds.tasks.report import FEWEST_CLASS_ITEMS, ItemClasses
from app.kinds.tasks.request import TasksRequest
from app.models.tasks.items import Item
from tests.unit.workers.answering.test_likelihood import PLAN
from tests.unit.workers.diagnosis.tasks.test_result import answered
from workers.answering.answers import choose
from workers.answering.likelihood import Likelihoods
from workers.answering.pair import Answered
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
    return sliced(results(both, [PLAN] * 2, REQUEST), both, [OF_SUMS, OF_CODE], seed=0)


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


def score_limits(harmful, helpful, items):
    """Tango's interval on a grid: with λ supposed, the likelihood is greatest at that q of a grid of q."""
    q = np.linspace(0, 1, 20_001)
    kept = []
    for difference in np.linspace(-0.9999, 0.9999, 4001):
        r = q + difference  # helpful
        fits = (r >= 0) & (q + r <= 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            told = (
                np.where(fits, 0.0, -np.inf)
                + harmful * np.log(np.maximum(q, 1e-300))
                + helpful * np.log(np.maximum(r, 1e-300))
                + (items - harmful - helpful) * np.log(np.maximum(1 - q - r, 1e-300))
            )
        best = q[int(np.argmax(told))]
        spread = items * (2 * best + difference * (1 - difference))
        if spread > 0 and abs(helpful - harmful - items * difference) / np.sqrt(spread) <= 1.959964:
            kept.append(float(difference))
    return min(kept), max(kept)


def test_the_interval_is_the_score_interval_of_the_classes_items(told):
    assert rows(told[0][0])["numbers"].difference.ci == pytest.approx(score_limits(12, 1, 20), abs=0.002)


def test_p_values_are_scipys_adjusted_step_by_step_over_both_tasks(told):
    sums, code = map(rows, told[0])
    judged = [sums["numbers"], code["code"], code["none"]]
    mcnemar = [stats.binomtest(12, 13).pvalue, 1.0, stats.binomtest(4, 6).pvalue]
    fisher = [
        stats.fisher_exact([[13, 7], [1, 39]]).pvalue,
        stats.fisher_exact([[0, 10], [6, 24]]).pvalue,
        stats.fisher_exact([[6, 24], [0, 10]]).pvalue,
    ]
    assert [one.mcnemar_p for one in judged] == pytest.approx(mcnemar)
    assert [one.fisher_p for one in judged] == pytest.approx(fisher)
    # Three are judged: the smallest p counts three times, the next twice, each no less than the one before.
    assert judged[0].mcnemar_p_holm == pytest.approx(3 * mcnemar[0])
    assert judged[2].mcnemar_p_holm == judged[1].mcnemar_p_holm == 1.0
    assert judged[0].fisher_p_holm == pytest.approx(3 * fisher[0])
    assert judged[1].fisher_p_holm == judged[2].fisher_p_holm == pytest.approx(2 * fisher[1])
    assert "over the 3 kinds of all tasks that can be judged" in told[1]


def test_what_cannot_be_judged_has_no_p_and_is_not_counted(told):
    sums, code = map(rows, told[0])
    assert {name: one.outcome for name, one in sums.items()} == {
        "numbers": "worse",
        "names": "too_few",
        "punctuation": "every_item",
    }
    for one in (sums["names"], sums["punctuation"]):
        assert (one.mcnemar_p, one.mcnemar_p_holm, one.fisher_p, one.fisher_p_holm) == (None,) * 4
    assert sums["punctuation"].rate_others is None
    assert "1 kind in fewer than 6 items" in told[1]
    assert code["code"].outcome == "at_chance", "the reference has none of them right"
    assert code["none"].outcome == "not_shown"


def test_fewer_items_than_judged_could_show_nothing():
    most = FEWEST_CLASS_ITEMS - 1
    assert stats.binomtest(0, most).pvalue > 0.05 > stats.binomtest(0, FEWEST_CLASS_ITEMS).pvalue


def test_a_class_that_gains_is_better():
    gained = answered("a", [n >= 12 for n in range(40)], [True] * 39 + [False])
    found, _ = sliced(results([gained], [PLAN], REQUEST), [gained], [classes(40, names=range(14))], seed=0)
    assert rows(found[0])["names"].outcome == "better"


def test_where_nothing_was_looked_at_that_alone_is_told():
    nothing = AnswerClasses(None, "Nothing was looked at: why.", {})
    found, multiplicity = sliced(results([SUMS], [PLAN], REQUEST), [SUMS], [nothing], seed=0)
    assert found[0].token_classes == ItemClasses(where=None, note="Nothing was looked at: why.")
    assert multiplicity == ""
    assert scored(None).token_classes.tokens == ()


# Two tokens of each of three items' right choices, the second choice; one has no number.
CHANGE = [9.0, -1.0, -2.0, 9.0, -4.0, float("nan"), 9.0, -0.5, -0.25]
SCORED = Likelihoods(
    reference=(np.asarray([-9.0, -1.0]),) * 3,
    candidate=(np.asarray([-9.0, -1.0]),) * 3,
    kl=np.zeros(9),
    item=np.repeat(np.arange(3), 3),
    choice=np.tile([0, 1, 1], 3),
    change=np.asarray(CHANGE),
)


def scored(token, **options):
    items = [Item(str(n), "?", choices=("no", "3 dogs"), gold=1) for n in range(3)]
    sides = [{"acc": choose(items, SCORED.reference, "acc")} for _ in range(2)]
    task = FileTask(source="file", format="arc", path="a.jsonl", metric="acc")
    one = Answered(task, items, "f", sides[0], sides[1], "acc", shortened=0, likelihoods=SCORED)
    held = {name: mask(3, range(3) if name == "numbers" else range(0)) for name in NAMES}
    of = AnswerClasses("right_choice", "", held, token)
    return sliced(results([one], [PLAN], REQUEST), [one], [of], seed=0, **options)[0][0]


def test_log_probabilities_are_means_over_tokens_with_intervals_over_items():
    """Of the right choice alone: the wrong one's gain of 9 nats is nowhere."""
    numbers = mask(6, (0, 2, 4))
    found = scored({name: numbers if name == "numbers" else mask(6, range(0)) for name in NAMES}).token_classes
    by = {one.name: one for one in found.tokens}
    assert list(by) == ["numbers", "none", "all"]
    assert (by["numbers"].tokens, by["numbers"].items) == (3, 3)
    assert (by["none"].tokens, by["none"].items) == (2, 2), "a token without a number is left out"
    assert by["numbers"].change.mean == pytest.approx((-1 - 4 - 0.5) / 3)
    assert by["none"].change.mean == pytest.approx((-2 - 0.25) / 2)
    # All: sums of items −3, −4, −0.75 over 2, 1, 2 tokens; the linearized error of a ratio, Student's t of two degrees.
    sums, counts = np.asarray([-3.0, -4.0, -0.75]), np.asarray([2.0, 1.0, 2.0])
    mean = sums.sum() / counts.sum()
    error = np.sqrt(3 / 2 * np.square(sums - mean * counts).sum()) / counts.sum()
    half = stats.t.ppf(0.975, 2) * error
    assert by["all"].change.mean == pytest.approx(mean)
    assert by["all"].change.ci == pytest.approx((mean - half, mean + half))


def test_classes_of_other_tokens_than_the_scored_ones_are_refused():
    with pytest.raises(RuntimeError, match="other tokens"):
        scored({name: mask(5, (0,)) for name in NAMES})


def test_classes_of_a_task_that_could_not_be_scored_make_no_other_easier_to_show():
    """Which tasks have no result hangs on what the models said: their classes count as if they showed nothing."""
    both = [SUMS, CODE]
    told = results(both, [PLAN] * 2, REQUEST)
    # Of 50 items 20 hold numbers, 3 names (too few), all punctuation (no others): one class could be judged.
    lost = classes(50, numbers=range(20), names=range(3), punctuation=range(50))
    untold = AnswerClasses(None, "Nothing was looked at: why.", {})
    found, multiplicity = sliced(told, both, [OF_SUMS, OF_CODE], seed=0, unscored=[lost, untold])
    one = rows(found[0])["numbers"]
    assert one.mcnemar_p_holm == pytest.approx(4 * stats.binomtest(12, 13).pvalue)
    assert one.fisher_p_holm == pytest.approx(4 * stats.fisher_exact([[13, 7], [1, 39]]).pvalue)
    assert (
        "over the 4 kinds of all tasks that can be judged (Holm), 1 of tasks that could not be scored" in multiplicity
    )


def test_intervals_of_tokens_stop_when_they_are_told_to():
    class StopError(Exception):
        pass

    def stop():
        raise StopError

    with pytest.raises(StopError):
        scored({name: mask(6, (0,)) for name in NAMES}, check_cancelled=stop)
