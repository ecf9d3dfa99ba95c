import numpy as np
import pytest

from workers.calibration.selection import Candidate, choose, own_mask, paired, why_not
from workers.distributions.intervals import Clusters
from workers.distributions.token_values import Positions


def positions(documents: int, tokens: int = 40) -> Positions:
    document = np.repeat(np.arange(documents), tokens)
    within = np.tile(np.arange(tokens), documents)
    return Positions(document, document, within, within + 1, within)


def kl(documents: int, mean: float, seed: int = 0, tokens: int = 40) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return mean * np.repeat(rng.lognormal(0, 0.3, documents), tokens) * rng.exponential(1, documents * tokens)


def test_the_lowest_kl_is_chosen_but_not_for_a_hair() -> None:
    big, small, bad = Candidate("big", 0.2000, 900), Candidate("small", 0.2010, 10), Candidate("bad", 0.25, 1)
    assert choose([bad, big, small], raw_kl=0.3).name == "small"
    assert choose([bad, big, small], raw_kl=0.1).name == "big"
    assert choose([Candidate("broken", float("nan"), 0), bad], raw_kl=0.3).name == "bad"
    with pytest.raises(ValueError, match="finite"):
        choose([Candidate("broken", float("nan"), 0)], raw_kl=0.3)


def test_a_cell_is_the_paired_clustered_estimate() -> None:
    at, raw = positions(12), kl(12, 0.3)
    calibrated = raw * 0.7
    cell = paired(raw, calibrated, at, np.ones(raw.size, dtype=bool), seed=3).cell()
    expected = Clusters.of(at.document, at.window).means([calibrated - raw], seed=3)[0]
    assert cell.saved.mean == pytest.approx(raw.mean() * 0.3)
    # Resampling goes in another order where other quantities come along.
    assert cell.saved.ci == pytest.approx((-expected.interval[1], -expected.interval[0]), rel=0.03)
    assert cell.saved_share == pytest.approx(0.3)
    assert (cell.tokens, cell.documents, cell.saved.clusters) == (480, 12, "documents")


def test_rows_that_are_not_finite_are_left_out_of_both_sides() -> None:
    raw, calibrated = kl(12, 0.3), kl(12, 0.2, seed=1)
    raw[3], calibrated[7] = np.nan, np.inf
    cell = paired(raw, calibrated, positions(12), np.ones(raw.size, dtype=bool), seed=0).cell()
    keep = np.ones(raw.size, dtype=bool)
    keep[[3, 7]] = False
    assert cell.tokens == raw.size - 2
    assert cell.raw.mean == pytest.approx(raw[keep].mean())
    assert cell.calibrated.mean == pytest.approx(calibrated[keep].mean())


def verdict(shares: dict[str, float], *, documents: int = 12, tolerance: float = 0.005) -> tuple[str, ...]:
    """The reasons for a calibrator that multiplies the KL of each domain by a share."""
    found = {}
    raws, calibrated = [], []
    for seed, (name, share) in enumerate(shares.items()):
        raw = kl(documents, 0.3, seed)
        found[name] = paired(raw, raw * share, positions(documents), np.ones(raw.size, dtype=bool), seed=0)
        raws.append(raw)
        calibrated.append(raw * share)
    at = positions(documents * len(shares))
    own = paired(np.concatenate(raws), np.concatenate(calibrated), at, np.ones(len(at), dtype=bool), seed=0)
    return why_not(own, found, tolerance=tolerance, nonfinite=0)


def test_one_worse_domain_refuses_what_helps_on_the_whole() -> None:
    reasons = verdict({"prose": 0.5, "code": 0.5, "french": 1.05})
    assert len(reasons) == 1
    assert "domain french" in reasons[0]


def test_a_domain_that_stays_as_it_is_lies_within_the_tolerance_and_without_one_does_not() -> None:
    assert verdict({"prose": 0.7, "code": 1.0}) == ()
    assert verdict({"prose": 0.7, "code": 1.001}) == ()
    assert len(verdict({"prose": 0.7, "code": 1.0}, tolerance=0.0)) == 1


def test_a_gain_that_noise_explains_is_not_served() -> None:
    raw, other = kl(30, 0.3, 0), kl(30, 0.299, 1)
    found = paired(raw, other, positions(30), np.ones(raw.size, dtype=bool), seed=0)
    assert any("together" in reason for reason in why_not(found, {}, tolerance=0.005, nonfinite=0))


def test_what_has_no_interval_is_not_proven() -> None:
    raw = kl(1, 0.3)
    found = paired(raw, raw / 2, positions(1), np.ones(raw.size, dtype=bool), seed=0)
    assert "no interval" in why_not(found, {}, tolerance=0.005, nonfinite=0)[0]
    empty = paired(raw, raw, positions(1), np.zeros(raw.size, dtype=bool), seed=0)
    assert "no finite test position" in why_not(empty, {}, tolerance=0.005, nonfinite=0)[0]


def test_logits_that_are_not_finite_refuse_it() -> None:
    raw = kl(12, 0.3)
    found = paired(raw, raw / 2, positions(12), np.ones(raw.size, dtype=bool), seed=0)
    assert why_not(found, {"prose": found}, tolerance=0.005, nonfinite=0) == ()
    assert "not finite at 2" in why_not(found, {"prose": found}, tolerance=0.005, nonfinite=2)[0]


def test_false_service_is_as_rare_as_its_interval_says() -> None:
    """No true gain: the rule serves in at most 2.5 % of tests (one-sided), give or take what 30 documents cost."""
    served, runs = 0, 400
    at = positions(30, 10)
    rng = np.random.default_rng(0)
    for _ in range(runs):
        change = np.repeat(rng.normal(0, 0.02, 30), 10) + rng.normal(0, 0.05, 300)
        raw = np.full(300, 0.3)
        found = paired(raw, raw + change, at, np.ones(300, dtype=bool), seed=0)
        served += why_not(found, {}, tolerance=0.0, nonfinite=0) == ()
    # Three standard errors above 3.5 %.
    assert served / runs < 0.035 + 3 * np.sqrt(0.035 * 0.965 / runs)


def test_where_the_test_has_no_fitted_domain_all_of_it_is_judged_together() -> None:
    domains = np.asarray(["code", "code", "prose"])
    assert own_mask(domains, ["code"]).tolist() == [True, True, False]
    assert own_mask(domains, ["french"]).tolist() == [True, True, True]
