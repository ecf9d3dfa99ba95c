"""Paired differences, their correction, ranks and ties: against scipy, and drawn so that the truth is known."""

import numpy as np
import pytest
from scipy import stats

from app.contracts.errors import HemostatError
from app.contracts.notices import DiffNotice
from tests.support.token_files import DOCUMENTS, LENGTH, positions
from tests.unit.workers.diagnosis.diff.sides import holm, side
from workers.diagnosis.diff.answer import Side, compare_reports

RNG = np.random.default_rng(5)
WHERE = np.repeat(np.arange(DOCUMENTS), LENGTH)
HARD = RNG.lognormal(-1, 0.8, DOCUMENTS)[WHERE] * RNG.lognormal(0, 0.5, WHERE.size)  # hard texts are hard for all


def row(found, measure="kl", pair=0):
    return next(one for one in found.pairs[pair].differences if one.measure == measure)


def test_the_difference_is_paired_by_token_and_clustered_by_document(tmp_path):
    other = HARD + 0.02 + 0.03 * RNG.normal(size=DOCUMENTS)[WHERE]
    other = np.maximum(other, 0)
    found = compare_reports([side(tmp_path, "a", HARD), side(tmp_path, "b", other)])
    kl = row(found)
    by_document = (other - HARD).reshape(DOCUMENTS, LENGTH).mean(axis=1)
    assert kl.difference.mean == pytest.approx(by_document.mean(), rel=1e-9)
    low, high = stats.t.interval(0.95, DOCUMENTS - 1, by_document.mean(), stats.sem(by_document))
    assert kl.difference.ci == pytest.approx((low, high), abs=0.004)
    assert kl.p == pytest.approx(stats.ttest_1samp(by_document, 0).pvalue, abs=0.01)
    unpaired = stats.sem(HARD.reshape(DOCUMENTS, LENGTH).mean(axis=1))
    assert kl.difference.ci[1] - kl.difference.ci[0] < unpaired, "what makes a text hard has cancelled"
    assert kl.verdict == "worse"
    assert found.verdict == "a is better than b in KL."
    assert (found.tokens, found.documents) == (DOCUMENTS * LENGTH, DOCUMENTS)


def test_one_document_of_one_window_is_no_ground_to_judge_on(tmp_path):
    first, where = HARD[:LENGTH], positions(1)
    sides = [side(tmp_path, name, first + shift, where=where) for name, shift in (("a", 0), ("b", 0.1), ("c", 0.1))]
    found = compare_reports(sides)
    said = ["cannot be judged", "cannot be judged", "equal"]
    assert [row(found, pair=pair).verdict for pair in range(3)] == said
    assert (row(found).p, row(found).difference.ci) == (None, None)
    assert found.verdict == (
        "how a, b and c differ in KL cannot be judged on so few documents; 1 of 3 is equal at every position."
    )
    two = compare_reports(sides[:2])
    assert two.ties == (("a", "b"),)
    assert two.verdict == "whether a and b differ in KL cannot be judged on so few documents."


def test_equal_ones_are_called_equal(tmp_path):
    same = [side(tmp_path, name, HARD) for name in "abc"]
    two = compare_reports(same[:2])
    assert (row(two).verdict, two.ties) == ("equal", (("a", "b"),))
    assert compare_reports(same).verdict == "a, b and c are equal in KL at every position."
    found = compare_reports([*same[:2], side(tmp_path, "d", HARD + 0.3)])
    assert found.verdict.startswith("in KL a and b are the best, and none of them is shown to be better; 1 of 3 pairs")


def test_ranks_are_ranges_and_ties_are_named(tmp_path):
    noise = 0.05 * RNG.normal(size=(4, DOCUMENTS))[:, WHERE]
    losses = {"a": 0.5, "b": 0.501, "c": 0.2, "d": 1.5}
    sides = [
        side(tmp_path, name, np.maximum(0, HARD + shift + noise[index]))
        for index, (name, shift) in enumerate(losses.items())
    ]
    found = compare_reports(sides)
    assert found.ranking[0].letter == "c"
    assert found.ranking[-1].letter == "d"
    ranks = {one.letter: (one.best_rank, one.worst_rank) for one in found.ranking}
    assert ranks == {"c": (1, 1), "a": (2, 3), "b": (2, 3), "d": (4, 4)}
    assert found.ties == (("a", "b"),)
    assert found.verdict == "c is better than every other one in KL; 1 of 6 pairs is a tie."
    assert len(found.pairs) == 6


def test_the_first_one_is_not_called_better_than_one_that_it_is_not_told_from(tmp_path):
    """By document: a beats b for sure and b beats c, yet of a and c, further apart, no difference is shown."""
    b = np.array([0.19, 0.80, 0.04, 0.06, 1.57, 0.83, 1.80, 1.84])
    c = b + np.array([0.88, 1.12, 0.38, 0.50, 0.49, 1.13, 0.18, 0.37])
    losses = [np.repeat(0.5 + kl, LENGTH) for kl in (np.zeros(8), b, c)]
    found = compare_reports(
        [
            side(tmp_path, name, kl, where=positions(8), domains=("prose",))
            for name, kl in zip("abc", losses, strict=True)
        ]
    )
    assert [row(found, pair=pair).verdict for pair in range(3)] == ["worse", "no difference shown", "worse"]
    ranks = {one.letter: (one.best_rank, one.worst_rank) for one in found.ranking}
    assert ranks == {"a": (1, 2), "b": (2, 2), "c": (2, 3)}
    assert found.verdict == "a ranks first in KL, but is not told from c; 1 of 3 pairs is a tie."


