"""Two questions a fit cannot answer itself: is there a transition at all, and does the form fit?

**Is there a transition?** The published form always has a knee somewhere, on a straight line too. The hypothesis that
there is none is tested three times, as a power law, as an exponential and as a line in y. The statistic is how much
smaller the published form's sum of squares is, T = SSE(straight)/SSE(published) - 1. It is held against T of curves
drawn around the straight fit. Under the hypothesis the knee does not exist, so no table of F or χ² holds (Davies,
Biometrika 74, 1987); the draws do. A transition is claimed where *all* are rejected: the largest p-value decides.

Those draws take the points' errors for independent. Points that were measured on the same documents share theirs, and
such errors can bend a straight curve smoothly. Then little is left beside any form that bends, and T is large. So each
form is tested a second time if the documents' losses are known. The second statistic is how much smaller the published
form's sum of squares is in absolute terms, G = SSE(straight) - SSE(published). It is held against G of the straight fit
plus what whole resampled documents move the curve by. The larger p-value of the two is the form's.

**Does the form fit?** Residuals of a right form have no order along s. The statistic is that of Stute (Annals of
Statistics 25, 1997): the sum of squares of the running sums of residuals, here over the sum of their squares. It is
calibrated by drawing curves around the fit and fitting each again (Stute, González Manteiga and Presedo Quindimil,
Journal of the American Statistical Association 93, 1998).

Draws as in `resampling`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from workers.analysis.threshold import published
from workers.analysis.threshold.bounds import Bounds
from workers.analysis.threshold.curve import ROUNDING, Array, Curve
from workers.analysis.threshold.documents import DocumentLosses
from workers.analysis.threshold.line import NAME, Line
from workers.analysis.threshold.resampling import draw, excess, point_variances

RESAMPLES = 1999
_GRID = 96


@dataclass(frozen=True)
class TransitionTest:
    """p-value of each form without transition; the largest one counts. `by_points`: the same where the points' errors
    are taken for independent, whatever is known of documents."""

    p_values: Mapping[str, float]
    by_points: Mapping[str, float]

    @property
    def p(self) -> float:
        """Of the hypothesis that there is no transition."""
        return max(self.p_values.values())

    @property
    def p_by_points(self) -> float:
        """The same of independent errors."""
        return max(self.by_points.values())


def transition_test(
    curve: Curve,
    bounds: Bounds,
    *,
    documents: DocumentLosses | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> TransitionTest:
    """Tests power law, exponential and line against the published form under its bounds; `documents`: losses at the
    curve's settings, in the same order."""
    search = published.search(curve, bounds)
    designs = search.designs(curve.s_N, search.grid(curve.s_N, size=_GRID))
    count = len(curve)
    _, sse_G = designs.solve(curve.log_N)
    rng = np.random.default_rng(seed)
    shared_BN = None if documents is None else _moved_by_documents(documents, seed=seed, resamples=resamples)
    p_values, by_points = {}, {}

    def test(name: str, fitted_N: Array, variance_N: Array, straight: Callable[[Array], Array]) -> None:
        own, own_straight = float(sse_G.min()), float(((curve.log_N - fitted_N) ** 2).sum())
        drawn_BN = draw(rng, fitted_N, variance_N, resamples)
        p_values[name] = by_points[name] = _p_value(
            excess(own_straight, own, count), excess(straight(drawn_BN), designs.sse(drawn_BN).min(axis=0), count)
        )
        if shared_BN is not None:
            moved_BN = fitted_N + shared_BN
            gain_B = straight(moved_BN) - designs.sse(moved_BN).min(axis=0)
            p_values[name] = max(by_points[name], _p_value(own_straight - own, gain_B))

    for name, x_N in (("power_law", np.log(curve.s_N)), ("exponential", curve.s_N)):
        design_NK = np.column_stack([np.ones(count), x_N])
        basis_NK, _ = np.linalg.qr(design_NK)
        residual_N = curve.log_N - basis_NK @ (basis_NK.T @ curve.log_N)
        variance_N = point_variances(curve.s_N, residual_N, design_NK)
        test(name, curve.log_N - residual_N, variance_N, partial(_outside, basis_NK=basis_NK))
    line = Line(curve.s_N)
    rise, _ = line.fit(curve)
    residual_N, slope_N = line.residual(curve), line.slope(np.asarray([rise]))[0]
    variance_N = point_variances(curve.s_N, residual_N, np.column_stack([np.ones(count), slope_N]))
    test(NAME, curve.log_N - residual_N, variance_N, partial(line.refitted, rise=rise))
    return TransitionTest(p_values, by_points)


def _outside(log_BN: Array, basis_NK: Array) -> Array:
    """Sums of squares (B) of what an orthonormal basis leaves of each curve."""
    return np.asarray(((log_BN - (log_BN @ basis_NK) @ basis_NK.T) ** 2).sum(axis=1))


def _moved_by_documents(documents: DocumentLosses, *, seed: int, resamples: int) -> Array:
    """What other documents of the same kind move each point by, (B, N): from resampled ones, whose variance is that of
    D documents over that of D - 1."""
    count = len(documents.tokens_D)
    drawn_BN = documents.logs(documents.draws(seed=seed, resamples=resamples)) - documents.logs()
    return np.asarray(drawn_BN * np.sqrt(count / (count - 1)))


def _p_value(observed: Array | float, drawn_B: Array) -> float:
    return (1 + int((drawn_B >= observed).sum())) / (len(drawn_B) + 1)


def lack_of_fit(
    curve: Curve, bounds: Bounds, fit: published.PublishedFit, *, seed: int = 0, resamples: int = RESAMPLES
) -> float | None:
    """p-value of the hypothesis that the published form holds; None with fewer than two spare points."""
    if len(curve) - published.free_coefficients(bounds) < 2:
        return None
    search = published.search(curve, bounds)
    grid_G = search.grid(curve.s_N, size=_GRID)
    designs = search.designs(curve.s_N, np.unique(np.append(grid_G, fit.s0)))
    mean_N = fit.predict(curve.s_N)
    residual_N = curve.log_N - mean_N
    tangent_NK = published.tangents(curve.s_N, fit.b, fit.k1, fit.k2, fit.s0)
    variance_N = point_variances(curve.s_N, residual_N, tangent_NK)
    drawn_BN = draw(np.random.default_rng(seed), mean_N, variance_N, resamples)
    design_B, coefficient_BK, _ = designs.best(drawn_BN)
    residual_BN = drawn_BN - np.einsum("bnk,bk->bn", designs.design_GNK[design_B], coefficient_BK)
    observed = float(_order(residual_N[None])[0])
    return _p_value(observed, _order(residual_BN))


def _order(residual_BN: Array) -> Array:
    """Mean square of the running sums over the mean square of the residuals, rounding added."""
    running_BN = np.cumsum(residual_BN, axis=1)
    return np.asarray((running_BN**2).mean(axis=1) / ((residual_BN**2).mean(axis=1) + ROUNDING**2))
