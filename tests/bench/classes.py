"""`python -m tests.bench.classes`: how often a class is wrongly said to differ; writes tests/bench/classes.csv.

Values of a document's tokens are lognormal about the document's own level; each of eleven classes takes its share of
every document's tokens without looking at their values, so that none differs. The p values of a report's classes are
adjusted by Holm's rule as a report does it: in 5 % of the texts at most any should lie below 0.05.
"""

from pathlib import Path

import numpy as np

from tests.bench.rows import Row, write
from workers.distributions.intervals import FEWEST_CLUSTERS
from workers.distributions.significance import holm
from workers.distributions.token_values import Positions
from workers.measuring.token_classes import LEVEL, difference

RESULTS = Path(__file__).with_suffix(".csv")
# Texts a case: a rate of 5 % is then known to a standard error of 0.7 points.
TIMES = 1000
TOKENS = 170
DOCUMENTS = (12, 24, 60)
# σ of a token's logarithm within its document, of documents' levels, and of the logarithm of a class's share of them.
TAILS = (1.0, 1.5)
LEVELS, SHARES = 0.7, 0.8
# Mean shares of the classes, before they vary by document.
CLASSES = np.linspace(0.01, 0.3, 11)


def wrong(documents: int, tail: float, rng: np.random.Generator) -> tuple[bool, bool, bool]:
    """Whether some class of one text is said to differ, whether one to lose less, and whether one to lose more."""
    document_T = np.repeat(np.arange(documents), TOKENS)
    where = Positions(document_T, document_T, document_T, document_T, document_T)
    level_T = np.exp(rng.normal(0, LEVELS, documents))[document_T]
    kl_T = level_T * rng.lognormal(-2, tail, document_T.size)
    found = []
    for share in CLASSES:
        share_T = np.clip(share * np.exp(rng.normal(0, SHARES, documents)), 0, 0.9)[document_T]
        mask_T = rng.random(document_T.size) < share_T
        if np.unique(document_T[mask_T]).size >= FEWEST_CLUSTERS:
            found.append(difference(kl_T, where, mask_T))
    p_values = holm([p for _, p in found])
    sure = [gap.mean for (gap, _), p in zip(found, p_values, strict=True) if gap and p is not None and p < LEVEL]
    return bool(sure), any(gap < 0 for gap in sure), any(gap > 0 for gap in sure)


def main() -> None:
    """Writes the rows."""
    rows = []
    for tail in TAILS:
        for documents in DOCUMENTS:
            rng = np.random.default_rng(documents)
            texts = np.asarray([wrong(documents, tail, rng) for _ in range(TIMES)])
            case = f"sigma_{tail:g}_{documents}_documents"
            for metric, rate in zip(("any_wrong", "wrongly_less", "wrongly_more"), texts.mean(0), strict=True):
                rows.append(Row("classes", case, metric, float(rate), "ratio"))
    write(RESULTS, rows)


if __name__ == "__main__":
    main()