def test_all_pairs_are_corrected_together(tmp_path):
    noise = 0.1 * RNG.normal(size=(5, DOCUMENTS))[:, WHERE]
    sides = [side(tmp_path, f"c{index}", np.maximum(0, HARD + 0.4 + noise[index])) for index in range(5)]
    found = compare_reports(sides)
    rows = [row(found, pair=index) for index in range(10)]
    assert [one.p_adjusted for one in rows] == pytest.approx(holm([one.p for one in rows]))


def test_domains_are_compared_by_themselves(tmp_path):
    code = np.array([index % 2 == 1 for index in range(DOCUMENTS)])[WHERE]
    noise = 0.01 * RNG.normal(size=DOCUMENTS)[WHERE]
    other = HARD + np.where(code, 0.3, 0.0) + np.abs(noise)
    found = compare_reports([side(tmp_path, "a", HARD + 0.01 * np.abs(noise)), side(tmp_path, "b", other)])
    by_domain = {one.domain: one for one in found.pairs[0].domains}
    assert by_domain["code"].difference.mean == pytest.approx(0.3, abs=0.02)
    assert by_domain["prose"].difference.mean == pytest.approx(0.0, abs=0.02)
    assert by_domain["code"].documents == DOCUMENTS // 2


def test_a_domain_of_fewer_than_six_documents_is_not_judged(tmp_path):
    few = tuple(f"domain{number}" for number in range(7))  # of 30 documents each has four or five
    sides = [side(tmp_path, name, HARD + shift, domains=few) for name, shift in (("a", 0.0), ("b", 0.3))]
    (pair,) = compare_reports(sides).pairs
    assert {one.documents for one in pair.domains} == {4, 5}
    assert {(one.verdict, one.p, one.p_adjusted) for one in pair.domains} == {("cannot be judged", None, None)}
    assert row(compare_reports(sides)).verdict == "worse"  # all thirty are enough


def test_a_verdict_that_is_not_conclusive_keeps_its_classes(tmp_path):
    sure, unsure = side(tmp_path, "a", HARD), side(tmp_path, "b", HARD)
    decision = unsure.report.decision.model_copy(update={"conclusive": False, "classes": ("mild", "moderate")})
    unsure = Side(unsure.name, unsure.report.model_copy(update={"decision": decision}), unsure.tokens)
    assert [one.classes for one in compare_reports([sure, unsure]).ranking] == [(), ("mild", "moderate")]


def test_reports_that_differ_are_refused_and_each_difference_is_named(tmp_path):
    sides = [side(tmp_path, "a", HARD), side(tmp_path, "b", HARD, dtype="float32", protocol={"window": 256})]
    with pytest.raises(HemostatError) as caught:
        compare_reports(sides)
    assert "dtype: a bfloat16, b float32" in caught.value.detail
    assert "window: a 512, b 256" in caught.value.detail
    assert "--anyway" in caught.value.hint


def test_anyway_labels_the_result(tmp_path):
    sides = [side(tmp_path, "a", HARD), side(tmp_path, "b", 0.5 * HARD, dtype="float32")]
    found = compare_reports(sides, anyway=True)
    assert not found.comparable
    assert found.label.startswith("NOT COMPARABLE: dtype differs;")
    assert found.verdict.startswith("Not comparable, compared anyway: b is better than a")
    assert [one.what for one in found.mismatches] == ["dtype"]


def test_positions_that_are_cut_short_are_told(tmp_path):
    short = positions().select(np.arange(1000))
    sides = [side(tmp_path, "a", HARD), side(tmp_path, "b", HARD[:1000], where=short)]
    with pytest.raises(HemostatError, match="scored positions: a 1200, b 1000, of which 1000 are the same"):
        compare_reports(sides)
    found = compare_reports(sides, anyway=True)
    assert found.tokens == 1000


def test_nothing_in_common_is_refused_even_anyway(tmp_path):
    where = positions()
    foreign = type(where)(where.document, where.window, where.position, where.context, where.token_id + 5)
    sides = [
        side(tmp_path, "a", HARD),
        side(tmp_path, "b", HARD, where=foreign, protocol={"tokenizer_fingerprint": "f"}),
    ]
    with pytest.raises(HemostatError, match="share no position: there is nothing to compare"):
        compare_reports(sides, anyway=True)


def test_what_is_not_finite_in_one_is_left_out_for_all(tmp_path):
    hurt = HARD.copy()
    hurt[:LENGTH] = np.nan
    found = compare_reports([side(tmp_path, "a", HARD), side(tmp_path, "b", hurt)])
    assert found.tokens == (DOCUMENTS - 1) * LENGTH
    assert DiffNotice.NONFINITE_POSITIONS(report="b", positions=40) in found.warnings
    assert found.ranking[0].value.mean == pytest.approx(HARD[LENGTH:].mean())
    with pytest.raises(HemostatError, match="no position that is finite in all of them"):
        compare_reports([side(tmp_path, "a", HARD), side(tmp_path, "b", np.full(1200, np.nan))])


@pytest.mark.parametrize("documents", [4, 1])
def test_few_documents_are_clustered_by_windows_and_told(tmp_path, documents):
    where = positions(documents, 1200 // documents)
    windows = type(where)(where.document, np.arange(1200) // 40, where.position, where.context, where.token_id)
    found = compare_reports([side(tmp_path, name, HARD * n, where=windows) for name, n in (("a", 1), ("b", 0.9))])
    assert row(found).difference.clusters == "windows"
    assert DiffNotice.FEW_DOCUMENTS(documents=documents) in found.warnings
