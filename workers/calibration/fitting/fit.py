"""Fits a calibrator by minimizing KL(reference‖calibrated), stopped by documents that it is not fitted to.

Each kind of a composition is fitted on what the ones before it left, and stays only if it lowers KL on the stop set.
Everything random comes from the seed; on a CPU with one number of threads the same arguments give the same bits.
Nothing is written anywhere but the reductions of a fit that is to be gone on with after it was stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pkgutil import resolve_name

import torch

from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.calibrate.calibrators import FITTED
from workers.calibration.fitting.data import FitData
from workers.calibration.fitting.hidden import Watch
from workers.calibration.fitting.logits import Fixed
from workers.calibration.fitting.objective import CheckCancelled, Objective, never_cancelled
from workers.calibration.fitting.record import FitRecord, Progress, Step, no_progress
from workers.calibration.fitting.spec import Spec
from workers.calibration.reductions import Reductions
from workers.calibrators.base import Base
from workers.calibrators.blocks import Blocks
from workers.calibrators.identity import Identity
from workers.calibrators.kinds import Chain


def fit(
    spec: Spec | str,
    data: FitData,
    stop: FitData,
    *,
    device: str | torch.device,
    seed: int = 0,
    known: Mapping[tuple[str, ...], Base] | None = None,
    progress: Progress = no_progress,
    check_cancelled: CheckCancelled = never_cancelled,
    reductions: Reductions | None = None,
) -> tuple[Base, FitRecord]:
    """The calibrator, on the CPU in float32, and how the fit went. The identity where nothing helps on `stop`.

    It is computed on `device`, to which the heads are sent once and rows a few at a time.
    `data` and `stop` share no document: the caller sees to it. `known` holds what earlier fits with the same settings,
    data and seed gave, by their kinds: a composition goes on from the longest beginning that is there. One with
    corrections after each block needs them there, and data whose candidate has them.
    `progress(kind, done, total)`. `reductions` are those of a fit with the same arguments that was stopped, to go on
    from (default: none, and none are kept).

    Raises ValueError for an unknown kind or no rows, and NONFINITE_LOGITS if the raw model's divergence is not finite.
    """
    if isinstance(spec, str):
        spec = Spec.parse(spec)
    if not len(data) or not len(stop):
        raise ValueError(f"{len(data)} rows to fit and {len(stop)} to stop by")
    objective = Objective(data.reference_head, data.candidate_head, device=device)
    steps = _Fit(spec, data, stop, objective, seed, known or {}, progress, check_cancelled, reductions or Reductions())
    made, record = steps.run()
    return made.to(torch.device("cpu")), record


class _Fit:
    """One fit."""

    def __init__(
        self,
        spec: Spec,
        data: FitData,
        stop: FitData,
        objective: Objective,
        seed: int,
        known: Mapping[tuple[str, ...], Base],
        progress: Progress,
        check_cancelled: CheckCancelled,
        reductions: Reductions,
    ) -> None:
        self._objective, self._known = objective, known
        self._spec, self._data, self._stop, self._seed = spec, data, stop, seed
        self._progress, self._check_cancelled, self._reductions = progress, check_cancelled, reductions
        self._steps: list[Step] = []
        self._early: list[str] = []
        self._left_out: list[str] = []

    def run(self) -> tuple[Base, FitRecord]:
        """All kinds in turn."""
        raw_kl = self._stop_kl(lambda: None, "raw")
        if not raw_kl < float("inf"):
            raise HemostatError(
                ErrorCode.NONFINITE_LOGITS,
                "the divergence of the uncalibrated model is not finite",
                hint="compare the two models first; a broken model cannot be calibrated",
            )
        done, made = self._begun()
        begun = made
        kl = raw_kl if isinstance(made, Identity) else self._look("+".join(self._spec.kinds[:done]))(lambda: begun, 0)
        for number, kind in enumerate(self._spec.kinds[done:], done):
            self._check_cancelled()
            tried, found = self._one(kind, made, kl, self._reductions.at(f"{number}-{kind}"))
            if found < kl:
                made, kl = tried, found
            else:
                self._left_out.append(kind)
        settings = self._spec.settings
        record = FitRecord(
            name=self._spec.name,
            settings=settings.by_name(),
            seed=self._seed,
            fit_rows=len(self._data),
            stop_rows=len(self._stop),
            raw_kl=raw_kl,
            stop_kl=kl,
            steps=tuple(self._steps),
            stopped_early=tuple(self._early),
            left_out=tuple(self._left_out),
        )
        return made, record

    def _begun(self) -> tuple[int, Base]:
        """How many kinds an earlier fit has done, and what it gave."""
        for done in range(len(self._spec.kinds) - 1, 0, -1):
            found = self._known.get(self._spec.kinds[:done])
            if found is not None:
                return done, found.to(self._objective.device)
        return 0, Identity()

    def _one(self, kind: str, before: Base, kl: float, reductions: Reductions) -> tuple[Base, float]:
        """What comes of one more kind, and the KL on the stop set with it."""
        settings = self._spec.settings
        if FITTED[kind].walk:
            raise ValueError(f"{kind} must be among what earlier fits gave")
        if FITTED[kind].hidden:
            return self._hidden(kind, before, kl, reductions)
        fixed = Fixed(self._objective, before)
        some = self._data.at_most(settings.rows, self._seed)
        self._progress(kind, 0, 1)
        added = resolve_name(FITTED[kind].fit)(
            fixed, some, settings, check_cancelled=self._check_cancelled, reductions=reductions
        )
        tried = _joined(before, added)
        found = self._look(kind)(lambda: tried, 1)
        self._progress(kind, 1, 1)
        return tried, found

    def _hidden(self, kind: str, before: Base, kl: float, reductions: Reductions) -> tuple[Base, float]:
        if not isinstance(before, Identity | Blocks):
            raise ValueError(f"{kind} must be the only hidden correction of a composition")  # noqa: TRY004
        watch = Watch(self._look(kind), kl, self._progress, self._check_cancelled, reductions)
        fitter = resolve_name(FITTED[kind].fit)
        made, early = fitter(self._objective, self._data, self._spec.settings, seed=self._seed, watch=watch)
        if early:
            self._early.append(kind)
        return _joined(before, made), self._look(kind)(lambda: made, self._spec.settings.epochs)

    def _look(self, kind: str) -> Callable[[Callable[[], Base], int], float]:
        def look(make: Callable[[], Base], turn: int) -> float:
            found = self._stop_kl(make, f"look-{len(self._steps)}")
            self._steps.append(Step(kind, turn, found))
            return found

        return look

    def _stop_kl(self, make: Callable[[], Base | None], name: str) -> float:
        return self._objective.kept_mean(make, self._stop, self._check_cancelled, self._reductions, name)


def _joined(before: Base, added: Base) -> Base:
    return added if isinstance(before, Identity) else Chain([before, added])
