"""The calibration versions that an engine process has loaded, changed while it serves.

A thread watches a small file that says which versions are wanted. What it loads is tried before it is used, and appears
at once; what is refused is reported, and serving goes on. Dropping a version takes it from new requests only: rows that
started with it hold it until they end. A request may ask for one that was dropped, since the gateway learns of it a
moment later: it is loaded on the spot, and dropped again.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from weakref import WeakValueDictionary

import torch

from app.contracts.blocks import RANK
from app.contracts.deployment import IDENTITY, VERSION_PATTERN
from app.contracts.errors import ErrorCode, HemostatError
from workers.calibrators import storage
from workers.calibrators.blocks import Blocks, blocks_of
from workers.calibrators.protocol import Calibrator, RowContext
from workers.engine.serving.counters import Counters

logger = logging.getLogger(__name__)

POLL_S: Final = 0.2
PROFILE_FILE: Final = "profile.json"
_VERSION = re.compile(VERSION_PATTERN)


@dataclass(frozen=True)
class ServedModel:
    """What a calibrator must fit. `fingerprint` "" is not compared; `layers` are those that can be corrected within."""

    hidden_size: int
    vocabulary: int
    fingerprint: str
    device: torch.device
    dtype: torch.dtype
    layers: int = 0


@dataclass(frozen=True)
class Refused:
    """A version that is not served, and why."""

    code: str
    detail: str


def load_profile(folder: Path, model: ServedModel) -> Calibrator:
    """The calibrator of a profile's folder, ready to be used and tried once.

    Raises what `storage.load` raises, and PROFILE_MISMATCH if the profile was fitted for another checkpoint. Raises
    PROFILE_CORRUPT if it makes numbers that are not finite, or of another shape or dtype, from ordinary ones.
    """
    _check_model(folder, model)
    loaded: Calibrator = storage.load(folder, hidden_size=model.hidden_size, vocabulary=model.vocabulary)
    within = blocks_of(loaded)
    for blocks in within:
        check_blocks(folder.name, blocks, model.layers)
    if len(within) > 1 or any(one.rank > RANK for blocks in within for one in blocks.values()):
        raise HemostatError(
            ErrorCode.PROFILE_MISMATCH,
            f"profile {folder.name} corrects blocks twice, or with more than {RANK} directions",
            hint="fit it by a calibrate job",
        )
    ready = loaded.to(model.device, model.dtype)
    _try_out(folder, ready, model)
    return ready


def _check_model(folder: Path, model: ServedModel) -> None:
    file = folder / PROFILE_FILE
    if not model.fingerprint or not file.is_file():
        return
    try:
        fitted = json.loads(file.read_bytes())["fit"]["candidate"]["weights_fingerprint"]
    except (ValueError, KeyError, TypeError) as error:
        raise HemostatError(
            ErrorCode.PROFILE_CORRUPT, f"{PROFILE_FILE} of {folder.name} does not say which model it was fitted for"
        ) from error
    if fitted != model.fingerprint:
        raise HemostatError(
            ErrorCode.PROFILE_MISMATCH,
            f"profile {folder.name} was fitted for another checkpoint than the one that is served",
            hint="choose a profile that was fitted for this model and recipe",
        )


def check_blocks(name: str, blocks: Blocks, layers: int) -> None:
    """Raises PROFILE_MISMATCH if an engine that can correct after so many layers cannot serve a profile's blocks."""
    if not layers:
        raise HemostatError(
            ErrorCode.PROFILE_MISMATCH,
            f"profile {name} corrects the stream after each block. This engine cannot: it scores compiled, "
            "or the architecture's layers are not known",
            hint="choose a profile without blocks, or unset HEMOSTAT_ENGINE_COMPILE",
        )
    if blocks.layers != layers:
        raise HemostatError(
            ErrorCode.PROFILE_MISMATCH,
            f"profile {name} is for {blocks.layers} blocks, the model has {layers}",
            hint="use a profile that was fitted for this model",
        )


def _try_out(folder: Path, calibrator: Calibrator, model: ServedModel) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden_TD = torch.randn(2, model.hidden_size, generator=generator).to(model.device, model.dtype)
    logits_TV = torch.randn(2, model.vocabulary, generator=generator).to(model.device)
    counts_T = torch.tensor([1, model.vocabulary - 1], device=model.device)
    context = RowContext(counts_T, counts_T)
    try:
        changed_TD = calibrator.apply_hidden(hidden_TD, context)
        changed_TV = calibrator.apply_logits(logits_TV, context)
        streams = [one(hidden_TD) for blocks in blocks_of(calibrator) for one in blocks.values()]
    except Exception as error:
        raise HemostatError(
            ErrorCode.PROFILE_CORRUPT, f"profile {folder.name} cannot be applied: {type(error).__name__}"
        ) from error
    for given, changed in ((hidden_TD, changed_TD), (logits_TV, changed_TV), *((hidden_TD, one) for one in streams)):
        if changed.shape != given.shape or changed.dtype != given.dtype or not bool(changed.isfinite().all()):
            raise HemostatError(
                ErrorCode.PROFILE_CORRUPT,
                (f"profile {folder.name} makes logits that are not finite, or of another shape or dtype"),
            )


