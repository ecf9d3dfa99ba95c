"""The two models of a deployment as a verifier wants them: the candidate drafting, the reference scoring."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from app.contracts.deployment import Deployment
from app.contracts.job import CompareRequest
from app.settings import Settings
from workers.calibration.online.models import Quiet, longest_window
from workers.calibration.verified.verifier import Board, Verifier
from workers.diagnosis.sides import modify, resolve
from workers.distributions.selfcheck import verify_head
from workers.engine.device import identity
from workers.engine.drafting import DraftEngine
from workers.engine.launch import never
from workers.engine.pool import resolve_dtype
from workers.engine.room import EngineRoom
from workers.engine.sampling import stop_tokens

HEAD_CHECK_TOKENS: Final = 128


class VerifiedModels:
    """Both engines of one deployment, and the verifier over them. Close it in the thread that made it.

    `tokens` gives some text in the tokens of the tokenizer in a folder, for the check of the head. Raises what
    resolving, surgery, starting an engine and the check of the head raise, each a `HemostatError` that says which.
    """

    def __init__(
        self,
        deployment: Deployment,
        settings: Settings,
        *,
        streams: int,
        tokens: Callable[[Path], list[int]],
        check_cancelled: Callable[[], None] = never,
    ) -> None:
        request = CompareRequest(kind="compare", reference=deployment.reference, candidate=deployment.model)
        context = Quiet(settings, check_cancelled, job_id="verify")
        side, entry, origin = resolve(request, context)
        self.sides = modify(request, side, entry, origin, context)
        self.room = EngineRoom(settings)
        self._draft: DraftEngine | None = None
        try:
            reference, candidate = self.sides.reference, self.sides.candidate
            dtype = resolve_dtype(self.sides.dtype)
            self.length = min(settings.verify_context, longest_window(deployment, reference.info, candidate.info))
            self.tokenizer_folder = side.tokenizer
            self.stops = frozenset(stop_tokens(reference.info))
            text = tokens(side.tokenizer)
            self._check_head(settings, text[:HEAD_CHECK_TOKENS], dtype, check_cancelled)
            board = Board()
            self._draft = DraftEngine(
                candidate.info,
                board.draw,
                pool=self.room.pool,
                length=self.length,
                streams=streams,
                dtype=dtype,
                check_cancelled=check_cancelled,
            )
            scoring = self.room.engine(reference.info, self.length, dtype=dtype, check_cancelled=check_cancelled)
            self.verifier = Verifier(self._draft, board, scoring, reference.head)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the engines and lets the store evict the candidate."""
        draft, self._draft = self._draft, None
        if draft is not None:
            draft.close()
        self.room.close()
        self.sides.modified.release()

    def _check_head(
        self, settings: Settings, tokens: list[int], dtype: str, check_cancelled: Callable[[], None]
    ) -> None:
        side = self.sides.reference
        engine = self.room.engine(side.info, self.length, dtype=dtype, load=False)
        verify_head(
            side.head,
            lambda: next(engine.score([tokens], check_cancelled=check_cancelled))[1],
            tokens,
            root=settings.home / "heads",
            engine=str(identity(self.room.pool.device, dtype, compiled=False)),
            engine_logp=lambda: self.room.prompt_logprobs(
                side.info, tokens, dtype=dtype, check_cancelled=check_cancelled
            ),
        )
