"""Which calibrator is chosen, and whether it may be served.

Chosen by the choose set: the lowest mean KL, and among those that come close to it the smallest. Served only if the
test documents prove it. Over the fitted domains together the upper 95 % limit of (calibrated − raw) KL must be below
zero, and on every domain below a tolerance. Differences are paired by position and clustered by document
(`workers.distributions.intervals`); a domain whose interval cannot be known is not proven.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.contracts.profile import Cell
from workers.calibrators.storage import CALIBRATOR_FILE, TENSORS_FILE
from workers.distributions.intervals import Clusters, Estimate
from workers.distributions.token_values import Positions
from workers.measuring.summary import as_mean

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Share of the raw KL within which a smaller calibrator is as good as the best.
CLOSE: Final = 0.005


@dataclass(frozen=True)
class Candidate:
    """A fitted calibrator as the choice sees it: mean KL on the choose set (nats), bytes of its tensors."""

    name: str
    kl: float
    bytes: int


def choose(candidates: Sequence[Candidate], raw_kl: float) -> Candidate:
    """The smallest of those whose KL is within `CLOSE` · `raw_kl` of the lowest. What is not finite is never chosen.

    Raises ValueError if nothing is left to choose.
    """
    sound = [found for found in candidates if np.isfinite(found.kl)]
    if not sound:
        raise ValueError("no calibrator has a finite KL")
    best = min(found.kl for found in sound)
    near = [found for found in sound if found.kl <= best + CLOSE * max(raw_kl, 0.0)]
    return min(near, key=lambda found: (found.bytes, found.kl, found.name))


def frozen_hash(folders: Mapping[str, Path], chosen: str, rule: Mapping[str, object]) -> str:
    """SHA-256 of everything that the test could still influence: calibrators, choice, rule."""
    digest = hashlib.sha256(json.dumps({"chosen": chosen, "rule": rule}, sort_keys=True).encode())
    for name, folder in sorted(folders.items()):
        digest.update(name.encode())
        for file in (CALIBRATOR_FILE, TENSORS_FILE):
            digest.update(hashlib.sha256((folder / file).read_bytes()).digest())
    return digest.hexdigest()


@dataclass(frozen=True)
class Paired:
    """Raw and calibrated KL over one part of the rows, and their difference, each clustered alike. None: no row."""

    raw: Estimate | None
    calibrated: Estimate | None
    change: Estimate | None
    documents: int

    def cell(self) -> Cell:
        """As the report writes it: saved instead of change."""
        saved = None if self.change is None else negated(self.change)
        mean, base = (None if found is None else found.mean for found in (saved, self.raw))
        return Cell(
            tokens=0 if self.raw is None else self.raw.tokens,
            documents=self.documents,
            raw=as_mean(self.raw, (0.0, np.inf)),
            calibrated=as_mean(self.calibrated, (0.0, np.inf)),
            saved=as_mean(saved),
            saved_share=None if mean is None or not base else mean / base,
        )


def paired(raw_T: Array, calibrated_T: Array, positions: Positions, where: Mask, *, seed: int) -> Paired:
    """Over the rows of a mask at which both are finite."""
    mask = where & np.isfinite(raw_T) & np.isfinite(calibrated_T)
    if not mask.any():
        return Paired(None, None, None, 0)
    at, raw, calibrated = positions.select(mask), raw_T[mask], calibrated_T[mask]
    one, other, change = Clusters.at(at).means([raw, calibrated, calibrated - raw], seed=seed)
    return Paired(one, other, change, documents=int(np.unique(at.document).size))


def negated(estimate: Estimate) -> Estimate:
    """Of −x."""
    interval = estimate.interval
    return Estimate(
        mean=-estimate.mean,
        standard_error=estimate.standard_error,
        interval=None if interval is None else (-interval[1], -interval[0]),
        tokens=estimate.tokens,
        clusters=estimate.clusters,
        by=estimate.by,
    )


def own_mask(domain_T: NDArray[np.str_], fitted: Collection[str]) -> Mask:
    """Rows of the fitted domains; where the test has none of them, all rows."""
    own: Mask = np.isin(domain_T, sorted(fitted))
    return own if own.any() else np.ones(len(domain_T), dtype=np.bool_)


def why_not(own: Paired, domains: Mapping[str, Paired], *, tolerance: float, nonfinite: int) -> tuple[str, ...]:
    """The reasons why it may not be served; empty if it may."""
    reasons = []
    if nonfinite:
        reasons.append(f"its logits are not finite at {nonfinite} test positions")
    reasons += _unproven(own, "over the fitted domains together", limit=0.0)
    for name, found in domains.items():
        raw = 0.0 if found.raw is None else found.raw.mean
        reasons += _unproven(found, f"on domain {name}", limit=tolerance * raw)
    return tuple(reasons)


def _unproven(found: Paired, where: str, *, limit: float) -> list[str]:
    change = found.change
    if change is None:
        return [f"{where} there is no finite test position"]
    if change.interval is None:
        return [f"{where} the test has a single document of a single window, so no interval can be known"]
    high = change.interval[1]
    if high < limit:
        return []
    ceiling = "zero" if limit == 0 else f"{limit:.3g} nats (the tolerance)"
    return [
        f"{where} the correction changes KL by {change.mean:+.4g} nats; the upper 95 % limit, {high:+.4g}, is not "
        f"below {ceiling}"
    ]
