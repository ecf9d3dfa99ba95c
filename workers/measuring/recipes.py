"""Makes a recipe's checkpoint and measures it; what was measured is kept, so that no attempt measures it twice."""

from __future__ import annotations

import json
import logging
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.notice import Notice
from app.contracts.report import Mean
from app.files import write_atomically
from app.models.checkpoint import CheckpointInfo, inspect
from app.models.recipes import canonical_json
from app.recipes.recipe import Recipe
from workers.distributions.divergence import Precision
from workers.distributions.head import Head
from workers.distributions.intervals import Clusters
from workers.distributions.token_values import Positions, TokenValues
from workers.engine.device import identity
from workers.engine.pool import resolve_dtype
from workers.engine.room import EngineRoom
from workers.engine.scoring import ScoringEngine
from workers.measuring.beside import divergence_beside
from workers.measuring.passes import divergence_of, tokens_of
from workers.measuring.plan import Scratch, plan_fingerprint
from workers.measuring.sets import Part
from workers.measuring.sides import Side, checkpoint_store
from workers.measuring.summary import as_mean, usable
from workers.process.failures import safe_traceback, spoils
from workers.process.handler import JobContext
from workers.surgery.application import Application, Others
from workers.surgery.calibration_text import CalibrationTexts
from workers.surgery.modified import Modified
from workers.surgery.recipe import application

logger = logging.getLogger(__name__)

# What a treatment may meet in a model that it cannot treat. Anything else is the machine's, and ends the job.
REFUSALS: Final = frozenset(
    {
        ErrorCode.RECIPE_NOT_APPLICABLE,
        ErrorCode.PACKING_UNSUPPORTED,
        ErrorCode.CALIBRATION_TOO_SHORT,
        ErrorCode.ACTIVATIONS_NOT_FINITE,
        ErrorCode.CHECKPOINT_NOT_FINITE,
        ErrorCode.CHECKPOINT_UNSUPPORTED,
        ErrorCode.UNKNOWN_MODULE,
        ErrorCode.GROUP_SIZE_MISMATCH,
        ErrorCode.PATTERN_MISMATCH,
        ErrorCode.INVALID_REQUEST,
    }
)
# What a fault in a treatment's own code raises.
UNFORESEEN: Final = (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError)
# Speed is the median of so many passes over windows of about so many tokens, after one that is not counted.
SPEED_ROUNDS: Final = 3
SPEED_TOKENS: Final = 512
PRECISION: Final[Precision] = "fast"
RECORD: Final = "record.json"
Array = NDArray[np.float64]


class ReferenceStates(Protocol):
    """The reference's hidden states, such as `StoredHidden`."""

    def window(self, index: int) -> torch.Tensor:
        """hidden_TD of one window of the corpus."""


class RefusedError(Exception):
    """A recipe that this model cannot take. Its text says why; `code` is that of an error that was foreseen."""

    def __init__(self, why: str, code: str = "") -> None:
        super().__init__(why)
        self.code = code


@dataclass(frozen=True)
class Record:
    """What is kept of a measurement beside its values."""

    bytes: int
    bits_per_weight: float
    weights: str
    tokens_per_second: float | None
    seconds: float
    warnings: tuple[Notice, ...] = ()
    # of the slowest and the fastest of the passes that the speed is the median of
    tokens_per_second_range: tuple[float, float] | None = None


_RECORD: Final = TypeAdapter(Record)


@dataclass(frozen=True)
class Measurement:
    """A model against the reference over a part of the text. `kl` in nats by position, NaN if it is not finite."""

    values: TokenValues
    record: Record
    where: Positions

    @property
    def kl(self) -> Array:
        """By position."""
        column: Array = np.where(usable(self.values), self.values.kl, np.nan).astype(np.float64)
        return column

    @property
    def mean(self) -> float:
        """Mean KL; infinite if any position is not finite: such a model is no candidate for anything."""
        kl = self.kl
        return float(kl.mean()) if kl.size and np.isfinite(kl).all() else float("inf")


def estimate(column: Array, where: Positions, *, seed: int, low: float = -np.inf) -> Mean:
    """Mean and clustered interval of the finite values of a column."""
    finite = np.isfinite(column)
    if not finite.any():
        return Mean(mean=None, ci=None)
    return as_mean(Clusters.at(where.select(finite)).means([column[finite]], seed=seed)[0], (low, np.inf))


