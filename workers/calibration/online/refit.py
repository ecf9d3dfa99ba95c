"""A refit: another correction, fitted to recent traffic and to a sample of the fitting set, stored as a new profile.

Scoring goes on meanwhile. The thread of the engines scores the fitting set, a few windows between two batches of
traffic. Fitting runs in a thread of its own, at the lowest priority. A refit proves nothing: the trial does. It is of
the kinds that the active version is of, fitted again from both models' hidden states, so that no error is handed on
from refit to refit. Corrections after each block stay as they are: what acts after them is fitted to what they leave.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

import torch

from app.contracts.deployment import IDENTITY, Deployment, Version
from app.contracts.errors import HemostatError
from app.contracts.profile import DocumentSet, FitRecord, ProfileModel, ProfileRecord, Setting
from app.settings import Settings
from workers.calibration.fitting.data import FitData
from workers.calibration.fitting.fit import fit
from workers.calibration.fitting.spec import Spec
from workers.calibration.online.compute import Compute, Stopped
from workers.calibration.online.memory import WINDOW, Learned, Passage, passages
from workers.calibration.online.models import Models, never
from workers.calibration.profiles import ProfileStore, name_of
from workers.calibrators.base import Base
from workers.calibrators.blocks import Blocks, blocks_of, stream_of
from workers.calibrators.identity import Identity
from workers.calibrators.protocol import RowContext

logger = logging.getLogger(__name__)

# Windows of the fitting set that are scored between two batches.
_AT_ONCE: Final = 4
# Of requests and of passages: by these the fit is stopped, the others are fitted.
_STOP_SHARE: Final = 0.2
TRAFFIC: Final = "traffic"
FITTING_SET: Final = "fitting-set"
# What is fitted if the active version has no kinds of its own.
USUAL: Final = "lowrank+token_bias+confidence"
# What is fitted if the active version has corrections after each block alone.
AFTER_BLOCKS: Final = f"{Blocks.KIND}+token_bias+confidence"


class Refitter:
    """Refits of one deployment; one at a time."""

    def __init__(self, settings: Settings, engines: Compute, profiles: ProfileStore) -> None:
        self._settings = settings
        self._engines = engines
        self._profiles = profiles
        self._thread = Compute("shadow-refit")
        self._cancelled = threading.Event()
        self._models: Models | None = None
        self._reservoir: tuple[str, list[Learned]] | None = None

    def models(self, models: Models) -> None:
        """Which models are scored from now on; states of others are forgotten."""
        self.cancel()
        self._models, self._reservoir = models, None

    def cancel(self) -> None:
        """Ends the refit that runs."""
        self._cancelled.set()

    def stop(self) -> None:
        """Ends it and starts none any more."""
        self.cancel()
        self._thread.stop()

    async def refit(
        self, deployment: Deployment, recent: Sequence[Learned], *, seed: int, reason: str
    ) -> Version | None:
        """Fits and stores; the version of the new profile, None if nothing that was fitted is better than nothing.

        Raises `Stopped` if it was cancelled, `HemostatError` if models or disk fail, ValueError if there is
        too little to learn from.
        """
        self._cancelled.clear()
        models = self._models
        if models is None:
            raise Stopped
        kinds = self.kinds(deployment.active_version)
        begun = await self._thread.plain(self._kept, deployment.active_version, kinds)
        reservoir = await self._fitting_set(models, begun)
        # What other versions served has other states.
        recent = [one for one in recent if one.rows.stream == stream_of(begun)]
        told: dict[str, Setting] = {
            "reason": reason,
            "recent_requests": len(recent),
            "recent_tokens": sum(len(one.rows) for one in recent),
            "reservoir_passages": len(reservoir),
            "reservoir_tokens": sum(len(one.rows) for one in reservoir),
        }
        work = Work(models, recent, reservoir, kinds, seed, self._check, begun)
        calibrator, sets = await self._thread.plain(work.run)
        self._check()
        if name_of(calibrator) == name_of(begun):
            return None
        record = self._record(deployment, models, sets, {**work.told, **told}, seed)
        profile = await self._thread.plain(self._profiles.put, calibrator, record)
        return profile.version

    def _check(self) -> None:
        self._thread.check()
        if self._cancelled.is_set():
            raise Stopped

    def kinds(self, active: Version) -> str:
        """Of what a refit is while a version is active, as in `lowrank+confidence`."""
        if active == IDENTITY:
            return USUAL
        with contextlib.suppress(HemostatError):
            name = self._profiles.get(active).calibrator
            return AFTER_BLOCKS if name == Blocks.KIND else name
        return USUAL

    def _kept(self, active: Version, kinds: str) -> Base:
        """What a refit goes on from: corrections after each block of the active version, or nothing. Raises
        PROFILE_*."""
        if Blocks.KIND not in kinds.split("+"):
            return Identity()
        return blocks_of(self._profiles.load(active, device="cpu"))[0]

    async def _fitting_set(self, models: Models, begun: Base) -> list[Learned]:
        """Positions of the fitting set with the hidden states of both models; scored once for each stream."""
        stream = stream_of(begun)
        if self._reservoir is not None and self._reservoir[0] == stream:
            return self._reservoir[1]
        chosen = await self._thread.plain(
            passages,
            self._settings,
            models.sides.reference.tokenizer,
            longest=models.longest,
            budget_tokens=self._settings.shadow_reservoir_tokens,
        )
        found: list[Learned] = []
        for start in range(0, len(chosen), _AT_ONCE):
            self._check()
            found += await self._engines.run(_score, models, chosen[start : start + _AT_ONCE], blocks_of(begun))
        if self._models is models:
            self._reservoir = (stream, found)
        return found

    def _record(
        self,
        deployment: Deployment,
        models: Models,
        sets: tuple[DocumentSet, ...],
        told: dict[str, Setting],
        seed: int,
    ) -> ProfileRecord:
        sides = models.sides
        head, manifest = sides.candidate.head, sides.modified.manifest
        record = FitRecord(
            origin="online",
            reference=ProfileModel(model=sides.reference.alias, weights_fingerprint=sides.reference.weights),
            candidate=ProfileModel(
                model=sides.candidate.alias,
                weights_fingerprint=sides.candidate.weights,
                recipe=manifest.recipe,
                recipe_fingerprint=manifest.recipe_fingerprint,
            ),
            head=head.fingerprint,
            hidden_size=head.hidden_size,
            vocabulary=head.vocabulary,
            tokenizer_fingerprint=sides.tokenizer_fingerprint,
            engine=models.engine,
            dtype=models.dtype,
            window=min(WINDOW, models.longest),
            seed=seed,
            sets=sets,
            settings=told,
            parent=deployment.active_version,
        )
        return ProfileRecord(fit=record, deployment=deployment.id)


def _score(
    models: Models,
    chosen: Sequence[Passage],
    blocks: Sequence[Blocks],
    *,
    check_cancelled: Callable[[], None] = never,
) -> list[Learned]:
    windows = [passage.tokens for passage in chosen]
    reference = models.hidden("reference", windows, check_cancelled=check_cancelled)
    candidate = models.hidden("candidate", windows, blocks, check_cancelled=check_cancelled)
    return [
        passage.learned(one_TD, other_TD)
        for passage, one_TD, other_TD in zip(chosen, reference, candidate, strict=True)
    ]


class Work:
    """The part of a refit that computes for long. `begun`: corrections that the states have already."""

    def __init__(
        self,
        models: Models,
        recent: Sequence[Learned],
        reservoir: Sequence[Learned],
        kinds: str,
        seed: int,
        check: Callable[[], None],
        begun: Base | None = None,
    ) -> None:
        self._known: dict[tuple[str, ...], Base] = {} if begun is None else {(begun.kind,): begun}
        self._models = models
        self._parts = {TRAFFIC: recent, FITTING_SET: reservoir}
        self._kinds = kinds
        self._seed = seed
        self._check = check
        self.told: dict[str, Setting] = {}

    def run(self) -> tuple[Base, tuple[DocumentSet, ...]]:
        """The fitted correction, and what it was fitted to and stopped by."""
        _lowest_priority()
        fitted, stopping = divide(self._parts, self._seed)
        calibrator, record = fit(
            Spec.parse(self._kinds),
            self._data(fitted),
            self._data(stopping),
            device="cpu",  # the share of a GPU is for engines and scores
            seed=self._seed,
            known=self._known,
            check_cancelled=self._check,
        )
        logger.info("a refit of %s: %.4g nats raw, %.4g fitted", self._kinds, record.raw_kl, record.stop_kl)
        self.told = {**record.settings, "kinds": self._kinds, "raw_kl": record.raw_kl, "stop_kl": record.stop_kl}
        return calibrator, (_set("fit", fitted), _set("choose", stopping))

    def _data(self, chosen: Sequence[tuple[str, Learned]]) -> FitData:
        sides = self._models.sides
        rows = [one.rows for _, one in chosen]
        wholes: dict[str, int] = {}
        places = [wholes.setdefault(f"{source} {one.whole}", len(wholes)) for source, one in chosen]
        return FitData(
            reference_TD=torch.cat([one.reference_TD for one in rows]),
            candidate_TD=torch.cat([one.candidate_TD for one in rows]),
            context=RowContext(
                torch.cat([one.context.position_T for one in rows]), torch.cat([one.context.token_T for one in rows])
            ),
            document_T=torch.cat([torch.full((len(one),), place) for place, one in zip(places, rows, strict=True)]),
            reference_head=sides.reference.head,
            candidate_head=sides.candidate.head,
        )


def divide(
    parts: Mapping[str, Sequence[Learned]], seed: int
) -> tuple[list[tuple[str, Learned]], list[tuple[str, Learned]]]:
    """(to fit, to stop by): whole requests and documents, a share of each source by a draw that seed and names decide.

    ValueError if either would be empty.
    """
    fitted: list[tuple[str, Learned]] = []
    stopping: list[tuple[str, Learned]] = []
    for source, many in parts.items():
        usable = sorted((one for one in many if len(one.rows)), key=lambda one: (_key(seed, one.whole), one.name))
        wholes = list(dict.fromkeys(one.whole for one in usable))
        count = min(max(1, round(_STOP_SHARE * len(wholes))), len(wholes) - 1) if wholes else 0
        held = frozenset(wholes[:count])
        stopping += [(source, one) for one in usable if one.whole in held]
        fitted += [(source, one) for one in usable if one.whole not in held]
    if not fitted or not stopping:
        raise ValueError("there is too little to learn from")
    return fitted, stopping


def _set(name: Literal["fit", "choose"], chosen: Sequence[tuple[str, Learned]]) -> DocumentSet:
    """What a set held: counts by source, and a hash of the names and sizes. Names hold no text."""
    digest = hashlib.sha256(b"hemostat.online-set/1\0")
    domains: dict[str, int] = {}
    for source, one in chosen:
        digest.update(f"{source}\0{one.name}\0{len(one.rows)}\n".encode())
        domains[source] = domains.get(source, 0) + len(one.rows)
    return DocumentSet(
        name=name,
        documents=len(chosen),
        tokens=sum(domains.values()),
        domains=domains,
        fingerprint=digest.hexdigest(),
    )


def _key(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\0{name}".encode()).digest()


def _lowest_priority() -> None:
    """Of this thread alone, where the system has threads with priorities of their own (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 15)
