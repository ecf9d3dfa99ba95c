"""Differences by token class: against plain numpy, corrected over pairs and classes, and what cannot be told."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from tests.support.token_files import DOCUMENTS, LENGTH
from tests.unit.workers.diagnosis.diff.sides import holm, side
from workers.diagnosis.diff.answer import compare_reports
from workers.text.token_classes.catalogue import CLASSES

RNG = np.random.default_rng(8)
TOKENS = DOCUMENTS * LENGTH
WHERE = np.repeat(np.arange(DOCUMENTS), LENGTH)
HARD = RNG.lognormal(-1, 0.8, DOCUMENTS)[WHERE] * RNG.lognormal(0, 0.5, TOKENS)
# Of documents of unequal share; of four documents alone; every one of the code documents, as the domain has them.
MASKS = {
    "rare": np.tile(np.arange(LENGTH) < 20, DOCUMENTS),
    "json_structure": RNG.random(TOKENS) < (0.1 + 0.8 * RNG.random(DOCUMENTS))[WHERE],
    "tool_name": WHERE < 4,
    "code": WHERE % 2 == 1,
}


def by_class(found, pair=0):
    return {row.token_class: row for row in found.pairs[pair].token_classes}


def test_a_class_has_the_mean_of_its_tokens_clustered_by_document(tmp_path):
    gap = np.where(MASKS["json_structure"], -0.1, 0.5) + 0.05 * RNG.normal(size=DOCUMENTS)[WHERE]
    first, second = HARD + 1, HARD + 1 + gap
    rows = by_class(compare_reports([side(tmp_path, "a", first, MASKS), side(tmp_path, "b", second, MASKS)]))
    for name in ("json_structure", "rare"):
        row, mask = rows[name], MASKS[name]
        sums, counts = (np.bincount(WHERE[mask], weights=one) for one in (gap[mask], np.ones(mask.sum())))
        mean = sums.sum() / counts.sum()
        residuals = sums - mean * counts  # Cochran: of a ratio of sums over documents
        error = np.sqrt(DOCUMENTS / (DOCUMENTS - 1) * (residuals**2).sum()) / counts.sum()
        assert row.difference.mean == pytest.approx(mean, rel=1e-6)
        assert row.difference.ci == pytest.approx(stats.t.interval(0.95, DOCUMENTS - 1, mean, error), abs=0.25 * error)
        assert row.difference.clusters == "documents"
        assert (row.tokens, row.documents) == (mask.sum(), DOCUMENTS)
    assert rows["json_structure"].verdict == "better", "where the whole is worse"
    assert rows["rare"].verdict == "worse"


def test_a_class_that_is_a_domain_has_the_row_of_the_domain_but_for_the_correction(tmp_path):
    second = HARD + 0.1 * RNG.random(DOCUMENTS)[WHERE]
    found = compare_reports([side(tmp_path, "a", HARD, MASKS), side(tmp_path, "b", second, MASKS)])
    [domain] = [row for row in found.pairs[0].domains if row.domain == "code"]
    row = by_class(found)["code"]
    same = ("measure", "unit", "tokens", "documents", "difference", "p", "verdict")
    assert [getattr(row, name) for name in same] == [getattr(domain, name) for name in same]
    assert (row.domain, row.token_class, row.title, domain.token_class) == (None, "code", "Code", None)


def test_all_pairs_and_classes_are_corrected_together_and_apart_from_the_domains(tmp_path):
    losses = [HARD + 0.4 + 0.03 * RNG.normal(size=DOCUMENTS)[WHERE] for _ in range(3)]
    found = compare_reports([side(tmp_path, name, kl, MASKS) for name, kl in zip("abc", losses, strict=True)])
    rows = [row for pair in found.pairs for row in pair.token_classes if row.p is not None]
    assert len(rows) == 9, "three pairs, three classes that are judged"
    assert [row.p_adjusted for row in rows] == pytest.approx(holm([row.p for row in rows]))
    assert any(row.p < 0.05 for row in rows)
    without = compare_reports([side(tmp_path, name, kl) for name, kl in zip("abc", losses, strict=True)])
    assert [pair.domains for pair in found.pairs] == [pair.domains for pair in without.pairs]


def test_the_classes_are_in_the_measure_that_ranks_and_in_the_order_of_the_catalogue(tmp_path):
    sides = [side(tmp_path, name, kl, MASKS) for name, kl in (("a", HARD), ("b", HARD / 2))]
    rows = compare_reports(sides, by="top1_agreement").pairs[0].token_classes
    assert [row.token_class for row in rows] == ["code", "json_structure", "tool_name", "rare"]
    assert [row.title for row in rows][1:] == ["JSON structure", "Tool names", "Rare tokens"]
    assert {(row.measure, row.unit) for row in rows} == {("top1_agreement", "share")}
    mask = MASKS["json_structure"]
    assert rows[1].difference.mean == pytest.approx((HARD[mask] / 2 < 0.3).mean() - (HARD[mask] < 0.3).mean())


def test_a_class_of_fewer_than_six_documents_is_not_judged(tmp_path):
    found = compare_reports([side(tmp_path, "a", HARD, MASKS), side(tmp_path, "b", HARD + 0.3, MASKS)])
    row = by_class(found)["tool_name"]
    assert (row.documents, row.p, row.p_adjusted, row.verdict) == (4, None, None, "cannot be judged")
    assert row.difference.mean == pytest.approx(0.3)
    assert row.difference.clusters == "windows"


def test_a_position_that_not_all_count_to_a_class_is_left_out_of_it_and_told(tmp_path):
    """As `rare` over texts of other lengths."""
    other = MASKS | {"rare": MASKS["rare"] & (np.arange(TOKENS) != 7)}
    found = compare_reports([side(tmp_path, "a", HARD, MASKS), side(tmp_path, "b", HARD + 0.1, other)])
    assert by_class(found)["rare"].tokens == other["rare"].sum() == MASKS["rare"].sum() - 1
    named = [one.title for one in CLASSES if one.name not in MASKS]
    assert found.token_classes_note.startswith(f"Not among the compared positions: {', '.join(named)}.")
    told = "Left out where only some reports count a position to the class"
    assert found.token_classes_note.endswith(f"{told}: Rare tokens (1 position).")
    alike = compare_reports([side(tmp_path, "c", HARD, MASKS), side(tmp_path, "d", HARD, MASKS)])
    assert told not in alike.token_classes_note


def test_classes_are_those_of_the_positions_that_are_compared(tmp_path):
    hurt = HARD.copy()
    hurt[WHERE < 24] = np.nan
    found = compare_reports([side(tmp_path, "a", hurt, MASKS), side(tmp_path, "b", HARD + 0.1, MASKS)])
    assert by_class(found)["json_structure"].tokens == MASKS["json_structure"][WHERE >= 24].sum()
    assert by_class(found)["json_structure"].documents == 6
    assert "Tool names" in found.token_classes_note


def test_it_is_told_where_a_correction_over_classes_can_find_nothing(tmp_path):
    others = [one.name for one in CLASSES if one.name != "tool_name"][:9]
    many = dict.fromkeys(others, MASKS["rare"]) | {"tool_name": MASKS["tool_name"]}
    sides = [side(tmp_path, f"s{index}", HARD + 0.3 * index, many) for index in range(8)]
    found = compare_reports(sides)
    pairs = len(list(combinations(range(8), 2)))
    assert any(warning.startswith(f"{9 * pairs} differences by token class are") for warning in found.warnings)
    assert not any("by domain" in warning for warning in found.warnings)
    assert not any("token class" in warning for warning in compare_reports(sides[:7]).warnings)
