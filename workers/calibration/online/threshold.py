"""Above which mean divergence served traffic has drifted, where the deployment does not say it.

It is 1.5 times the upper 95 % limit that the served version showed on test documents. A refit that was never tested has
the limit of the version it came from. Identity has the raw model's limit in the newest test of the same two models.
Until one is known the drift state is `learning`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from app.contracts.deployment import IDENTITY, Version
from app.contracts.errors import HemostatError
from app.contracts.profile import Profile
from app.deployments.profiles import ProfileFiles

FACTOR: Final = 1.5
# Refits of refits that are followed back to a test.
_GENERATIONS: Final = 100


@dataclass(frozen=True)
class Expected:
    """What test documents showed of a version, nats per token; None: not known."""

    kl_high: float | None = None
    raw_mean: float | None = None

    @property
    def threshold(self) -> float | None:
        """Of drift."""
        return None if self.kl_high is None or self.kl_high <= 0 else FACTOR * self.kl_high


def expected(profiles: ProfileFiles, active: Version, *, weights: tuple[str, str]) -> Expected:
    """What is known of the active version. `weights` are the fingerprints of reference and candidate."""
    if active == IDENTITY:
        return _of_identity(profiles.list(), weights)
    tested = _tested(profiles, active)
    if tested is None or tested.test is None:
        return Expected()
    return Expected(kl_high=tested.test.kl_high, raw_mean=_raw_mean(tested))


def _tested(profiles: ProfileFiles, version: Version) -> Profile | None:
    """The version, or the nearest one that it descends from, that was tested on documents."""
    at: Version | None = version
    for _ in range(_GENERATIONS):
        if at is None or at == IDENTITY:
            return None
        try:
            profile = profiles.get(at)
        except HemostatError:
            return None
        if profile.test is not None:
            return profile
        at = profile.fit.parent
    return None


def _of_identity(profiles: Iterable[Profile], weights: tuple[str, str]) -> Expected:
    for profile in profiles:  # newest first
        same = (profile.fit.reference.weights_fingerprint, profile.fit.candidate.weights_fingerprint) == weights
        if same and profile.test is not None and profile.test.raw_kl_high is not None:
            return Expected(kl_high=profile.test.raw_kl_high, raw_mean=_raw_mean(profile))
    return Expected()


def _raw_mean(profile: Profile) -> float | None:
    row = next((row for row in profile.test.table if row.chosen), None) if profile.test else None
    return None if row is None else row.own.raw.mean
