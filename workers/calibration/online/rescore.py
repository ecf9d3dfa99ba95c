"""One batch of samples, scored: which can be, how far each was, and what a later refit may learn from it.

Runs in the thread that owns the engines. Token ids and hidden states stay in memory; what leaves is numbers.
"""

from __future__ import annotations

import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from app.contracts.deployment import IDENTITY, ShadowSample, Version
from app.contracts.errors import ErrorCode, HemostatError
from workers.calibration.online import engine_term
from workers.calibration.online.models import Models, never
from workers.calibration.online.scoring import RAW, Rows, Scorer, Scores, window_of
from workers.calibration.online.window import ScoredRequest
from workers.calibration.profiles import ProfileStore
from workers.calibrators.blocks import blocks_of, stream_of
from workers.calibrators.identity import Identity
from workers.calibrators.protocol import Calibrator
from workers.engine.serving.versions import check_blocks

SERVED, PREVIOUS, TRIAL = "served", "previous", "trial"
# Calibrators that are kept in memory: active, previous, trial, and some that clients asked for by version.
_KEPT = 8
# How long a file of hidden states is waited for: the serving process closes it a moment after the answer's end.
_PATIENCE_S = 1.0


@dataclass(frozen=True)
class Versions:
    """What the deployment's loop compares at the moment."""

    active: Version = IDENTITY
    previous: Version | None = None
    trial: Version | None = None


@dataclass(frozen=True)
class Scored:
    """One request. Means are nats per token over the positions that are finite; infinity if a corrected one is not.

    `request` is what the window keeps, None if the served distribution was not finite. `rows` are the positions that
    a refit may learn from, of the served stream; `kl` holds per-token values by stage, for a histogram.
    """

    id: str
    at: float
    version: Version
    tokens: int
    raw: float
    served: float
    previous: float | None
    trial: float | None
    trial_version: Version | None
    request: ScoredRequest | None
    rows: Rows
    kl: dict[str, NDArray[np.float64]]


@dataclass
class Batch:
    """The outcome. `skipped` counts samples by why they were not scored."""

    scored: list[Scored] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    engine_term_missing: int = 0
    failed_versions: dict[Version, str] = field(default_factory=dict)


