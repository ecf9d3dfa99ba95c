"""Whether the damages of two knobs add up.

Let L(p, q) be the mean negative log-probability of the observed tokens (ln PPL) with the first knob at p and the second
at q. A place of 0 means the step left out. Then

    I(p, q) = L(p, q) − L(p, 0) − L(0, q) + L(0, 0)

is 0 if the damages add up, positive where each makes the other worse, negative where they overlap. It is a mean over
the same tokens of four numbers per token. So its interval comes from the tokens' own differences, clustered by
document. The four perplexities move together from document to document, and most of that cancels.

Names: P and Q settings of the two knobs (index 0: left out), N clusters.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Cell = tuple[int, int]


def interactions(log_ppl_PQ: ArrayLike) -> Array:
    """I of every cell of a table of ln PPL whose first row and column are the settings that are left out: (P, Q).

    Raises ValueError for anything but a table. What is NaN in a cell or in its margins is NaN there.
    """
    table_PQ = np.asarray(log_ppl_PQ, dtype=np.float64)
    if table_PQ.ndim != 2 or 0 in table_PQ.shape:
        raise ValueError(f"a table of ln PPL is needed, not an array of shape {table_PQ.shape}")
    return np.asarray(table_PQ - table_PQ[:, :1] - table_PQ[:1, :] + table_PQ[:1, :1])


def paired(loss_N: Mapping[Cell, Array], cell: Cell, joint_N: Array | None = None) -> Array:
    """I of a cell, cluster by cluster (or token by token): sums of it over the tokens of each.

    `loss_N` has the sums of −ln q(x) of each cell over the same tokens; `joint_N` replaces the cell's own (the
    other order of the two steps).
    """
    p, q = cell
    own = loss_N[cell] if joint_N is None else joint_N
    return np.asarray(own - loss_N[p, 0] - loss_N[0, q] + loss_N[0, 0])
