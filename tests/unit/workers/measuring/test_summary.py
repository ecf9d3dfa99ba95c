"""The blocks of a report against numpy over the same values."""

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from app.contracts.report import BandedSlice, DomainReport
from tests.support.values import random_values
from workers.distributions.intervals import Clusters
from workers.distributions.token_values import Positions, TokenValues
from workers.measuring.summary import CONFIDENCE_EDGES, as_mean, distribution, summarize, usable

DOMAINS = ["prose"] * 10 + ["code"] * 10 + ["speech"] * 2
WINDOW = 300


def corpus(seed: int = 0) -> tuple[TokenValues, Positions]:
    """22 documents of unequal length in windows of 300, the reference sharper in some than in others."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(60, 500, len(DOMAINS))
    document = np.repeat(np.arange(len(DOMAINS)), lengths)
    position = np.concatenate([np.arange(length) for length in lengths])
    window = np.cumsum((position % WINDOW) == 0) - 1
    values = random_values(document.size, seed=seed)
    return values, Positions(document, window, position, position % WINDOW + 1, rng.integers(0, 50, document.size))


VALUES, POSITIONS = corpus()
SUMMARY = summarize(VALUES, POSITIONS, DOMAINS, window=WINDOW)


def broken(values: TokenValues, where: NDArray[np.bool_]) -> TokenValues:
    """The same with nothing but NaN at some positions."""
    return replace(
        values,
        finite=~where,
        **{name: np.where(where, np.nan, column) for name, column in vars(values).items() if column.dtype.kind == "f"},
    )


def test_means_are_token_weighted() -> None:
    found = SUMMARY
    expected = {
        found.divergence.kl.mean: VALUES.kl.mean(),
        found.divergence.reverse_kl.mean: VALUES.reverse_kl.mean(),
        found.divergence.js.mean: VALUES.js.mean(),
        found.divergence.tv.mean: VALUES.tv.mean(),
        found.delta_p.mean: VALUES.delta_p.mean(),
        found.top1_agreement.mean: VALUES.top1_agree.mean(),
        found.agreement.top1.mean: VALUES.top1_agree.mean(),
        found.agreement.top5_overlap.mean: VALUES.overlap5.mean() / 5,
        found.agreement.top10_overlap.mean: VALUES.overlap10.mean() / 10,
        found.agreement.expected_rank.mean: VALUES.rank_of_reference_top.mean(),
        found.entropy.reference.mean: VALUES.entropy_reference.mean(),
        found.entropy.candidate.mean: VALUES.entropy_candidate.mean(),
    }
    for got, wanted in expected.items():
        assert got == pytest.approx(float(wanted), rel=1e-9)
    assert (found.documents, found.windows) == (22, np.unique(POSITIONS.window).size)


def test_the_interval_is_that_of_documents_with_the_seed_of_the_job() -> None:
    expected = Clusters(POSITIONS.document, "documents").means([VALUES.kl], seed=5)[0]
    found = summarize(VALUES, POSITIONS, DOMAINS, window=WINDOW, seed=5)
    assert found.divergence.kl.ci == pytest.approx(expected.interval, rel=1e-9)
    assert found.divergence.kl.clusters == "documents"
    assert found.divergence.kl.ci != SUMMARY.divergence.kl.ci


def test_order_statistics_are_numpys() -> None:
    for name, probability in {"median": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999, "max": 1.0}.items():
        expected = float(np.quantile(VALUES.kl, probability))
        assert getattr(SUMMARY.divergence.kl, name) == pytest.approx(expected, rel=1e-6)
    for name, probability in {"p001": 0.001, "p01": 0.01, "p05": 0.05, "p10": 0.1, "p999": 0.999}.items():
        expected = float(np.quantile(VALUES.delta_p, probability))
        assert getattr(SUMMARY.delta_p, name) == pytest.approx(expected, rel=1e-6)
    assert SUMMARY.delta_p.rms == pytest.approx(float(np.sqrt(np.mean(VALUES.delta_p**2))), rel=1e-9)
    assert (SUMMARY.divergence.tv.unit, SUMMARY.delta_p.unit) == ("probability", "probability")


def test_the_perplexity_ratio_is_paired() -> None:
    found = SUMMARY.perplexity
    assert found.reference == pytest.approx(math.exp(-VALUES.logp_reference.mean()), rel=1e-9)
    assert found.candidate == pytest.approx(math.exp(-VALUES.logp_candidate.mean()), rel=1e-9)
    assert found.ratio.mean == pytest.approx(found.candidate / found.reference, rel=1e-9)
    difference = VALUES.logp_reference - VALUES.logp_candidate
    paired = Clusters(POSITIONS.document, "documents").means([difference])[0]
    assert paired.interval is not None
    assert found.ratio.ci == pytest.approx([math.exp(limit) for limit in paired.interval], rel=1e-3)


def test_domains_cover_everything_and_a_domain_of_few_documents_is_clustered_by_windows() -> None:
    assert list(SUMMARY.domains) == ["prose", "code", "speech"]
    assert sum(block.tokens for block in SUMMARY.domains.values()) == len(VALUES)
    assert [block.documents for block in SUMMARY.domains.values()] == [10, 10, 2]
    speech = np.isin(POSITIONS.document, [20, 21])
    assert SUMMARY.domains["speech"].divergence.kl.mean == pytest.approx(float(VALUES.kl[speech].mean()), rel=1e-9)
    assert SUMMARY.domains["prose"].divergence.kl.clusters == "documents"
    assert SUMMARY.domains["speech"].divergence.kl.clusters == "windows"


def check_bands(bands: tuple[BandedSlice, ...], of: NDArray[np.floating]) -> None:
    for band in bands:
        closed = of <= band.high if band is bands[-1] else of < band.high
        mask = (of >= band.low) & closed
        assert band.tokens == np.count_nonzero(mask)
        assert band.share == pytest.approx(mask.mean())
        assert band.documents == np.unique(POSITIONS.document[mask]).size
        assert band.kl.mean == pytest.approx(float(VALUES.kl[mask].mean()), rel=1e-9)
        assert band.top1_agreement.mean == pytest.approx(float(VALUES.top1_agree[mask].mean()), rel=1e-9)
        ratio = math.exp((VALUES.logp_reference - VALUES.logp_candidate)[mask].mean())
        assert band.perplexity_ratio.mean == pytest.approx(ratio, rel=1e-9)


def check_blocks(part: DomainReport, mask: NDArray[np.bool_]) -> None:
    """Every metric of the whole against numpy over the positions of a part, each with an interval by cluster."""
    expected = {
        "kl": (part.divergence.kl, VALUES.kl),
        "reverse_kl": (part.divergence.reverse_kl, VALUES.reverse_kl),
        "js": (part.divergence.js, VALUES.js),
        "tv": (part.divergence.tv, VALUES.tv),
        "delta_p": (part.delta_p, VALUES.delta_p),
        "top1": (part.agreement.top1, VALUES.top1_agree),
        "top5": (part.agreement.top5_overlap, VALUES.overlap5 / 5),
        "top10": (part.agreement.top10_overlap, VALUES.overlap10 / 10),
        "rank": (part.agreement.expected_rank, VALUES.rank_of_reference_top),
        "reference": (part.entropy.reference, VALUES.entropy_reference),
        "candidate": (part.entropy.candidate, VALUES.entropy_candidate),
    }
    for name, (found, column) in expected.items():
        assert found.mean == pytest.approx(float(column[mask].mean(dtype=np.float64)), rel=1e-9)
        varies = np.unique(column[mask]).size > 1
        assert (found.ci[0] < found.mean < found.ci[1]) == varies, name
        assert found.clusters == ("windows" if np.unique(POSITIONS.document[mask]).size < 6 else "documents")
    for quantile, probability in {"p001": 0.001, "p05": 0.05, "median": 0.5, "p99": 0.99}.items():
        assert getattr(part.delta_p, quantile) == pytest.approx(float(np.quantile(VALUES.delta_p[mask], probability)))
    assert part.delta_p.rms == pytest.approx(float(np.sqrt(np.mean(VALUES.delta_p[mask] ** 2))), rel=1e-9)
    assert part.divergence.kl.p99 == pytest.approx(float(np.quantile(VALUES.kl[mask], 0.99)), rel=1e-6)
    assert part.perplexity.reference == pytest.approx(math.exp(-VALUES.logp_reference[mask].mean()), rel=1e-9)
    assert part.perplexity.candidate == pytest.approx(math.exp(-VALUES.logp_candidate[mask].mean()), rel=1e-9)


def test_a_domain_has_every_metric_of_the_whole() -> None:
    for first, last, name in ((0, 10, "prose"), (10, 20, "code"), (20, 22, "speech")):
        check_blocks(SUMMARY.domains[name], (first <= POSITIONS.document) & (POSITIONS.document < last))


def test_positions_in_the_window_are_banded_up_to_the_window() -> None:
    assert [(band.low, band.high) for band in SUMMARY.by_position] == [(0, 16), (16, 64), (64, 256), (256, 300)]
    check_bands(SUMMARY.by_position, POSITIONS.context.astype(float))
    assert sum(band.tokens for band in SUMMARY.by_position) == len(VALUES)


def test_confidence_is_banded_and_certainty_belongs_to_the_last_band() -> None:
    check_bands(SUMMARY.by_confidence, VALUES.top_probability_reference)
    sure = replace(VALUES, top_probability_reference=np.full(len(VALUES), 1.0000001))
    (band,) = summarize(sure, POSITIONS, DOMAINS, window=WINDOW).by_confidence
    assert (band.low, band.high) == CONFIDENCE_EDGES[-2:]


def test_equal_models_have_exactly_nothing() -> None:
    same = random_values(len(VALUES), noise=0.0)
    found = summarize(same, POSITIONS, DOMAINS, window=WINDOW)
    assert (found.divergence.kl.mean, found.divergence.kl.ci, found.divergence.kl.max) == (0.0, (0.0, 0.0), 0.0)
    assert (found.top1_agreement.mean, found.top1_agreement.ci) == (1.0, (1.0, 1.0))
    assert (found.perplexity.ratio.mean, found.perplexity.ratio.ci) == (1.0, (1.0, 1.0))
    assert (found.agreement.expected_rank.mean, found.agreement.expected_rank.ci) == (1.0, (1.0, 1.0))
    assert found.histogram.below == len(VALUES)


# --- what is not finite


def test_positions_that_are_not_finite_are_counted_and_left_out() -> None:
    where = np.zeros(len(VALUES), dtype=np.bool_)
    where[::7] = True
    found = summarize(broken(VALUES, where), POSITIONS, DOMAINS, window=WINDOW)
    clean = summarize(VALUES.select(~where), POSITIONS.select(~where), DOMAINS, window=WINDOW)
    assert found.nonfinite_positions == np.count_nonzero(where)
    assert found.tokens == len(VALUES)
    assert found.divergence == clean.divergence
    assert found.by_confidence == clean.by_confidence
    prose = np.isin(POSITIONS.document, range(10))
    assert found.domains["prose"].tokens == np.count_nonzero(prose & ~where)
    assert found.domains["prose"].nonfinite_positions == np.count_nonzero(prose & where)


def test_a_value_that_is_not_finite_is_not_used_although_the_logits_were() -> None:
    kl = VALUES.kl.copy()
    kl[3] = np.inf
    values = replace(VALUES, kl=kl)
    assert np.flatnonzero(~usable(values)).tolist() == [3]
    assert summarize(values, POSITIONS, DOMAINS, window=WINDOW).nonfinite_positions == 1


def test_a_domain_without_a_finite_position_has_no_numbers() -> None:
    found = summarize(broken(VALUES, POSITIONS.document < 10), POSITIONS, DOMAINS, window=WINDOW)
    prose = found.domains["prose"]
    assert (prose.tokens, prose.documents, prose.divergence.kl.mean, prose.perplexity.reference) == (0, 0, None, None)
    assert prose.nonfinite_positions == np.count_nonzero(POSITIONS.document < 10)
    assert found.domains["code"].divergence.kl.mean is not None


def test_a_candidate_that_gives_nothing_finite_still_has_a_summary() -> None:
    found = summarize(broken(VALUES, np.ones(len(VALUES), dtype=np.bool_)), POSITIONS, DOMAINS, window=WINDOW)
    assert found.nonfinite_positions == len(VALUES)
    assert found.divergence.kl.mean is found.divergence.kl.ci is found.divergence.kl.p99 is None
    assert found.delta_p.rms is None
    assert found.excess is None
    assert (found.by_position, found.by_confidence, sum(found.histogram.counts)) == ((), (), 0)


# --- the noise floor


def test_the_excess_is_paired_with_the_floor_at_each_position() -> None:
    floor = 0.5 * VALUES.kl
    found = summarize(VALUES, POSITIONS, DOMAINS, window=WINDOW, floor_kl=floor)
    plain = SUMMARY.excess
    assert found.excess.mean == pytest.approx(0.5 * VALUES.kl.mean(), rel=1e-9)
    # Paired, half the values have half the spread; unpaired it would be larger than before.
    assert found.excess.standard_error == pytest.approx(0.5 * (plain.standard_error or 0), rel=1e-9)
    assert found.floor.mean == pytest.approx(float(floor.mean()), rel=1e-9)
    assert found.divergence == SUMMARY.divergence


def test_where_the_floor_was_not_measured_its_mean_stands_in() -> None:
    floor = np.full(len(VALUES), np.nan)
    floor[:200] = np.linspace(0, 2e-3, 200)
    found = summarize(VALUES, POSITIONS, DOMAINS, window=WINDOW, floor_kl=floor)
    assert found.excess.mean == pytest.approx(float(VALUES.kl.mean()) - 1e-3, rel=1e-9)
    assert found.floor.tokens == 200


def test_nothing_is_taken_off_where_both_runs_are_the_same_to_the_last_bit() -> None:
    same = replace(VALUES, kl=np.zeros(len(VALUES)))
    found = summarize(same, POSITIONS, DOMAINS, window=WINDOW, floor_kl=np.full(len(VALUES), 1e-3))
    assert (found.excess.mean, found.excess.interval) == (0.0, (0.0, 0.0))
    assert found.floor.mean == pytest.approx(1e-3)


def test_a_constant_floor_shifts_the_excess_and_has_no_spread() -> None:
    found = summarize(VALUES, POSITIONS, DOMAINS, window=WINDOW, floor_kl=0.25)
    assert found.excess.mean == pytest.approx(float(VALUES.kl.mean()) - 0.25, rel=1e-9)
    assert found.floor is None


def test_a_floor_or_positions_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="noise floor has shape"):
        summarize(VALUES, POSITIONS, DOMAINS, window=WINDOW, floor_kl=np.zeros(3))
    with pytest.raises(ValueError, match="measured nowhere"):
        summarize(VALUES, POSITIONS, DOMAINS, window=WINDOW, floor_kl=np.full(len(VALUES), np.nan))
    with pytest.raises(ValueError, match="positions for"):
        summarize(VALUES, POSITIONS.select([0]), DOMAINS, window=WINDOW)
    with pytest.raises(ValueError, match="no scored position"):
        summarize(TokenValues.concat([]), POSITIONS.select([]), DOMAINS, window=WINDOW)


def test_any_values_have_a_distribution() -> None:
    values = np.where(np.arange(len(VALUES)) == 0, np.nan, VALUES.js)
    found = distribution(values, POSITIONS, support=(0, math.log(2)))
    assert found.mean == pytest.approx(float(np.nanmean(values)), rel=1e-9)
    assert distribution([np.nan], POSITIONS.select([0])).mean is None
    assert distribution(np.zeros(4), POSITIONS.select([0, 2000, 4000, 6000])).ci == (0.0, 0.0)


def test_one_window_has_means_but_no_intervals() -> None:
    found = summarize(VALUES.select(range(20)), POSITIONS.select(range(20)), DOMAINS, window=WINDOW)
    assert found.divergence.kl.mean is not None
    assert (found.divergence.kl.ci, found.divergence.kl.clusters) == (None, None)
    assert as_mean(None).mean is None
