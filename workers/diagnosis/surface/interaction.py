"""Whether the damages of two knobs add up.

With L(p, q) the mean negative log-probability of the observed tokens (ln PPL) where the first knob is at p and the
second at q, 0 meaning the step left out,

    I(p, q) = L(p, q) − L(p, 0) − L(0, q) + L(0, 0)

is 0 where the damages add up, positive where each makes the other worse, negative where they overlap. It is a mean over
the same tokens of four numbers a token, so its interval comes from the tokens' own differences, clustered by document:
the four perplexities move together from document to document, and most of that cancels.

Names: P and Q settings of the two knobs (index 0: left out), T positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from app.contracts.report import Mean
from workers.diagnosis.summary import as_mean
from workers.distributions.intervals import Clusters
from workers.distributions.token_values import Positions

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


def paired(loss_T: Mapping[Cell, Array], cell: Cell, joint_T: Array | None = None) -> Array:
    """I of a cell at every position: its mean is I. `loss_T` gives −ln q(x) of each cell, NaN where it is not finite;
    `joint_T` stands in for the cell's own (the other order of the two steps)."""
    p, q = cell
    own = loss_T[cell] if joint_T is None else joint_T
    return np.asarray(own - loss_T[p, 0] - loss_T[0, q] + loss_T[0, 0])


def estimates(
    columns: Sequence[Array], where: Positions, *, seed: int, low: float = -np.inf, high: float = np.inf
) -> list[Mean]:
    """Mean and clustered interval of each column over its finite values, cut to [low, high].

    Columns that are finite at the same positions share their draws of documents.
    """
    found: dict[int, Mean] = {}
    groups: dict[bytes, list[int]] = {}
    for index, column in enumerate(columns):
        groups.setdefault(np.packbits(np.isfinite(column)).tobytes(), []).append(index)
    for members in groups.values():
        finite = np.isfinite(columns[members[0]])
        if not finite.any():
            found |= {index: Mean(mean=None, ci=None) for index in members}
            continue
        clusters = Clusters.of(where.document[finite], where.window[finite])
        means = clusters.means([columns[index][finite] for index in members], seed=seed)
        found |= {index: as_mean(mean, (low, high)) for index, mean in zip(members, means, strict=True)}
    return [found[index] for index in range(len(columns))]
