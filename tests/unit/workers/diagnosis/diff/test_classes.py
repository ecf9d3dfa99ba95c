"""Differences by token class: against plain numpy, corrected over pairs and classes, and what cannot be told."""

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


def test_all_pairs_and_classes_are_corrected_together_and_apart_from_the_domains(tmp_path):
    losses = [HARD + 0.4 + 0.02 * place + 0.03 * RNG.normal(size=DOCUMENTS)[WHERE] for place in range(3)]
    found = compare_reports([side(tmp_path, name, kl, MASKS) for name, kl in zip("abc", losses, strict=True)])
    rows = [row for pair in found.pairs for row in pair.token_classes if row.p is not None]
    assert len(rows) == 9, "three pairs, three classes that are judged"
    assert [row.p_adjusted for row in rows] == pytest.approx(holm([row.p for row in rows]))
    assert any(row.p < 0.05 for row in rows)
    without = compare_reports([side(tmp_path, name, kl) for name, kl in zip("abc", losses, strict=True)])
    assert [pair.domains for pair in found.pairs] == [pair.domains for pair in without.pairs]


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
