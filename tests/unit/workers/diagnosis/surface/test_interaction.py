"""Whether two damages add up: the published surfaces, and estimates against numpy's and scipy's own."""

import numpy as np
import pytest
from scipy import stats

from tests.support.published_surfaces import (
    ASVD_FORMATS,
    ASVD_RTN,
    ASVD_SHARES,
    SPARSEGPT_FORMATS,
    SPARSEGPT_GPTQ,
    SPARSEGPT_SHARES,
    WANDA_FORMATS,
    WANDA_GGUF,
    WANDA_SHARES,
)
from workers.diagnosis.surface.interaction import interactions, paired
from workers.measuring.points.clusters import Clustered

WANDA = interactions(np.log(WANDA_GGUF))
ASVD = interactions(np.log(ASVD_RTN))


def wanda(share, form):
    return WANDA[WANDA_SHARES.index(share), WANDA_FORMATS.index(form)]


def asvd(share, form):
    return ASVD[ASVD_SHARES.index(share), ASVD_FORMATS.index(form)]


@pytest.mark.parametrize(
    ("found", "published"),
    [(("Q3_K_M", (60, 65, 70)), (0.03, 0.08, 0.09)), (("Q2_K", (10, 50, 60, 70)), (0.06, 0.17, 0.35, 0.51))],
)
def test_the_published_interactions_of_pruning_and_quantization(found, published):
    form, shares = found
    assert [wanda(share, form) for share in shares] == pytest.approx(published, abs=0.006)


def test_the_published_safe_zone_adds_up():
    rows = [WANDA_SHARES.index(share) for share in WANDA_SHARES if share <= 50]
    columns = [WANDA_FORMATS.index(form) for form in WANDA_FORMATS if form != "Q2_K"]
    assert np.abs(WANDA[np.ix_(rows, columns)]).max() <= 0.0055


def test_the_published_interactions_of_low_rank_and_rounding():
    assert asvd(17, "INT6") == pytest.approx(0.02, abs=0.003)
    assert asvd(25, "INT6") == pytest.approx(0.09, abs=0.003)
    assert asvd(27, "INT6") < -0.1, "where one axis is broken, the other seems to help"


def test_the_published_interactions_of_sparsegpt_and_gptq():
    """Counted from the first row, as those of two knobs in one step are."""
    found = dict(zip(SPARSEGPT_FORMATS, interactions(np.log(SPARSEGPT_GPTQ)).T, strict=True))
    at = {share: row for row, share in enumerate(SPARSEGPT_SHARES)}
    assert np.abs(found["INT8"][: at[60] + 1]).max() <= 0.0055
    assert np.abs(found["INT4"][: at[60] + 1]).max() <= 0.018
    # ln 19.40 − ln 15.93 − ln 5.432 + ln 5.143
    assert found["INT4"][at[70]] == pytest.approx(0.142, abs=0.001)
    three = SPARSEGPT_GPTQ[:, SPARSEGPT_FORMATS.index("INT3")]
    assert three[at[50]] < three[at[30]] < three[at[10]], "a broken axis: more zeros, fewer losses"
    assert found["INT3"][at[50]] == pytest.approx(-0.369, abs=0.001), "which reads as an overlap"


def test_one_cell_by_hand():
    # ln 15.18 − ln 9.897 − ln 6.685 + ln 6.157
    assert wanda(60, "Q2_K") == pytest.approx(np.log(15.18 * 6.157 / (9.897 * 6.685)), abs=1e-12)


def test_margins_are_zero_and_products_add_up():
    table = np.log(np.outer([3.0, 4.0, 9.0], [1.0, 1.1, 7.0]))
    assert interactions(table) == pytest.approx(np.zeros((3, 3)), abs=1e-12)
    assert (WANDA[0] == 0).all()
    assert (WANDA[:, 0] == 0).all()
    table[1, 0] = np.nan
    assert np.isnan(interactions(table)[1]).all() and np.isfinite(interactions(table)[[0, 2]]).all()


@pytest.mark.parametrize("table", [np.zeros(3), np.zeros((0, 2)), np.float64(1.0)])
def test_anything_but_a_table_is_refused(table):
    with pytest.raises(ValueError, match="table of ln PPL"):
        interactions(table)


def drawn(documents=40, length=25, seed=3):
    """Sums by document of the losses of four cells, and tokens of each document."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(3, 1, (documents, length))
    joint = 0.2 * rng.normal(size=(documents, 1))
    loss = {(0, 0): shared, (1, 0): shared + 0.3, (0, 1): shared + 0.5, (1, 1): shared + 0.8 + 0.1 + joint}
    sums = {cell: values.sum(axis=1) for cell, values in loss.items()}
    return Clustered.of([length] * documents, np.arange(documents)), sums


def test_the_interval_is_that_of_the_paired_differences_by_document():
    clusters, loss = drawn()
    [found] = clusters.means([paired(loss, (1, 1))], seed=0)
    by_document = paired(loss, (1, 1)) / 25
    assert found.mean == pytest.approx(by_document.mean(), rel=1e-12)
    low, high = stats.t.interval(0.95, 39, by_document.mean(), stats.sem(by_document))
    assert found.ci == pytest.approx((low, high), abs=0.012)
    assert found.clusters == "documents"
    table = np.array([[loss[p, q].sum() for q in (0, 1)] for p in (0, 1)]) / 1000
    assert found.mean == pytest.approx(interactions(table)[1, 1], abs=1e-12)
    [p] = clusters.p_values([paired(loss, (1, 1))], seed=0)
    assert p == pytest.approx(stats.ttest_1samp(by_document, 0).pvalue, abs=0.01)


def test_another_order_of_the_steps_has_the_same_margins():
    _, loss = drawn()
    assert paired(loss, (1, 1), loss[1, 1] + 0.25) == pytest.approx(paired(loss, (1, 1)) + 0.25)