class Rescorer:
    """Scores samples of one deployment. `folder` is the deployment's, where hidden states lie."""

    def __init__(self, models: Models, profiles: ProfileStore, folder: Path, *, expiry_s: float) -> None:
        self.models = models
        self.folder = folder
        self._profiles = profiles
        self._expiry_s = expiry_s
        self.device = torch.device(models.device)
        self.scorer = Scorer(models.sides.reference.head, models.sides.candidate.head, device=self.device)
        self._calibrators: OrderedDict[Version, Calibrator] = OrderedDict()

    def calibrator(self, version: Version) -> Calibrator:
        """A profile's calibrator, as the serving process applies it. Raises PROFILE_*."""
        found = self._calibrators.get(version)
        if found is None:
            if version == IDENTITY:
                found = Identity()
            else:
                found = self._profiles.load(
                    version,
                    device=self.device,
                    dtype=torch.bfloat16 if self.models.dtype == "bfloat16" else None,
                    hidden_size=self.models.sides.candidate.info.hidden_size,
                    vocabulary=self.models.vocabulary,
                )
                for blocks in blocks_of(found):
                    check_blocks(version, blocks, self.models.layers)
            self._calibrators[version] = found
        self._calibrators.move_to_end(version)
        while len(self._calibrators) > _KEPT:
            self._calibrators.popitem(last=False)
        return found

    def to_be_tried(self, version: Version) -> Calibrator:
        """`calibrator` of a version that may be promoted: the serving process would refuse one of other weights.

        Raises PROFILE_*.
        """
        if version != IDENTITY:
            fit, sides = self._profiles.get(version).fit, self.models.sides
            fitted = (fit.reference.weights_fingerprint, fit.candidate.weights_fingerprint)
            if fitted != (sides.reference.weights, sides.candidate.weights):
                raise HemostatError(
                    ErrorCode.PROFILE_MISMATCH,
                    f"profile {version} was fitted for other weights than those of this deployment",
                    hint="use a profile that was fitted for this model and reference",
                )
        return self.calibrator(version)

    def score(
        self,
        samples: Sequence[ShadowSample],
        versions: Versions,
        *,
        now: Callable[[], float] = time.time,
        check_cancelled: Callable[[], None] = never,
    ) -> Batch:
        """Scores what can be scored. Every sample's file of hidden states is gone afterwards.

        Raises what `Models.hidden` raises, and what `check_cancelled` raises.
        """
        batch = Batch()
        kept: list[ShadowSample] = []
        try:
            for sample in samples:
                reason = self._unfit(sample, now())
                if reason is None:
                    kept.append(sample)
                else:
                    batch.skipped[reason] += 1
            if kept:
                self._score(kept, versions, batch, check_cancelled)
        finally:
            for sample in samples:
                engine_term.discard(self.folder, sample.hidden)
        return batch

    def _unfit(self, sample: ShadowSample, now: float) -> str | None:
        """Why a sample cannot be scored."""
        if now - sample.at > self._expiry_s:
            return "expired"
        window = window_of(sample.prompt, sample.output)
        if not window:
            return "no_rows"
        if len(window) > self.models.longest:
            return "too_long"
        if not 0 <= min(*sample.prompt, *sample.output) <= max(*sample.prompt, *sample.output) < self.models.vocabulary:
            return "vocabulary"
        try:
            self.calibrator(sample.version)
        except HemostatError:
            return "version"
        return None

    def _score(
        self,
        samples: Sequence[ShadowSample],
        versions: Versions,
        batch: Batch,
        check_cancelled: Callable[[], None],
    ) -> None:
        windows = [window_of(sample.prompt, sample.output) for sample in samples]
        reference = self.models.hidden("reference", windows, check_cancelled=check_cancelled)
        candidate = self.models.hidden("candidate", windows, check_cancelled=check_cancelled)
        rows = [
            Rows.of_request(sample.prompt, sample.output, one_TD, other_TD)
            for sample, one_TD, other_TD in zip(samples, reference, candidate, strict=True)
        ]
        by_version: dict[Version, list[int]] = {}
        for index, sample in enumerate(samples):
            by_version.setdefault(sample.version, []).append(index)
        scored: dict[int, Scored] = {}
        for version, indices in by_version.items():
            names = self._names(version, versions, batch)
            corrections = {name: self.calibrator(one) for name, one in names.items()}
            plain = [rows[index] for index in indices]
            streams = self._streams(corrections.values(), [windows[index] for index in indices], plain, check_cancelled)
            served = streams[stream_of(corrections[SERVED])]
            engine = self._engine_terms([samples[index] for index in indices], served, batch, check_cancelled)
            states = {
                name: torch.cat([one.candidate_TD for one in streams[stream_of(correction)]])
                for name, correction in corrections.items()
                if blocks_of(correction)
            }
            scores = self.scorer.score(Rows.concat(plain), corrections, states, check_cancelled=check_cancelled)
            start = 0
            for index, learned, term in zip(indices, served, engine, strict=True):
                stop = start + len(learned)
                own = {name: one.slice(start, stop) for name, one in scores.items()}
                start = stop
                found = _scored(samples[index], learned, own, term, names.get(TRIAL))
                if found is None:
                    batch.skipped["nonfinite"] += 1
                else:
                    scored[index] = found
        batch.scored += [scored[index] for index in sorted(scored)]

    def _streams(
        self,
        corrections: Iterable[Calibrator],
        windows: Sequence[Sequence[int]],
        plain: list[Rows],
        check_cancelled: Callable[[], None],
    ) -> dict[str, list[Rows]]:
        """The rows with the candidate's states under the corrections within the layers, by stream."""
        streams = {"": plain}
        for correction in corrections:
            stream = stream_of(correction)
            if stream not in streams:
                states = self.models.hidden(
                    "candidate", windows, blocks_of(correction), check_cancelled=check_cancelled
                )
                streams[stream] = [
                    replace(one, candidate_TD=states_TD[len(states_TD) - len(one) :], stream=stream)
                    for one, states_TD in zip(plain, states, strict=True)
                ]
        return streams

    def _names(self, served: Version, versions: Versions, batch: Batch) -> dict[str, Version]:
        """Which corrections are compared on requests that one version served; tests look at the active one's alone."""
        names = {SERVED: served}
        if served == versions.active:
            for name, version in ((PREVIOUS, versions.previous), (TRIAL, versions.trial)):
                if version is None or (name == PREVIOUS and version == IDENTITY):
                    continue
                try:
                    self.calibrator(version)
                except HemostatError as error:
                    batch.failed_versions[version] = error.detail
                else:
                    names[name] = version
        return names

    def _engine_terms(
        self, samples: Sequence[ShadowSample], rows: Sequence[Rows], batch: Batch, check_cancelled: Callable[[], None]
    ) -> list[Scores | None]:
        found: list[Scores | None] = [None] * len(samples)
        width = self.models.sides.candidate.info.hidden_size
        serving: list[tuple[int, torch.Tensor]] = []
        until = time.monotonic() + _PATIENCE_S
        for index, sample in enumerate(samples):
            while sample.hidden and not engine_term.there(self.folder, sample.hidden) and time.monotonic() < until:
                check_cancelled()
                time.sleep(0.02)
            states_TD = engine_term.take(self.folder, sample.hidden, rows=len(sample.output), hidden_size=width)
            if states_TD is None:
                batch.engine_term_missing += 1
            else:
                serving.append((index, states_TD[len(sample.output) - len(rows[index]) :]))
        if not serving:
            return found
        scores = self.scorer.engine_term(
            torch.cat([states_TD for _, states_TD in serving]),
            torch.cat([rows[index].candidate_TD for index, _ in serving]),
            torch.cat([rows[index].next_T for index, _ in serving]),
            check_cancelled=check_cancelled,
        )
        start = 0
        for index, states_TD in serving:
            found[index] = scores.slice(start, start + len(states_TD))
            start += len(states_TD)
        return found