@dataclass
class Versions:
    """Version → calibrator. Read by the engine's thread without a lock: the mapping is replaced, never changed."""

    load: Callable[[str], Calibrator]
    counters: Counters
    loaded: dict[str, Calibrator] = field(default_factory=dict)
    refused: dict[str, Refused] = field(default_factory=dict)
    _wanted: frozenset[str] = frozenset()
    # Those that were dropped, for as long as a request holds them: another one that asks for it loads nothing.
    _held: WeakValueDictionary[str, Calibrator] = field(default_factory=WeakValueDictionary)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def find(self, version: str) -> Calibrator | None:
        """The calibrator of a version that a request asks for; loaded on the spot where it is not yet. None: refused.

        Not for identity, which has none.
        """
        if version in self.refused:
            return None
        known = self.loaded.get(version)
        if known is None:
            known = self._held.get(version)
        return self._add(version) if known is None else known

    def want(self, versions: tuple[str, ...]) -> None:
        """Loads what is wanted and not there, and drops what is no longer wanted."""
        wanted = [version for version in versions if version != IDENTITY]
        for version in wanted:
            if version not in self.loaded and version not in self.refused:
                self._add(version)
        with self._lock:
            self._wanted = frozenset(wanted)
            self.refused = {version: why for version, why in self.refused.items() if version in wanted}
        self.tidy()

    def tidy(self) -> None:
        """Drops what was loaded on the spot since, and is not wanted."""
        with self._lock:
            dropped = self.loaded.keys() - self._wanted
            self._held.update({version: self.loaded[version] for version in dropped})
            self.loaded = {version: one for version, one in self.loaded.items() if version not in dropped}
            self.counters.loaded.set(len(self.loaded))

    def status(self) -> dict[str, object]:
        """For the door: what is loaded (identity always is) and what is refused."""
        return {
            "loaded": [IDENTITY, *self.loaded],
            "refused": {version: {"code": why.code, "detail": why.detail} for version, why in self.refused.items()},
        }

    def _add(self, version: str) -> Calibrator | None:
        with self._lock:
            if version in self.loaded:
                return self.loaded[version]
            start = time.perf_counter()
            try:
                made = self.load(version)
            except HemostatError as error:
                why = Refused(error.code.value, error.detail)
            except Exception as error:
                logger.exception("profile %s", version)
                why = Refused(ErrorCode.PROFILE_CORRUPT.value, f"it cannot be loaded: {type(error).__name__}")
            else:
                self.counters.load_seconds.observe(time.perf_counter() - start)
                self.loaded = {**self.loaded, version: made}
                self.refused = {name: kept for name, kept in self.refused.items() if name != version}
                self.counters.loaded.set(len(self.loaded))
                return made
            logger.warning("calibration version %s is not served: %s", version, why.detail)
            self.refused = {**self.refused, version: why}
            return None


class Watcher(threading.Thread):
    """Follows the file of wanted versions: `{"versions": ["cal-…", …]}`. A change gives refused ones a new try."""

    def __init__(self, file: Path, versions: Versions) -> None:
        super().__init__(name="calibration versions", daemon=True)
        self._file = file
        self._versions = versions
        self._seen: tuple[int, int] | None = None
        self._stop = threading.Event()

    def look(self) -> None:
        """Does what the file says, if it has changed, and drops what it does not name."""
        try:
            stat = self._file.stat()
            seen = (stat.st_mtime_ns, stat.st_ino)
            if seen == self._seen:
                self._versions.tidy()
                return
            wanted = json.loads(self._file.read_bytes())["versions"]
            names = tuple(name for name in wanted if isinstance(name, str) and _VERSION.fullmatch(name))
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("the file of calibration versions cannot be read: %s", type(error).__name__)
            return
        if self._seen is not None:
            self._versions.refused = {}
        self._seen = seen
        self._versions.want(names)

    def run(self) -> None:
        """Until `stop`."""
        while not self._stop.wait(POLL_S):
            self.look()

    def stop(self) -> None:
        """Ends the thread."""
        self._stop.set()