class Bench:
    """Makes recipes of one origin and measures them against one reference."""

    def __init__(
        self,
        *,
        reference: Side,
        origin: CheckpointInfo,
        dtype: str,
        window: int,
        texts: CalibrationTexts,
        others: Others,
        room: EngineRoom,
        context: JobContext,
    ) -> None:
        self._reference, self._origin = reference, origin
        self._dtype, self._window = dtype, window
        self._texts, self._others, self._room, self._context = texts, others, room, context
        self._store = checkpoint_store(context)

    def make(self, recipe: Recipe) -> Modified:
        """The checkpoint, from the store where it is there. Raises `RefusedError` if the model cannot take it."""
        with _refusals():
            return self._application(recipe).run()

    def _application(self, recipe: Recipe) -> Application:
        context = self._context
        return application(
            self._origin,
            recipe,
            device=self._room.pool.steps_device,
            store=self._store,
            reference=self._aligned_with,
            calibration=self._texts,
            others=self._others,
            make_room=self._room.pool.make_room_for_steps,
            progress=lambda phase, done, total: context.progress(
                "modify" if phase in {"surgery", "thresholds", "write"} else f"modify: {phase}", done, total
            ),
            check_cancelled=context.check_cancelled,
        )

    def plan(self, recipe: Recipe) -> str:
        """Names all that decides a recipe's checkpoint, the text and the other models that it takes too, by content.
        A recipe that is refused before anything is made is named by why."""
        try:
            with _refusals():
                return self._application(recipe).key
        except RefusedError as error:
            return plan_fingerprint([self.plan(()), canonical_json(recipe), str(error)])

    def made(self, recipe: Recipe) -> Modified | None:
        """The checkpoint of a recipe with steps where the store still has it; None if it would have to be made."""
        return self._application(recipe).stored()

    @property
    def _aligned_with(self) -> CheckpointInfo | None:
        """The reference where it is another model than the one that recipes start from."""
        return None if self._reference.info.path == self._origin.path else self._reference.info

    def load(self, info: CheckpointInfo) -> None:
        """Puts a checkpoint into the engine ahead of `measure`, for those who time the two apart. Raises
        `RefusedError` where no engine takes it."""
        self._engine(info)

    def trial(self, recipe: Recipe, stored: ReferenceStates, part: Part, *, phase: str, timed: bool) -> Measurement:
        """Makes and measures a recipe; where an earlier attempt did both, neither is done again.

        Raises `RefusedError` if the model, or every engine, refuses it.
        """
        named = plan_fingerprint([self._reference.weights, self.plan(recipe)])
        note = self._context.scratch / "made" / f"{named[:32]}.json"
        made = _read(note)
        if "refused" in made:
            raise RefusedError(str(made["refused"]), str(made["code"]))
        if "weights" in made:
            found = self._found(str(made["weights"]), part, timed=timed)
            if found is not None:
                return found
        began = time.monotonic()
        note.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.make(recipe) as modified:
                spent = float(made.get("seconds", round(time.monotonic() - began, 3)))
                write_atomically(note, json.dumps({"weights": modified.fingerprint, "seconds": spent}).encode())
                return self.measure(modified, stored, part, phase=phase, timed=timed, making=spent)
        except RefusedError as error:
            write_atomically(note, json.dumps({"refused": str(error), "code": error.code}).encode())
            raise

    def measure(
        self,
        modified: Modified,
        stored: ReferenceStates,
        part: Part,
        *,
        phase: str,
        timed: bool = False,
        making: float = 0.0,
    ) -> Measurement:
        """A checkpoint's values over a part of a corpus of which `stored` holds the reference's hidden states.

        `timed` measures its tokens/s as well; `making` are the seconds that it took to make. Found again where an
        earlier attempt had measured it. Raises `RefusedError` if no engine takes the checkpoint.
        """
        found = self._found(modified.fingerprint, part, timed=timed)
        if found is not None:
            return found
        began = time.monotonic()
        info, manifest = inspect(modified.path), modified.manifest
        values, engine = self.score(info, modified.fingerprint, self._head(info), stored, part, phase=phase)
        windows = [part.corpus.windows[index] for index in part.windows]
        check = self._context.check_cancelled
        speed = tokens_per_second(engine, tokens_of(windows), check_cancelled=check) if timed else None
        record = Record(
            bytes=manifest.model_nominal_bytes,
            bits_per_weight=manifest.model_bits_per_weight,
            weights=modified.fingerprint,
            tokens_per_second=None if speed is None else speed.median,
            seconds=round(making + time.monotonic() - began, 3),
            warnings=tuple(warning for step in manifest.steps for warning in step.warnings),
            tokens_per_second_range=None if speed is None else (speed.slowest, speed.fastest),
        )
        # Last: what has a record is whole.
        folder, _ = self._folder(modified.fingerprint, part)
        write_atomically(folder / RECORD, _RECORD.dump_json(record))
        return Measurement(values, record, part.where)

    def kept(self, name: str, part: Part) -> Measurement | None:
        """What `keep` kept under this name."""
        return self._found(name, part, timed=False)

    def keep(self, name: str, info: CheckpointInfo, stored: ReferenceStates, part: Part, *, phase: str) -> Measurement:
        """Measures a checkpoint that is no recipe's, and keeps its values under a name that says all of it."""
        values, _ = self.score(info, name, self._head(info), stored, part, phase=phase)
        record = Record(info.bytes, 8 * info.bytes / info.parameters, name, None, 0.0)
        write_atomically(self._folder(name, part)[0] / RECORD, _RECORD.dump_json(record))
        return Measurement(values, record, part.where)

    def score(
        self, info: CheckpointInfo, weights: str, head: Head, stored: ReferenceStates, part: Part, *, phase: str
    ) -> tuple[TokenValues, ScoringEngine]:
        """Values of every scored position of the part, going on where an earlier attempt was lost."""
        context = self._context
        folder, plan = self._folder(weights, part)
        engine = self._engine(info)
        values, _ = divergence_of(
            engine,
            [part.corpus.windows[index] for index in part.windows],
            lambda index: stored.window(part.windows[index]),
            divergence_beside(self._reference.head, head, precision=PRECISION, pool=self._room.pool),
            context=context,
            phase=phase,
            scratch=Scratch.open(folder, plan),
        )
        return values, engine

    def _head(self, info: CheckpointInfo) -> Head:
        """In the dtype of the reference's, which is the engine's."""
        return Head.load(info.path, dtype=self._reference.torch_dtype)

    def _engine(self, info: CheckpointInfo) -> ScoringEngine:
        check = self._context.check_cancelled
        try:
            return self._room.engine(info, self._window, dtype=self._dtype, check_cancelled=check)
        except HemostatError as error:
            if error.code in REFUSALS:
                raise RefusedError(error.detail, error.code) from error
            raise

    def _found(self, weights: str, part: Part, *, timed: bool) -> Measurement | None:
        folder, plan = self._folder(weights, part)
        try:
            record = _RECORD.validate_json((folder / RECORD).read_bytes())
        except (OSError, ValidationError):
            return None
        if timed and record.tokens_per_second is None:
            return None
        parts = Scratch.open(folder, plan).parts()
        if not parts or parts[-1][1] != len(part.windows):
            return None
        return Measurement(TokenValues.concat([values for _, _, values in parts]), record, part.where)

    def _folder(self, weights: str, part: Part) -> tuple[Path, str]:
        """Where a measurement is kept, and the name of all that decides it."""
        pool = self._room.pool
        dtype = resolve_dtype(self._dtype)
        engine = str(identity(pool.device, dtype, pool.settings, compiled=pool.settings.engine_compile))
        plan = plan_fingerprint(
            [self._reference.weights, weights, engine, part.corpus.fingerprint, repr(part.windows), PRECISION]
        )
        return self._context.scratch / "measured" / plan[:32], plan


