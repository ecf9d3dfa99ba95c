"""Both models of a deployment, kept warm: from its record to the hidden states of windows.

Each model has an engine of its own if the shadow's share of the device's memory holds both. Else one engine holds them
in turn, which costs a swap of weights per turn. Not thread-safe: an engine stays with the thread that started it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from app.contracts.deployment import Deployment
from app.kinds.compare.request import CompareRequest
from app.models.checkpoint import CheckpointInfo
from app.models.registry import settings_of
from app.models.shapes import LAYOUTS
from app.settings import Settings
from workers.engine.device import available_bytes, steps_device, total_bytes
from workers.engine.pool import context_length, resolve_dtype
from workers.engine.resident import Weights
from workers.engine.room import EngineRoom
from workers.engine.scoring import ScoringEngine
from workers.engine.sizes import divergence_bytes, engine_bytes, kv_cache_bytes, scorer_bytes, step_tokens, weight_bytes
from workers.engine.split import Split
from workers.measuring.sides import Sides, modify, resolve

if TYPE_CHECKING:
    import torch

    from workers.calibrators.blocks import Blocks

logger = logging.getLogger(__name__)

Role = Literal["reference", "candidate"]
ROLES: tuple[Role, Role] = ("reference", "candidate")
# The longest context where neither the deployment nor the model says one, in tokens.
LONGEST = 4096


def never() -> None:
    """No one asks to stop."""


@dataclass
class Quiet:
    """The part of a job's context that resolving two models asks for, where there is no job."""

    settings: Settings
    check_cancelled: Callable[[], None] = never
    job_id: str = "shadow"
    attempt: int = 1
    scratch: Path = field(default_factory=Path)
    output: Path = field(default_factory=Path)

    def progress(self, phase: str, done: int, total: int) -> None:
        """Nobody looks."""

    def log(self, message: str) -> None:
        """Goes into the process' own log."""
        logger.info("%s", message)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """No metric of a job."""

    def observe_many(self, name: str, values: object, **labels: str) -> None:
        """No metric of a job."""


class Models:
    """The reference and the candidate of one deployment, resolved and loaded.

    Raises what resolving, surgery and starting an engine raise, each a `HemostatError` that says which. `share` is the
    part of the device's memory that both engines together may take.
    """

    def __init__(
        self,
        deployment: Deployment,
        settings: Settings,
        *,
        share: float = 1.0,
        check_cancelled: Callable[[], None] = never,
    ) -> None:
        self.settings = settings_of(settings, deployment.reference.model)
        self._rooms: list[EngineRoom] = []
        request = CompareRequest(kind="compare", reference=deployment.reference, candidate=deployment.model)
        context = Quiet(settings, check_cancelled)
        reference, entry, origin = resolve(request, context)
        self.sides: Sides = modify(request, reference, entry, origin, context, device=steps_device(settings))
        self.dtype = resolve_dtype(self.sides.dtype)
        self._watched = (self.sides.reference.info, origin)
        self._seen = tuple(Weights.of(info) for info in self._watched)
        self.longest = longest_window(deployment, self.sides.reference.info, self.sides.candidate.info)
        try:
            self._engines = self._start(share, check_cancelled)
        except BaseException:
            self.close()
            raise

    @property
    def apart(self) -> bool:
        """Whether each model has an engine of its own."""
        return len(self._rooms) == len(ROLES)

    @property
    def device(self) -> str:
        """`cpu` or `cuda`."""
        return self._rooms[0].pool.device

    @property
    def engine(self) -> str:
        """What hidden states depend on beside weights and tokens, in words."""
        return str(self._engines["candidate"].identity)

    @property
    def vocabulary(self) -> int:
        """Number of tokens of both."""
        return self.sides.reference.info.vocabulary

    @property
    def layers(self) -> int:
        """Of the candidate, after which its engine can correct the stream; 0 if it cannot."""
        info = self.sides.candidate.info
        return info.layers if info.architecture in LAYOUTS and not self.settings.engine_compile else 0

    def hidden(
        self,
        role: Role,
        windows: Sequence[Sequence[int]],
        blocks: Sequence[Blocks] = (),
        *,
        check_cancelled: Callable[[], None] = never,
    ) -> list[torch.Tensor]:
        """Final normed hidden states of each window's tokens, on the host: (T, D) in the engine's dtype.

        `blocks` correct the stream after each block.
        Raises ENGINE_FAILED, ENGINE_OUT_OF_MEMORY, and CHECKPOINT_* where weights had to be loaded again.
        """
        engine = self._engines[role]
        return [hidden_TD for _, hidden_TD in engine.score(windows, blocks=blocks, check_cancelled=check_cancelled)]

    def replaced(self) -> bool:
        """Whether somebody has put other weights where a model's lie since they were loaded."""
        try:
            return self._seen != tuple(Weights.of(info) for info in self._watched)
        except OSError:  # being replaced at this moment
            return True

    def close(self) -> None:
        """Ends the engines and lets the store evict the candidate."""
        rooms, self._rooms = self._rooms, []
        for room in rooms:
            room.close()
        self.sides.modified.release()

    def _start(self, share: float, check_cancelled: Callable[[], None]) -> dict[Role, ScoringEngine]:
        self._rooms.append(EngineRoom(self.settings))
        free = available_bytes(self.device)
        budget = min(free, int(share * total_bytes(self.device)))
        infos = {"reference": self.sides.reference.info, "candidate": self.sides.candidate.info}
        each = [needed_bytes(info, self.settings, self.device, self.dtype, self.longest) for info in infos.values()]
        scorer = self._scorer_bytes()
        needed = sum(each) + scorer
        if needed <= budget:
            self._rooms.append(EngineRoom(self.settings))
        else:
            logger.info("both models need %.2f GB, their share is %.2f GB: they take turns", needed / 1e9, budget / 1e9)
        for room in self._rooms:
            room.take_share(share)
        if not self.apart:
            # Beside what scores, an engine that starts later leaves room for another divergence.
            beside = divergence_bytes(infos["reference"], self.device)
            self._rooms[0].pool.make_room(max(each) + scorer + beside, what="one model and what scores it")
        engines: dict[Role, ScoringEngine] = {}
        for role, room in zip(ROLES, (self._rooms * 2)[: len(ROLES)] if not self.apart else self._rooms, strict=True):
            engines[role] = room.engine(
                infos[role], self.longest, dtype=self.dtype, load=self.apart, check_cancelled=check_cancelled
            )
        return engines

    def _scorer_bytes(self) -> int:
        """What a `Scorer` of both takes beside the engines. A CPU's is not counted, and its heads are not read yet."""
        if self.device == "cpu":
            return 0
        one, other = self.sides.reference.head, self.sides.candidate.head
        return scorer_bytes(one, other, self.device, self.dtype, same=one.same_matrix(other))


def longest_window(deployment: Deployment, *infos: CheckpointInfo) -> int:
    """Most tokens of prompt and output that are scored: the deployment's context, at most what both models take."""
    limits = [info.max_position for info in infos if info.max_position is not None]
    return min([deployment.max_model_len or LONGEST, *limits])


def needed_bytes(info: CheckpointInfo, settings: Settings, device: str, dtype: str, longest: int) -> int:
    """About what an engine for `info` takes, in bytes."""
    tokens = max(step_tokens(info, settings.engine_batch_tokens, device), context_length(info, longest))
    weights = weight_bytes(info, dtype, device, head=False)
    return engine_bytes(weights, kv_cache_bytes(info, settings, dtype, tokens), Split.of(settings), device)
