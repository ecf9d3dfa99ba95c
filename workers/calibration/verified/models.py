"""The two models of a deployment as a verifier wants them: the candidate drafting, the reference scoring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import torch

from app.contracts.deployment import Deployment
from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.compare.request import CompareRequest
from app.models.checkpoint import CheckpointInfo
from app.models.registry import settings_of
from app.settings import Settings
from workers.calibration.online.models import Quiet, longest_window
from workers.calibration.verified.verifier import BLOCKS, Verifier
from workers.distributions.selfcheck import verify_head
from workers.engine.device import held_bytes, identity, steps_device, total_bytes
from workers.engine.drafting import refuse_split
from workers.engine.launch import never
from workers.engine.pool import resolve_dtype
from workers.engine.room import EngineRoom
from workers.engine.sampling import stop_tokens
from workers.engine.shape import kv_bytes_per_token
from workers.engine.sizes import BLOCK as KV_BLOCK
from workers.engine.sizes import ITEM_BYTES, OVERHEAD_BYTES, weight_bytes
from workers.engine.speculation import margin
from workers.measuring.sides import modify, resolve

HEAD_CHECK_TOKENS: Final = 128
# vLLM gives memory for keys and values out in blocks of so many tokens, and keeps a few for itself.
_SPARE_BLOCKS: Final = 8


class VerifiedModels:
    """Both models of one deployment, and the verifier over them. Close it in the thread that made it.

    They take `settings.share_verify` of the device's memory. If that does not hold keys and values of all streams at
    full length, some wait for the others.

    `tokens` gives some text in the tokens of the tokenizer in a folder, for the check of the head. Raises what
    resolving, surgery, starting an engine and the check of the head raise, each a `HemostatError` that says which, and
    ENGINE_OUT_OF_MEMORY if the share holds not even one stream.
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
        settings = settings_of(settings, deployment.reference.model)
        refuse_split(settings)
        self.sides = modify(request, side, entry, origin, context, device=steps_device(settings))
        self.room = EngineRoom(settings)
        self.room.take_share(settings.share_verify)
        self._verifier: Verifier | None = None
        try:
            reference, candidate = self.sides.reference, self.sides.candidate
            dtype = resolve_dtype(self.sides.dtype)
            both = (reference.info, candidate.info)
            self.length = longest(settings, deployment, *both, self.room.pool.device)
            self.tokenizer_folder = side.tokenizer
            self.stops = frozenset(stop_tokens(reference.info))
            text = tokens(side.tokenizer)
            self._check_head(settings, text[:HEAD_CHECK_TOKENS], dtype, check_cancelled)
            self.room.pool.make_room(0, keep=0)
            device = self.room.pool.device
            head = reference.head.on(device, torch.float32)
            budget = int(settings.share_verify * total_bytes(device)) - held_bytes(device)
            self.verifier = self._verifier = Verifier(
                *both,
                head,
                pool=self.room.pool,
                length=self.length,
                streams=streams,
                dtype=dtype,
                kv_tokens=kept_tokens(both, budget, dtype, self.length, streams, device),
                check_cancelled=check_cancelled,
            )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the engine and lets the store evict the candidate."""
        verifier, self._verifier = self._verifier, None
        if verifier is not None:
            verifier.close()
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
            engine=str(identity(self.room.pool.device, dtype, settings, compiled=False)),
            engine_logp=lambda: self.room.prompt_logprobs(
                side.info, tokens, dtype=dtype, check_cancelled=check_cancelled
            ),
            roundings=2 * side.info.layers,
        )


def longest(
    settings: Settings, deployment: Deployment, reference: CheckpointInfo, candidate: CheckpointInfo, device: str
) -> int:
    """Tokens of prompt and answer together: as many as setting and deployment allow, and room to draft beyond them."""
    contexts = [
        info.max_position - margin(BLOCKS[device]) for info in (reference, candidate) if info.max_position is not None
    ]
    return min(settings.verify_context, longest_window(deployment, reference, candidate), *contexts)


def kept_tokens(
    infos: Sequence[CheckpointInfo], budget: int, dtype: str, length: int, streams: int, device: str
) -> int:
    """Of how many tokens both models keep keys and values: of all streams, or what the budget, in bytes, holds.

    Raises ENGINE_OUT_OF_MEMORY if that is less than one stream of `length` tokens.
    """
    whole = -(-(length + margin(BLOCKS[device])) // KV_BLOCK) * KV_BLOCK
    each = sum(kv_bytes_per_token(info.config, ITEM_BYTES[dtype]) for info in infos)
    left = budget - sum(weight_bytes(info, dtype, device, head=True) for info in infos) - OVERHEAD_BYTES
    fitting = (left // (each * KV_BLOCK) - _SPARE_BLOCKS) * KV_BLOCK if each else streams * whole
    if left < 0 or fitting < whole:
        missing = (whole + _SPARE_BLOCKS * KV_BLOCK) * each - left
        raise HemostatError(
            ErrorCode.ENGINE_OUT_OF_MEMORY,
            f"both models and one answer of {length} tokens need {missing / 1e9:.2f} GB more than the memory share "
            "of verified decoding",
            hint="raise HEMOSTAT_SHARE_VERIFY, or lower HEMOSTAT_VERIFY_CONTEXT",
        )
    return int(min(streams * whole, fitting))
