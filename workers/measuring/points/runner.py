"""Measures settings, each once, no matter who asks for it: this attempt, the one after it, or a second worker.

The worker that measures a point holds a lock on a file of its name. The kernel drops the lock when its holder dies, so
the points of a killed worker are free at once. Workers that share a queue share HEMOSTAT_HOME anyway.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import getpid
from pathlib import Path
from typing import Any, Final

from app.contracts.request import Thresholds
from app.locks import Lock, try_lock, wait_lock
from app.models.checkpoint import inspect
from app.models.recipes import canonical_json
from app.recipes.recipe import Recipe
from workers.measuring.plan import plan_fingerprint
from workers.measuring.points.ground import Ground
from workers.measuring.points.progress import Counted
from workers.measuring.points.record import PointRecord, record_of
from workers.measuring.recipes import PRECISION, Bench, RefusedError
from workers.process.handler import JobContext
from workers.surgery.manifest import sparse_bytes

PHASE: Final = "points"
_TURN: Final = "choice"
_POLL_S: Final = 0.2


@dataclass(frozen=True)
class Setting:
    """A value of each knob, and the recipe that they make."""

    values: tuple[Any, ...]
    recipe: Recipe


class PointRunner:
    """Measures settings against one ground. `total` is what progress counts up to, in points."""

    def __init__(
        self, ground: Ground, bench: Bench, context: JobContext, progress: Counted, *, thresholds: Thresholds, seed: int
    ) -> None:
        self._ground, self._bench, self._context, self._progress = ground, bench, context, progress
        self._thresholds, self._seed = thresholds, seed
        self._claims = context.scratch / "claims"
        self._by = f"{socket.gethostname()}-{getpid()}"
        self._began = time.time()
        self._seen: set[str] = set()
        self._keys: dict[str, str] = {}
        self.resumed = 0

    def measure(
        self, settings: Sequence[Setting], *, wait: bool = True, claimed: Callable[[], None] = lambda: None
    ) -> list[PointRecord | None]:
        """The points of the settings, in their order.

        A point that another process is measuring is waited for, and taken over where that process dies. Without `wait`
        this returns as soon as there is nothing left to claim, with None for what others have. `claimed` is called as
        soon as a point is claimed, before it is measured.
        """
        self._progress.finished(0)
        found: list[PointRecord | None] = [self.found(setting) for setting in settings]
        while any(record is None for record in found):
            self._context.check_cancelled()
            worked = False
            for index, setting in enumerate(settings):
                if found[index] is None:
                    found[index] = self._one(setting, claimed)
                    worked |= found[index] is not None
            if not worked:
                if not wait:
                    break
                time.sleep(_POLL_S)
        return found

    def found(self, setting: Setting) -> PointRecord | None:
        """A point that was measured before, by whomever; it counts in the progress from now on."""
        record = PointRecord.load(self._file(setting))
        if record is not None:
            self._count(setting, record)
        return record

    def _count(self, setting: Setting, record: PointRecord) -> None:
        key = self.key(setting)
        if key in self._seen:
            return
        self._seen.add(key)
        # What was there before this attempt; points that come while it runs are those of the workers that help it.
        self.resumed += record.measured_at < self._began
        self._progress.finished(1)

    def busy(self, setting: Setting) -> bool:
        """Whether another process measures the setting at this moment."""
        file = self._claims / self.key(setting)
        if not file.exists():
            return False
        lock = try_lock(file, exclusive=False)
        if lock is not None:
            lock.release()
        return lock is None

    def turn(self) -> Lock:
        """Waits for the right to choose and claim a setting: two processes that chose at once would exceed a budget."""
        return wait_lock(self._claims / _TURN, exclusive=True, check_cancelled=self._context.check_cancelled)

    def key(self, setting: Setting) -> str:
        """Names all that decides a point's values, by content: what its recipe reads (text, other models, adapters) as
        this attempt found it."""
        recipe = canonical_json(setting.recipe)
        if recipe not in self._keys:
            self._keys[recipe] = self._key(setting.recipe)
        return self._keys[recipe]

    def _key(self, recipe: Recipe) -> str:
        ground = self._ground
        return plan_fingerprint(
            [
                ground.reference.weights,
                ground.origin_weights,
                canonical_json(recipe),
                self._bench.plan(recipe),
                str(ground.run.scored.engine.identity),
                ground.part.corpus.fingerprint,
                PRECISION,
                self._thresholds.model_dump_json(),
            ]
        )[:32]

    def _file(self, setting: Setting) -> Path:
        return self._context.scratch / "points" / f"{self.key(setting)}.json"

    def _one(self, setting: Setting, claimed: Callable[[], None]) -> PointRecord | None:
        """Claims and measures a point; None if another process has it."""
        lock = try_lock(self._claims / self.key(setting), exclusive=True)
        if lock is None:
            return None
        claimed()
        try:
            # Who had the claim before may have finished between the look and the claim.
            record = self.found(setting)
            if record is None:
                record = self._measured(setting)
                record.save(self._file(setting))
        finally:
            lock.release()
        self._count(setting, record)
        return record

    def _measured(self, setting: Setting) -> PointRecord:
        ground, began = self._ground, time.monotonic()
        try:
            with self._bench.make(setting.recipe) as modified:
                self._bench.load(inspect(modified.path))
                loaded = time.monotonic()
                one = self._bench.measure(modified, ground.run, ground.part, phase=PHASE)
                record = record_of(
                    one.values,
                    one.where,
                    len(ground.part.corpus.windows),
                    floor=ground.run.floor.report.kl.mean or 0.0,
                    thresholds=self._thresholds,
                    seed=self._seed,
                )
        except RefusedError as error:
            return PointRecord(
                refused=str(error),
                refused_code=error.code,
                seconds_making=round(time.monotonic() - began, 3),
                by=self._by,
                measured_at=time.time(),
            )
        return record.model_copy(
            update={
                "weights_fingerprint": one.record.weights,
                "bytes": one.record.bytes,
                "bits_per_weight": one.record.bits_per_weight,
                "sparse_bytes": sparse_bytes(modified.manifest),
                "scheme": modified.manifest.scheme,
                "warnings": tuple(one.record.warnings),
                "seconds_making": round(loaded - began, 3),
                "seconds_measuring": round(time.monotonic() - loaded, 3),
                "by": self._by,
                "measured_at": time.time(),
            }
        )
