"""The contour of a chosen loss: the published iso-loss line, and lines whose places are known."""

import numpy as np
import pytest

from tests.support.published_surfaces import ISO_LOSS, PUBLISHED_LIMITS, WANDA_FORMATS, WANDA_GGUF, WANDA_SHARES
from workers.analysis.threshold.formfree import largest_mild
from workers.diagnosis.surface.contour import limit, limits, lines, resampled_limits, settings_limits


def share_at(place):
    return float(np.interp(place, range(len(WANDA_SHARES)), WANDA_SHARES))


@pytest.mark.parametrize("form", PUBLISHED_LIMITS)
def test_the_published_iso_loss_line(form):
    column = np.log(WANDA_GGUF[:, WANDA_FORMATS.index(form)])
    place = limit(column, np.log(ISO_LOSS))
    # The published line was drawn through a smoothed surface; between two settings it may lie elsewhere.
    assert share_at(place) == pytest.approx(PUBLISHED_LIMITS[form], abs=0.75)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([0.0, 0.1, 0.2], None),
        ([0.4, 0.5, 0.6], 0.0),
        ([0.0, 0.1, np.nan], 1.0),
        ([0.0, np.inf], 0.0),
        ([0.0, 0.3], None),
        ([0.0, 0.2, 0.6], 1.25),  # from 0.2 at place 1 to 0.6 at place 2, 0.3 is a quarter of the way
        ([0.0, 0.5, 0.1, 0.9], 0.6),  # the first crossing counts
    ],
)
def test_a_limit_by_hand(losses, expected):
    assert limit(losses, 0.3) == (None if expected is None else pytest.approx(expected))


def test_lines_of_a_plane_are_straight():
    p, q = np.meshgrid(np.arange(5.0), np.arange(4.0), indexing="ij")
    [line] = lines(p + q, 2.5)
    assert len(line) == 6
    for first, second in line:
        assert first + second == pytest.approx(2.5)
    ends = {line[0], line[-1]}
    assert ends == {(0.0, 2.5), (2.5, 0.0)}
    assert lines([[0.0, 1.0], [np.nan, 2.0]], 0.5) == (), "a broken cell has no line"


def test_a_hill_is_a_closed_line():
    p, q = np.meshgrid(np.arange(-4.0, 5.0), np.arange(-4.0, 5.0), indexing="ij")
    [line] = lines(-np.hypot(p, q), -2.6)
    assert line[0] == line[-1]
    # Chords of the linear interpolation lie a little inside or outside the circle around (4, 4).
    assert [np.hypot(a - 4, b - 4) for a, b in line] == pytest.approx([2.6] * len(line), abs=0.06)


@pytest.mark.parametrize(
    ("level", "line"),
    [
        (0.499999, {(0.0, 0.5), (0.5, 0.0)}),  # the middle is above: the low corners stand alone
        (0.500001, {(0.0, 0.5), (0.5, 1.0)}),  # the middle is below: the high ones do
    ],
)
def test_a_saddle_is_split_by_its_mean(level, line):
    found = lines([[0.0, 1.0], [1.0, 0.0]], level)
    assert len(found) == 2
    assert line in [{(round(p, 3), round(q, 3)) for p, q in one} for one in found]


def test_rows_are_found_together_as_alone():
    rng = np.random.default_rng(0)
    losses = np.cumsum(rng.exponential(0.2, (50, 6)), axis=1)
    together = limits(losses, 0.6)
    alone = [limit(row, 0.6) for row in losses]
    assert [None if np.isnan(one) else one for one in together] == pytest.approx(alone)


def test_the_interval_of_a_limit_covers_the_truth():
    # Loss of document d at place k: k·(1 + e_d). The limit of 1.5 is 1.5 where the mean of e is 0.
    covered = 0
    rng = np.random.default_rng(7)
    counts = np.full(40, 10.0)
    for trial in range(100):
        effect = rng.normal(0, 0.4, 40)
        sums = np.stack([k * (1 + effect) * counts for k in range(4)])
        low, high = resampled_limits(sums, counts, 1.5, seed=trial)
        covered += low <= 1.5 <= high
    assert 90 <= covered <= 99


def test_a_limit_beyond_the_range_has_no_upper_end():
    effect = np.random.default_rng(1).normal(0, 1.0, 30)
    low, high = resampled_limits(np.stack([k * (0.45 + 0.3 * effect) for k in range(3)]), np.ones(30), 1.0, seed=0)
    assert 0 < low < 2
    assert high == np.inf


@pytest.mark.parametrize("growing", [False, True])
def test_before_a_broken_setting_the_interval_is_the_gap(growing):
    sums = np.full((3, 8), 0.01)
    sums[2] = np.nan
    assert limit(sums.mean(axis=1), 0.1, growing=growing) == 1.0
    assert resampled_limits(sums, np.ones(8), 0.1, seed=0, growing=growing) == (1.0, 2.0)


