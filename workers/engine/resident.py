"""One warm pooling engine and the weights it holds."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo
from workers.engine import launch, swap
from workers.engine import vllm_names as vllm
from workers.engine.errors import describe, is_gpu_failure, is_out_of_memory, translate
from workers.engine.finite import check_finite
from workers.engine.launch import EngineFault, EngineOptions, never
from workers.engine.shape import same_tensors

if TYPE_CHECKING:
    import torch

    from workers.calibrators.blocks import Blocks

logger = logging.getLogger(__name__)

# Enough that every expert of a mixture is likely to be routed to.
_PROBE_TOKENS = 128


@dataclass(frozen=True)
class Weights:
    """Which files are loaded: a folder, and its files' names, sizes and times."""

    path: Path
    files: tuple[tuple[str, int, int], ...]

    @classmethod
    def of(cls, info: CheckpointInfo) -> "Weights":
        """The weights that `info` describes, as they are on disk now."""
        stats = [(name, (info.path / name).stat()) for name in info.files]
        return cls(info.path, tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats))


class ResidentEngine:
    """An engine with one architecture, packing and context, whose weights change.

    `starts` and `swaps` count what it has done. After any failure of vLLM it is empty, and starts again when it is next
    given weights.
    """

    def __init__(self, options: EngineOptions, trust: swap.Trust) -> None:
        self.options = options
        self.starts = 0
        self.swaps = 0
        self._trust = trust
        self._engine: Any = None
        self._streams: tuple[str, ...] = ()  # of the corrections that it makes beside the checkpoint's own
        self._info: CheckpointInfo | None = None
        self._weights: Weights | None = None

    @property
    def running(self) -> bool:
        """Whether it can score: it has been given weights, and no process that holds a part of them has ended."""
        return self._engine is not None and not getattr(self._engine.model_executor, "is_failed", False)

    @property
    def held_bytes(self) -> int:
        """What the largest of its processes holds of its GPU, if they are others than this one."""
        if not self.running or self.options.split.ranks == 1:
            return 0
        return int(max(launch.on_ranks(self._engine, "hemostat_held")))

    def load(self, info: CheckpointInfo, check_cancelled: Callable[[], None] = never) -> None:
        """Makes `info` the checkpoint that is scored; nothing is done where it is already.

        `info` must have the shape that the engine was made for. Raises CHECKPOINT_NOT_FINITE, ENGINE_OUT_OF_MEMORY,
        ENGINE_FAILED, CHECKPOINT_UNSUPPORTED, WINDOW_TOO_LARGE.
        """
        weights = Weights.of(info)
        if self._engine is not None and weights == self._weights:
            return
        check_finite(info, check_cancelled)
        if not self._swap(info):
            self._start(info)
        self._info, self._weights = info, weights

    def hidden_states(
        self,
        windows: Sequence[list[int]],
        check_cancelled: Callable[[], None] = never,
        blocks: "Sequence[Blocks]" = (),
    ) -> "list[torch.Tensor]":
        """Final normed hidden states of every token of every window: hidden_TD on the host, in the engine's dtype.

        One batch: as many windows per step as its token budget holds. Between steps `check_cancelled` may raise.
        `blocks` correct the stream of all of them, in turn, in an eager engine.
        """
        # One object for each: the engine fills it in.
        params = [vllm.PoolingParams(task="token_embed", use_activation=False) for _ in windows]
        try:
            self._correct(blocks)
            outputs = launch.run(self._engine, windows, params, check_cancelled)
        except EngineFault as fault:
            self.close()
            raise translate(fault.__cause__ or fault, "while scoring") from fault.__cause__
        return [_owned(output.outputs.data, len(window)) for output, window in zip(outputs, windows, strict=True)]

    def close(self) -> None:
        """Frees its memory; it may be given weights again."""
        engine, self._engine, self._info, self._weights = self._engine, None, None, None
        self._streams = ()
        if engine is None:
            return
        try:
            launch.stop(engine)
        except Exception:  # a broken engine may not end well; what it held is given up all the same
            logger.exception("an engine did not end cleanly")

    def _correct(self, blocks: "Sequence[Blocks]") -> None:
        """From now on the engine corrects by these and no others. Raises `EngineFault`."""
        streams = tuple(one.digest for one in blocks)
        if streams == self._streams:
            return
        try:
            launch.on_ranks(self._engine, "hemostat_correct", list(blocks))
        except HemostatError:
            raise
        except Exception as error:
            raise EngineFault from error
        self._streams = streams

    def _start(self, info: CheckpointInfo) -> None:
        self.close()
        self.options = replace(self.options, checkpoint=info.path)
        try:
            self._engine = launch.start(self.options)
        except Exception as error:
            raise translate(error, f"while starting an engine for {info.path.name}") from error
        self.starts += 1

    def _swap(self, info: CheckpointInfo) -> bool:
        """Puts `info` into the running engine where that is possible and exact; False if it must be started
        again."""
        if self._engine is None or self._info is None:
            return False
        if self._trust.refused(info, self.options.split) or not same_tensors(self._info, info):
            return False
        try:
            swap.reload_weights(self._engine, info.path)
            swapped_TD = self._probe(info)
        except Exception as error:
            self.close()
            if is_out_of_memory(error) or is_gpu_failure(error):
                if isinstance(error, HemostatError):
                    raise  # with the cause that it has
                raise translate(error, f"while loading {info.path.name}") from error
            logger.warning("swapping weights failed (%s), a fresh engine is started", describe(error))
            self._trust.record(info, self.options.split, exact=False)
            return False
        # The weights are finite. States that are not mean that the model overflows, or that the swap went wrong.
        if self._trust.proven(info, self.options.split) and bool(swapped_TD.isfinite().all()):
            self.swaps += 1
            return True
        self._start(info)
        self._trust.record(info, self.options.split, exact=_same_bits(swapped_TD, self._probe(info)))
        return True

    def _probe(self, info: CheckpointInfo) -> "torch.Tensor":
        """Hidden states of tokens spread over the vocabulary."""
        length = min(_PROBE_TOKENS, self.options.max_model_len)
        return self.hidden_states([[index * info.vocabulary // length for index in range(length)]])[0]


def _owned(hidden_TD: "torch.Tensor", tokens: int) -> "torch.Tensor":
    """The tensor without the rest of its batch."""
    if hidden_TD.shape[0] != tokens:
        raise HemostatError(
            ErrorCode.ENGINE_FAILED, f"the engine returned {hidden_TD.shape[0]} hidden states for {tokens} tokens"
        )
    hidden_TD = hidden_TD.cpu()
    return hidden_TD if hidden_TD.untyped_storage().nbytes() == hidden_TD.nbytes else hidden_TD.clone()


def _same_bits(one: "torch.Tensor", other: "torch.Tensor") -> bool:
    import torch

    return one.dtype == other.dtype and torch.equal(one.view(torch.uint8), other.view(torch.uint8))
