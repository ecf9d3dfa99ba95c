"""From the values of every test row to what a report says of a correction: the table, and what else it changes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.contracts.profile import Before, Effects
from workers.calibration.rows import Rows
from workers.calibration.selection import Mask, Paired, paired
from workers.distributions.intervals import Clusters
from workers.distributions.token_values import Positions, TokenValues
from workers.measuring.summary import as_mean

Array = NDArray[np.float64]


def parts_of(raw_T: Array, calibrated_T: Array, rows: Rows, own: Mask, *, seed: int) -> dict[str, Paired]:
    """One calibrator on the fitted domains together (""), on the others together ("other", where there are any), and
    on each domain (by "domain/…")."""
    domain = rows.row_domains()
    masks: dict[str, Mask] = {"": own}
    if not own.all():
        masks["other"] = ~own
    for name in sorted(set(domain.tolist())):
        masks[f"domain/{name}"] = domain == name
    return {name: paired(raw_T, calibrated_T, rows.positions, mask, seed=seed) for name, mask in masks.items()}


def before(
    raw_T: Array,
    calibrated_T: Array,
    positions: Positions,
    *,
    reference_T: Array | None = None,
    support: tuple[float, float] = (-np.inf, np.inf),
    seed: int,
) -> Before:
    """Means of a value of each row before and after, and of its change."""
    columns = [raw_T, calibrated_T, *([] if reference_T is None else [reference_T])]
    mask = np.logical_and.reduce([np.isfinite(column) for column in columns])
    if not mask.any():
        nothing = as_mean(None)
        return Before(
            reference=None if reference_T is None else nothing, raw=nothing, calibrated=nothing, change=nothing
        )
    kept = [column[mask] for column in columns]
    clusters = Clusters.at(positions.select(mask))
    raw, calibrated, *reference, change = clusters.means([*kept, kept[1] - kept[0]], seed=seed)
    return Before(
        reference=as_mean(reference[0], support) if reference else None,
        raw=as_mean(raw, support),
        calibrated=as_mean(calibrated, support),
        change=as_mean(change),
    )


def effects_of(
    raw: TokenValues,
    calibrated: TokenValues,
    rows: Rows,
    *,
    seed: int,
) -> Effects:
    """What the chosen calibrator changes beside KL."""

    def pair(name: str, support: tuple[float, float], reference: Array | None = None, sign: float = 1.0) -> Before:
        one, other = (sign * getattr(values, name).astype(np.float64) for values in (raw, calibrated))
        finite = raw.finite & calibrated.finite
        return before(
            np.where(finite, one, np.nan),
            np.where(finite, other, np.nan),
            rows.positions,
            reference_T=reference,
            support=support,
            seed=seed,
        )

    return Effects(
        top1_agreement=pair("top1_agree", (0.0, 1.0)),
        tv=pair("tv", (0.0, 1.0)),
        entropy=pair("entropy_candidate", (0.0, np.inf), raw.entropy_reference.astype(np.float64)),
        loss=pair("logp_candidate", (0.0, np.inf), -raw.logp_reference.astype(np.float64), sign=-1.0),
    )
