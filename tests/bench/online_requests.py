"""Divergences that `tests.bench.online_record` recorded of a real deployment's requests, and streams drawn from them.

Shapes: S streams, P sources.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.calibration.online.threshold import FACTOR
from workers.distributions.intervals import Clusters

Array = NDArray[np.float64]

FILE: Final = Path(__file__).with_name("online_requests.csv")
PEOPLE: Final = "people"  # the source of text that no model wrote


class Recorded(NamedTuple):
    """A request: nats per token over its generated tokens, of a candidate of so many bits."""

    bits: int
    source: str
    tokens: int
    kl: float


def read() -> list[Recorded]:
    """In the order of recording."""
    with FILE.open(newline="") as stream:
        return [
            Recorded(int(row["bits"]), row["source"], int(row["tokens"]), float(row["kl"]))
            for row in csv.DictReader(stream)
        ]


def by_source(rows: Iterable[Recorded], bits: int) -> list[Array]:
    """Nats per token of each request to the candidate of so many bits: an array per source."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row.bits == bits and row.source != PEOPLE:
            found.setdefault(row.source, []).append(row.kl)
    return [np.asarray(values) for values in found.values()]


def drift_limit(rows: Iterable[Recorded]) -> float:
    """What a deployment has without `drift_threshold`: from the upper 95 % limit of the mean per token of people's
    text, with the document as cluster."""
    people = [row for row in rows if row.source == PEOPLE]
    tokens = [row.tokens for row in people]
    document_T = np.repeat(np.arange(len(people)), tokens)
    (mean,) = Clusters.of(document_T, document_T).means([np.repeat([row.kl for row in people], tokens)], seed=0)
    if mean.interval is None:
        raise ValueError("too few documents for an interval")
    return FACTOR * mean.interval[1]


class Traffic:
    """Requests in runs about one source each, of `length` (1: independent ones), the first of which has begun at any
    time before. In a run, requests are drawn with replacement from those of its source.

    From request `at` on, the share `share` of the requests is drawn from `after`, which has an array per source too.
    """

    def __init__(self, usual: Sequence[Array], length: int, *, after: Sequence[Array], share: float, at: int) -> None:
        self.length, self.share, self.at = length, share, at
        self._usual, self._after = usual, after
        self._weight_P = np.asarray([len(values) for values in usual]) / sum(map(len, usual))

    def mean(self, *, changed: bool) -> float:
        """Nats per token and request, before the change or after it."""
        usual, after = (
            float(np.dot(self._weight_P, [values.mean() for values in one])) for one in (self._usual, self._after)
        )
        return usual + self.share * (after - usual) if changed else usual

    def stream(self, *, streams: int, requests: int, seed: int) -> Iterator[Array]:
        """An array (S,) a request."""
        rng = np.random.default_rng(seed)
        begun_S = rng.integers(self.length, size=streams)
        source_S = rng.choice(len(self._weight_P), size=streams, p=self._weight_P)
        for step in range(requests):
            fresh_S = rng.choice(len(self._weight_P), size=streams, p=self._weight_P)
            source_S = np.where((begun_S + step) % self.length == 0, fresh_S, source_S)
            values_S = _drawn(rng, self._usual, source_S)
            if step >= self.at:
                changed_S = rng.random(streams) < self.share
                values_S = np.where(changed_S, _drawn(rng, self._after, source_S), values_S)
            yield values_S


def _drawn(rng: np.random.Generator, sources: Sequence[Array], source_S: NDArray[np.int64]) -> Array:
    """A value of each stream's source."""
    counts_P = np.asarray([len(values) for values in sources])
    starts_P = np.cumsum(counts_P) - counts_P
    return np.concatenate(sources)[starts_P[source_S] + rng.integers(counts_P[source_S])]


def write(rows: Iterable[Recorded]) -> None:
    """Whole or not at all."""
    partial = FILE.with_name(f".{FILE.name}")
    with partial.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(Recorded._fields)
        writer.writerows((*row[:3], f"{row.kl:.4g}") for row in rows)
    partial.replace(FILE)