# Mean KL at 16 (left out), 8, 6, 5 and 4 bits, and how documents differ in it.
KL_P = np.array([0.0, 0.0012, 0.03, 0.115, 0.45])
BITS_P = [16, 8, 6, 5, 4]
EFFECT_D = np.exp(np.random.default_rng(5).normal(0, 0.2, 40))


@pytest.mark.parametrize("measured", [(0, 1, 2, 3, 4), (0, 1, 4), (0, 1, 3), (0, 3), (0, 1, 2)])
def test_a_divergence_passes_a_level_where_a_sweep_of_the_same_settings_says(measured):
    kl_P, bits_P = KL_P[list(measured)], [BITS_P[place] for place in measured]
    swept = largest_mild(bits_P, kl_P, kl_P * 0.9, kl_P * 1.1, 0.05).at
    place = limit(kl_P, 0.05, growing=True)
    found = None if place is None else float(np.interp(place, range(len(bits_P)), bits_P))
    assert found == (None if swept is None else pytest.approx(swept))


def test_the_interval_of_a_divergence_reaches_from_a_straight_line_to_the_stronger_setting():
    sums_PN = KL_P[[0, 1, 4], None] * EFFECT_D / EFFECT_D.mean()
    place = 1 + np.log(0.05 / 0.0012) / np.log(0.45 / 0.0012)
    assert limit(sums_PN.mean(axis=1), 0.05, growing=True) == pytest.approx(place)
    low, high = resampled_limits(sums_PN, np.ones(40), 0.05, seed=0, growing=True)
    straight = 1 + (0.05 - 0.0012) / (0.45 - 0.0012)
    assert straight - 0.02 < low < straight < place < high == 2.0
    assert resampled_limits(sums_PN, np.ones(40), 0.05, seed=0, growing=True, convex=False) == (1.0, 2.0)


def test_the_interval_holds_what_was_measured_between_the_two_settings():
    # Eight bits alone, then with a fifth of the weights pruned; 0.1 was passed near 0.12 of the weights.
    sums = np.array([[0.0027], [0.274]]) * EFFECT_D / EFFECT_D.mean()
    low, high = resampled_limits(sums, np.ones(40), 0.1, seed=0, growing=True)
    assert 0.2 * low < 0.12 < 0.2 * high


@pytest.mark.parametrize("form", range(len(WANDA_FORMATS)))
def test_the_interval_holds_published_losses_that_were_left_out(form):
    shares, loss = np.array(WANDA_SHARES, dtype=float), np.log(WANDA_GGUF[:, form])
    held, tried = 0, 0
    for before, left_out, after in zip(range(8), range(1, 9), range(2, 10), strict=True):
        if not loss[before] < loss[left_out] < loss[after]:
            continue
        ends = resampled_limits(np.outer(loss[[before, after]], np.ones(6)), np.ones(6), loss[left_out] - 1e-9, seed=0)
        place = (shares[left_out] - shares[before]) / (shares[after] - shares[before])
        tried += 1
        held += ends[0] <= place <= ends[1]
    assert tried >= 6
    # A column may bend the other way once, where nearly nothing is lost.
    assert held >= tried - 1


def test_the_interval_covers_the_crossing_of_smooth_curves_on_random_grids():
    rng = np.random.default_rng(4)
    held, tried = 0, 0
    while tried < 150:
        power, rate, scale = rng.uniform(1, 4), rng.uniform(2, 14), 10 ** rng.uniform(-0.5, 1.5)
        offset = rng.choice([0, 0.003, 0.02])
        powers = bool(rng.integers(2))
        setting_P = np.append(0.0, np.sort(rng.uniform(0.05, 0.95, rng.integers(2, 7))))
        kl_P = offset + scale * setting_P**power if powers else scale * np.exp(rate * (setting_P - 1))
        if not kl_P[0] < 0.05 < kl_P[-1]:
            continue
        truth = ((0.05 - offset) / scale) ** (1 / power) if powers else 1 + np.log(0.05 / scale) / rate
        effect_D = rng.lognormal(-0.125, 0.5, 20)
        low, high = resampled_limits(np.outer(kl_P, effect_D), np.ones(20), 0.05, seed=tried, growing=True)
        tried += 1
        held += low <= np.interp(truth, setting_P, range(len(setting_P))) <= high
    assert held >= 0.95 * tried


def test_next_to_nothing_the_interval_is_the_whole_gap():
    little = np.array([[0.00002], [0.115]]) * EFFECT_D / EFFECT_D.mean()
    assert resampled_limits(little, np.ones(40), 0.05, seed=0, growing=True) == (0.0, 1.0)
    # The loss of a draw may be resolved where the mean is not: the place of the mean is then still in the interval.
    faint = np.array([[0.000049], [0.115]]) * EFFECT_D / EFFECT_D.mean()
    assert resampled_limits(faint, np.ones(40), 0.05, seed=0, growing=True) == (0.0, 1.0)