class Speed(NamedTuple):
    """Tokens per second of a few passes."""

    median: float
    slowest: float
    fastest: float


def tokens_per_second(
    engine: ScoringEngine,
    windows: Sequence[NDArray[np.int32]],
    *,
    check_cancelled: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Speed:
    """Of the engine that scores, in batches as it scores them; the first pass, which warms up, does not count."""
    taken: list[NDArray[np.int32]] = []
    for window in sorted(windows, key=len, reverse=True):
        if taken and sum(map(len, taken)) >= SPEED_TOKENS:
            break
        taken.append(window)
    spent = []
    for _ in range(SPEED_ROUNDS + 1):
        start = clock()
        for _ in engine.score(taken, check_cancelled=check_cancelled):
            pass
        spent.append(clock() - start)
    tokens = sum(map(len, taken))
    median, slowest, fastest = (
        tokens / max(1e-9, seconds) for seconds in (statistics.median(spent[1:]), max(spent[1:]), min(spent[1:]))
    )
    return Speed(median, slowest, fastest)


@contextmanager
def _refusals() -> Iterator[None]:
    """Turns what a recipe is to blame for into `RefusedError`."""
    try:
        yield
    except HemostatError as error:
        if error.code in REFUSALS:
            raise RefusedError(error.detail, error.code) from error
        raise
    except UNFORESEEN as error:
        if spoils(error):
            raise  # the machine's, not the treatment's: with more of it the recipe may be made
        # A fault in one treatment is no reason to lose what the others gave; the traceback is for its author. Not
        # logger.exception, which would print a message that may hold text.
        logger.error("a treatment failed\n%s", safe_traceback(error))  # noqa: TRY400
        raise RefusedError(f"making it failed unforeseen ({type(error).__name__})") from error


def _read(path: Path) -> dict[str, Any]:
    """A note of an earlier attempt, empty if there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
