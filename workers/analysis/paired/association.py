"""Do items of a kind flip more often than the others? Fisher's exact test of the table kind × flipped."""

from __future__ import annotations

import numpy as np
from scipy import stats


def exact(flips: int, items: int, other_flips: int, other_items: int) -> float:
    """Two-sided p that both flip at the same rate: all tables with these margins that are no likelier than this one.

    Raises ValueError where either side has no item, or more flips than items.
    """
    if not 0 <= flips <= items or not 0 <= other_flips <= other_items or not items or not other_items:
        raise ValueError(f"{flips} of {items} and {other_flips} of {other_items} items are no two shares")
    table = np.asarray([[flips, items - flips], [other_flips, other_items - other_flips]])
    return min(1.0, float(stats.fisher_exact(table).pvalue))