def test_from_the_unmodified_model_the_interval_begins_where_a_straight_line_passes():
    sums_PN = KL_P[[0, 3], None] * EFFECT_D / EFFECT_D.mean()
    straight = 0.05 / 0.115
    low, high = resampled_limits(sums_PN, np.ones(40), 0.05, seed=0, growing=True)
    assert straight - 0.05 < low < straight == pytest.approx(limit(sums_PN.mean(axis=1), 0.05, growing=True))
    assert high == 1.0
    kl_P, low_P, high_P = np.array([0.0, 0.115]), np.array([0.0, 0.1]), np.array([0.0, 0.125])
    assert settings_limits(kl_P, low_P, high_P, 0.05, growing=True) == pytest.approx((0.4, 1.0))
    for whole in (
        resampled_limits(sums_PN, np.ones(40), 0.05, seed=0, growing=True, convex=False),
        settings_limits(kl_P, low_P, high_P, 0.05, growing=True, convex=False),
    ):
        assert whole == (0.0, 1.0), "of a knob whose damage need not grow ever faster"


def test_lines_of_a_divergence_go_through_the_limits():
    table_PQ = np.outer([0.002, 0.03, 0.4], [1.0, 3.0, 20.0])
    ends = [end for line in lines(table_PQ, 0.05, growing=True) for end in line]
    for q in range(3):
        assert min(abs(end[0] - limit(table_PQ[:, q], 0.05, growing=True)) for end in ends if end[1] == q) < 1e-12
    straight = [end for line in lines(table_PQ, 0.05) for end in line]
    assert min(abs(end[0] - limit(table_PQ[:, 0], 0.05)) for end in straight if end[1] == 0) < 1e-12


@pytest.mark.parametrize("clusters", [1, 2, 5, 6])
def test_fewer_than_six_clusters_have_no_interval(clusters):
    sums = np.arange(3.0)[:, None] * np.random.default_rng(0).lognormal(0, 0.5, clusters)
    found = resampled_limits(sums, np.ones(clusters), 0.7, seed=0)
    if clusters < 6:
        assert found is None
    else:
        assert found[0] < limit(sums.mean(axis=1), 0.7) < found[1]


def test_the_order_of_documents_does_not_move_the_interval():
    rng = np.random.default_rng(3)
    counts = rng.integers(5, 60, 12).astype(float)
    sums = np.arange(4.0)[:, None] * rng.lognormal(0, 0.5, 12) * counts
    order = rng.permutation(12)
    found = resampled_limits(sums, counts, 1.5, seed=2)
    assert resampled_limits(sums[:, order], counts[order], 1.5, seed=2) == pytest.approx(found, rel=1e-12)


def test_the_intervals_of_settings_leave_open_what_they_do_to_a_sweep_of_them():
    rng = np.random.default_rng(8)
    ends = set()
    for trial in range(400):
        # Some at next to nothing, some beyond the level at once or nowhere.
        kl_P = np.cumsum(rng.exponential(rng.choice([1e-5, 0.02, 0.1]), rng.integers(2, 6)))
        low_P, high_P = kl_P * rng.uniform(0.2, 1, kl_P.size), kl_P * rng.uniform(1, 3, kl_P.size)
        convex = bool(trial % 2)
        swept = largest_mild(range(kl_P.size), kl_P, low_P, high_P, 0.1, convex=convex).ci
        # Of a sweep an end outside of its settings is None, on whichever side.
        beyond = [0.0 if row[0] > 0.1 else np.inf for row in (high_P, low_P)]
        expected = [end if place is None else place for place, end in zip(swept, beyond, strict=True)]
        found = settings_limits(kl_P, low_P, high_P, 0.1, growing=True, convex=convex)
        assert found == pytest.approx(expected)
        ends.update(place is None for place in swept)
    assert ends == {True, False}


def test_what_a_setting_leaves_open_by_hand():
    kl_P, low_P, high_P = np.array([0.01, 0.0652, 0.42]), np.array([0.008, 0.044, 0.3]), np.array([0.02, 0.129, 0.6])
    # The upper limits pass 0.1 at (0.1 − 0.02)/(0.129 − 0.02) of the first gap, the lower ones within the second.
    assert settings_limits(kl_P, low_P, high_P, 0.1, growing=True) == pytest.approx((0.08 / 0.109, 2.0))
    assert settings_limits(kl_P, low_P, high_P, 0.1, growing=True, convex=False) == (0.0, 2.0)
    assert settings_limits(np.log1p(kl_P), np.log1p(low_P), np.log1p(high_P), 2.0) == (np.inf, np.inf)
    broken = [np.append(row_P[:2], np.nan) for row_P in (kl_P, low_P, high_P)]
    assert settings_limits(*broken, 0.2) == (1.0, 2.0), "the whole gap before what is not finite"