def _scored(
    sample: ShadowSample, rows: Rows, scores: dict[str, Scores], engine: Scores | None, trial: Version | None
) -> Scored | None:
    """None if no position is finite."""
    finite_T = scores[RAW].finite_T
    tokens = int(finite_T.sum())
    if tokens == 0:
        return None
    raw_T, served_T = scores[RAW].kl_T[finite_T], scores[SERVED].kl_T[finite_T]
    kl = {"raw": raw_T, "calibrated": served_T[np.isfinite(served_T)]}
    engine_sum = None
    if engine is not None and engine.finite_T.any():
        kl["engine"] = engine.kl_T[engine.finite_T]
        # Over the same positions as the rest, so that its mean compares.
        engine_sum = float(kl["engine"].mean()) * tokens
    request = None
    if np.isfinite(served_T).all():
        request = ScoredRequest(
            at=sample.at,
            version=sample.version,
            tokens=tokens,
            raw=float(raw_T.sum()),
            calibrated=float(served_T.sum()),
            engine=engine_sum,
            top1_raw=int(scores[RAW].agree_T[finite_T].sum()),
            top1_calibrated=int(scores[SERVED].agree_T[finite_T].sum()),
        )
    return Scored(
        id=sample.id,
        at=sample.at,
        version=sample.version,
        tokens=tokens,
        raw=float(raw_T.mean()),
        served=_mean(served_T),
        previous=_mean(scores[PREVIOUS].kl_T[finite_T]) if PREVIOUS in scores else None,
        trial=_mean(scores[TRIAL].kl_T[finite_T]) if TRIAL in scores else None,
        trial_version=trial,
        request=request,
        rows=rows.only(finite_T & scores[SERVED].finite_T),
        kl=kl,
    )


def _mean(kl_T: NDArray[np.float64]) -> float:
    return float(kl_T.mean()) if np.isfinite(kl_T).all() else math.inf
