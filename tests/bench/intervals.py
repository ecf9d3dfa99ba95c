"""`python -m tests.bench.intervals [TIMES]`: how often intervals hold a drawn truth, and how often p values find a
difference that is none; writes tests/bench/intervals.csv.

The mean per token is 1. Tokens of a document hang together and are skewed (`tests.support.token_sums`); a document's
effect multiplies them. `intervals`: the interval of a report, and beside it the percentile bootstrap of the same
documents. `few_documents`: fewer than six, so that windows are drawn. `p_values`: values whose mean is 0, and
differences of two values of one text that have the same mean.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import numpy as np

from tests.bench.rows import Row, write
from tests.support.token_sums import Array, lengths, token_sums
from workers.distributions.intervals import ratio_intervals
from workers.distributions.significance import p_values_of_sums

RESULTS: Final = Path(__file__).with_suffix(".csv")
# Texts a cell: a coverage of 95 % is then known to a standard error of 0.34 points.
TIMES: Final = 4000
# So many texts have documents of the same lengths and are resampled with one seed.
BLOCK: Final = 100
DOCUMENTS: Final = (6, 10, 30, 60, 120)
FEW: Final = (2, 3, 4, 5)
WINDOWS: Final = (4, 16)  # of each of few documents
PERCENTILE_RESAMPLES: Final = 2000
P_DOCUMENTS: Final = (10, 30, 120)
LEVELS: Final = (0.05, 0.005)
# One document in ten has an effect of ten times the others'.
HEAVY_SHARE: Final = 0.1
HEAVY: Final = 10.0
Effects = Callable[[np.random.Generator, tuple[int, ...]], Array]


def lognormal(sigma: float) -> Effects:
    """Effects of mean 1 whose logarithm has the standard deviation σ."""
    return lambda rng, shape: np.exp(sigma * rng.standard_normal(shape) - sigma**2 / 2)


def heavy(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Effects of mean 1, of which few are large."""
    raw = np.where(rng.random(shape) < HEAVY_SHARE, HEAVY, 1.0)
    return np.asarray(raw / (1 + HEAVY_SHARE * (HEAVY - 1)))


SHAPES: Final[dict[str, Effects]] = {
    **{f"lognormal_{sigma:g}": lognormal(sigma) for sigma in (0, 0.5, 0.8, 1)},
    "one_in_ten": heavy,
}
P_SHAPES: Final = ("lognormal_0.5", "lognormal_0.8")


def texts(
    effects: Effects, documents: int, times: int, seed: int, windows: int = 1
) -> Iterator[tuple[int, Array, Array]]:
    """Per block its seed, the sums (R, N) and the lengths (1, N) of its texts; a document has so many windows."""
    rng = np.random.default_rng([seed, documents])
    for block in range(0, times, BLOCK):
        repeats = min(BLOCK, times - block)
        length_1N = lengths((1, documents * windows), rng)
        effect_RN = np.repeat(effects(rng, (repeats, documents)), windows, axis=1)
        yield block, effect_RN * token_sums(np.repeat(length_1N, repeats, axis=0), rng), length_1N


def percentile_limits(sums_RN: Array, length_1N: Array, seed: int) -> tuple[Array, Array]:
    """Limits of the 95 % percentile bootstrap over documents: (R,) each."""
    documents = sums_RN.shape[1]
    drawn_BN = np.random.default_rng(seed).multinomial(
        documents, np.full(documents, 1 / documents), size=PERCENTILE_RESAMPLES
    )
    ratios_BR = (drawn_BN @ sums_RN.T) / (drawn_BN @ length_1N.T)
    low_R, high_R = np.quantile(ratios_BR, [0.025, 0.975], axis=0)
    return low_R, high_R


def coverage(shape: str, documents: int, times: int, windows: int = 1) -> Iterator[tuple[str, float]]:
    """Shares of texts: the interval holds the truth, the percentile interval does, the truth is above the interval."""
    held, percentile, above = 0, 0, 0
    for seed, sums_RN, length_1N in texts(SHAPES[shape], documents, times, 1, windows):
        _, _, low_R, high_R = ratio_intervals(sums_RN, length_1N, seed=seed)
        held += int(np.count_nonzero((low_R <= 1) & (high_R >= 1)))
        above += int(np.count_nonzero(high_R < 1))
        low_R, high_R = percentile_limits(sums_RN, length_1N, seed)
        percentile += int(np.count_nonzero((low_R <= 1) & (high_R >= 1)))
    yield "coverage_of_95", held / times
    yield "percentile_coverage_of_95", percentile / times
    yield "truth_above", above / times


def wrong(shape: str, documents: int, times: int, *, paired: bool) -> Iterator[tuple[str, float]]:
    """How often p is below each level without a difference."""
    found: list[float | None] = []
    for seed, sums_RN, length_1N in texts(SHAPES[shape], documents, 2 * times if paired else times, 2):
        half = len(sums_RN) // 2
        values_RN = sums_RN[:half] - sums_RN[half:] if paired else sums_RN - length_1N
        found += p_values_of_sums(values_RN, length_1N[0], seed=seed)
    p_R = np.asarray(found, dtype=np.float64)
    yield from ((f"p_below_{level:g}", float((p_R < level).mean())) for level in LEVELS)


def rows(times: int) -> Iterator[Row]:
    """All of them."""
    yield Row("intervals", "all", "texts_per_cell", times, "count")
    for shape in SHAPES:
        for documents in DOCUMENTS:
            yield from _rows("intervals", f"{shape}_{documents}_documents", coverage(shape, documents, times))
    for windows in WINDOWS:
        for documents in FEW:
            found = coverage("lognormal_0.5", documents, times, windows)
            yield from _rows("few_documents", f"{documents}_documents_of_{windows}_windows", found)
    for shape in P_SHAPES:
        for documents in P_DOCUMENTS:
            for kind in ("skewed", "paired"):
                found = wrong(shape, documents, times, paired=kind == "paired")
                yield from _rows("p_values", f"{kind}_{shape}_{documents}_documents", found)


def _rows(bench: str, case: str, found: Iterator[tuple[str, float]]) -> Iterator[Row]:
    for metric, share in found:
        sys.stderr.write(f"{bench:13} {case:35} {metric:26} {share:.4f}\n")
        yield Row(bench, case, metric, share, "ratio")


if __name__ == "__main__":
    write(RESULTS, rows(int(sys.argv[1]) if len(sys.argv) > 1 else TIMES))
