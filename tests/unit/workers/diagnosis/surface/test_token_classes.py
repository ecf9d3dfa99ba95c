"""Interactions by token class: each says what its positions alone say."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import stats

from app.contracts.request import Thresholds
from app.kinds.surface.plan import cells_of
from tests.support.surface_reports import surface_request
from tests.support.sweep_reports import DOCUMENTS, TOKENS, class_masks, positions, values
from workers.diagnosis.surface.slices import TOO_FEW
from workers.diagnosis.surface.table import Table
from workers.diagnosis.surface.token_classes import token_classes
from workers.distributions.intervals import Clusters
from workers.measuring.points.record import PointRecord, record_of

REQUEST = surface_request(sparsities=(0.3, 0.6), bits=(6, 4), orders="both")
CELLS = cells_of(REQUEST)
HURT = 0.3  # nats per token by which both knobs together hurt the names


@cache
def measured():
    """Values by token of every setting; of both knobs together the names lose more."""
    names = class_masks(positions())["names"]
    found = []
    for seed, cell in enumerate(CELLS):
        loss = 0.001 + 0.02 * cell.first + 0.03 * cell.second + (0.005 if cell.order == "reversed" else 0.0)
        one = values(loss, loss, seed=seed)
        both = HURT if cell.first and cell.second else 0.0
        found.append(replace(one, logp_candidate=one.logp_candidate - both * names))
    return found


@cache
def table():
    """Made once: do not change it."""
    where = positions()
    masks = class_masks(where)
    records = [
        record_of(one, where, DOCUMENTS, floor=0.0, thresholds=Thresholds(), seed=0, classes=masks)
        for one in measured()
    ]
    return Table(REQUEST, CELLS, records, np.arange(DOCUMENTS), domain_D=("prose",) * DOCUMENTS)


def of(made, chosen=3):
    return token_classes(made, chosen, check_cancelled=lambda: None)


def parts(found):
    return {one.name: one for one in found.classes} | {"none": found.none}


def by_hand(mask):
    """I of every setting of both knobs at the positions of a class, token by token, from the probabilities."""
    loss = {
        (cell.first, cell.second, cell.order): -np.asarray(one.logp_candidate, dtype=np.float64)[mask]
        for cell, one in zip(CELLS, measured(), strict=True)
    }
    return {
        key: loss[key] - loss[key[0], 0, "as given"] - loss[0, key[1], "as given"] + loss[0, 0, "as given"]
        for key in loss
        if key[0] and key[1]
    }


def test_interactions_are_those_of_the_losses_by_token_and_intervals_those_of_their_documents():
    where, masks = positions(), class_masks(positions())
    found = of(table())
    assert [one.name for one in found.classes] == ["numbers", "code", "names", "rare"], "the order of the catalogue"
    for name in ("numbers", "names", "rare", "none"):
        told, mask = parts(found)[name], masks[name]
        assert (told.tokens, told.documents, told.note) == (np.count_nonzero(mask), DOCUMENTS, "")
        expected = by_hand(mask)
        assert len(told.interactions) == len(expected) == 8
        columns = [expected[row.first, row.second, row.order] for row in told.interactions]
        means = [column.sum() / mask.sum() for column in columns]
        assert [row.nats.mean for row in told.interactions] == pytest.approx(means, abs=1e-12)
        theirs = Clusters.of(where.document[mask], where.window[mask]).means(columns)
        assert [row.nats.ci for row in told.interactions] == [pytest.approx(one.interval) for one in theirs]
        given = np.mean([column for key, column in expected.items() if key[2] == "as given"], axis=0)
        assert told.average.mean == pytest.approx(given.mean(), abs=1e-12)
        # Linearized, with Student's t: near the bootstrap, which follows the skew.
        sums_D = np.array([given[where.document[mask] == document].sum() for document in range(DOCUMENTS)])
        counts_D = np.bincount(where.document[mask], minlength=DOCUMENTS)
        left_D = sums_D - given.mean() * counts_D
        error = np.sqrt(DOCUMENTS / (DOCUMENTS - 1) * (left_D**2).sum()) / counts_D.sum()
        low, high = told.average.ci
        assert low < told.average.mean < high
        assert high - low == pytest.approx(2 * stats.t.ppf(0.975, DOCUMENTS - 1) * error, rel=0.4)


def test_kl_is_that_of_the_values_by_token_at_every_setting():
    masks = class_masks(positions())
    for name, told in parts(of(table())).items():
        means = [one.kl[masks[name]].astype(np.float64).sum() / masks[name].sum() for one in measured()]
        assert [mean.mean for mean in told.kl_by_setting] == pytest.approx(means, rel=1e-12)
        assert told.kl == told.kl_by_setting[3]


def test_what_compounds_in_one_class_is_told_there_and_tested_over_the_classes_that_have_an_interval():
    found = parts(of(table()))
    names, numbers = found["names"], found["numbers"]
    assert names.average.mean == pytest.approx(HURT, abs=0.05)
    assert names.average_p < 0.01 and {row.kind for row in names.interactions} == {"compounds"}
    assert found["code"].average_p is None, "of too few documents"
    # By hand: Holm's rule over the three others, of the p value that belongs to the average's own interval.
    raw = {}
    for name in ("numbers", "names", "rare"):
        raw[name] = replace(table(), records=[only(record, name) for record in table().records]).average_p_value()
        low, high = found[name].average.ci
        assert (raw[name] < 0.05) == (low > 0 or high < 0)
    ordered, largest = sorted(raw, key=raw.get), 0.0
    for rank, name in enumerate(ordered):
        largest = max(largest, min(1.0, (3 - rank) * raw[name]))
        assert found[name].average_p == pytest.approx(largest)
    assert numbers.average_p >= raw["numbers"]


def only(record, name):
    """A point over the positions of a class, by the values of each token."""
    place, mask = table().records.index(record), class_masks(positions())[name]
    return record_of(
        measured()[place].select(mask), positions().select(mask), DOCUMENTS, floor=0.0, thresholds=Thresholds(), seed=0
    )


def test_a_class_of_few_documents_has_means_only_and_says_so():
    code = parts(of(table()))["code"]
    assert (code.note, code.documents, code.tokens) == (TOO_FEW, 4, 4 * TOKENS / 2)
    assert code.interactions == () and code.average.ci is None and code.kl.ci is None
    expected = by_hand(class_masks(positions())["code"])
    given = [column.mean() for key, column in expected.items() if key[2] == "as given"]
    assert code.average.mean == pytest.approx(np.mean(given), abs=1e-12)
    assert all(mean.mean is not None and mean.ci is None for mean in code.kl_by_setting)


def test_a_setting_that_is_not_whole_stands_in_no_interaction_and_needs_no_sums():
    where, records = positions(), list(table().records)
    at = next(index for index, cell in enumerate(CELLS) if (cell.first, cell.second) == (2, 2))
    gone = next(index for index, cell in enumerate(CELLS) if (cell.first, cell.second) == (1, 2))
    broken = values(0.1, 0.1, seed=at, broken=7)
    records[at] = record_of(broken, where, DOCUMENTS, floor=0.0, thresholds=Thresholds(), seed=0)
    records[gone] = PointRecord(refused="the model has no such layer")
    found = of(replace(table(), records=records))
    names = parts(found)["names"]
    left = {(row.first, row.second, row.order) for row in names.interactions}
    assert left == {
        (cell.first, cell.second, cell.order)
        for index, cell in enumerate(CELLS)
        if cell.first and cell.second and index not in {at, gone}
    }
    assert [place for place, mean in enumerate(names.kl_by_setting) if mean.mean is None] == sorted([at, gone])
    assert names.tokens == parts(of(table()))["names"].tokens


def test_classes_that_the_text_lacks_are_named():
    found = of(table())
    assert "JSON structure" in found.absent and "Numbers" not in found.absent
    assert len(found.absent) + len(found.classes) == 11
