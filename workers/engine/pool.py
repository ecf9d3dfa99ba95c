"""The engines that are warm, and the memory they may take."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo
from app.recipes.base import Step
from app.settings import Settings
from workers.engine import environment, launch
from workers.engine.device import (
    DTYPES,
    available_bytes,
    check_batch_invariance,
    held_bytes,
    pick_device,
    steps_device,
    total_bytes,
)
from workers.engine.errors import MEMORY_HINT, SHARE_HINT
from workers.engine.launch import EngineOptions, never
from workers.engine.resident import ResidentEngine
from workers.engine.shape import shape_key
from workers.engine.sizes import (
    BLOCK,
    divergence_bytes,
    engine_bytes,
    kv_cache_bytes,
    step_bytes,
    step_tokens,
    weight_bytes,
)
from workers.engine.split import Split
from workers.engine.swap import Trust

logger = logging.getLogger(__name__)

# Prompts that one step may hold.
_SEQUENCES = 256


class EnginePool:
    """Warm engines, the least recently used of which goes first.

    On a CPU two are kept where memory allows (a candidate of another packing alternates with its reference), on a GPU
    one. `starts` and `swaps` count over all engines there have been. `share` is what this process may take of a GPU's
    memory where others of the service use it too; 1: whatever is free.
    """

    def __init__(self, settings: Settings) -> None:
        environment.prepare(batch_invariant=settings.batch_invariant)
        launch.load_vllm()
        self.settings = settings
        self.device, self.steps_device = pick_device(settings), steps_device(settings)
        if settings.batch_invariant:
            check_batch_invariance(self.device)
        self.share = 1.0
        self._limit = 2 if self.device == "cpu" else 1
        self._trust = Trust(self.device)
        self._warm: OrderedDict[tuple[str, str, int, Split], ResidentEngine] = OrderedDict()
        self._starts = 0
        self._swaps = 0

    @property
    def starts(self) -> int:
        """Engines started, by this pool."""
        return self._starts + sum(engine.starts for engine in self._warm.values())

    @property
    def swaps(self) -> int:
        """Weights swapped in place."""
        return self._swaps + sum(engine.swaps for engine in self._warm.values())

    def loaded(
        self, info: CheckpointInfo, max_model_len: int, dtype: str, check_cancelled: Callable[[], None] = never
    ) -> ResidentEngine:
        """An engine that holds `info`, until the pool is asked again. Raises what `ResidentEngine.load` raises."""
        length = context_length(info, max_model_len)
        key = (shape_key(info), dtype, length, Split.of(self.settings))
        self._drop_failed()
        engine = self._warm.get(key)
        if engine is None:
            options = self._options(info, length, dtype)
            self.make_room(needed_bytes(info, options), keep=self._limit - 1)
            engine = self._warm[key] = ResidentEngine(options, self._trust)
        self._warm.move_to_end(key)
        engine.load(info, check_cancelled)
        return engine

    def run_as(self, settings: Settings) -> None:
        """Splits engines from now on as `settings` say."""
        sizes = {name: getattr(settings, name) for name in ("tensor_parallel_size", "pipeline_parallel_size")}
        self.settings = self.settings.model_copy(update=sizes)

    def take_share(self, share: float) -> None:
        """Keeps to `share` from now on, and torch with it. Engines that took more of a GPU end."""
        if self.device == "cuda" and share != self.share:
            if share < self.share:
                self.close()
            import torch

            torch.cuda.set_per_process_memory_fraction(share)
        self.share = share

    def make_room(self, needed: int, *, keep: int | None = None, what: str = "the model") -> None:
        """Ends the least recently used engines until at most `keep` are warm and the bytes that `what` needs are free.

        Raises ENGINE_OUT_OF_MEMORY if that much cannot be had.
        """
        self._drop_failed()
        while self._warm and ((keep is not None and len(self._warm) > keep) or self._free_bytes() < needed):
            self._drop(next(iter(self._warm)))
        free = self._free_bytes()
        if free < needed:
            raise HemostatError(
                ErrorCode.ENGINE_OUT_OF_MEMORY,
                f"{what} needs about {needed / 1e9:.2f} GB on the {self.device}, {free / 1e9:.2f} GB are free; "
                f"this process holds {held_bytes(self.device) / 1e9:.2f} GB",
                hint=MEMORY_HINT if self.share == 1 else SHARE_HINT,
            )

    def make_room_for_steps(self, source: CheckpointInfo, reference: CheckpointInfo, steps: Sequence[Step]) -> None:
        """For steps of a recipe (`step_bytes`). Raises as `make_room` does."""
        needed = step_bytes(source, reference, steps, self.steps_device)
        self.make_room(needed, what=" and ".join(step.type for step in steps))

    def _free_bytes(self) -> int:
        """What a new engine may take: on a GPU no more than the share leaves."""
        free = available_bytes(self.device)
        if self.device == "cpu" or self.share == 1:
            return free
        held = held_bytes(self.device) + max((engine.held_bytes for engine in self._warm.values()), default=0)
        return min(free, int(self.share * total_bytes(self.device)) - held)

    def close(self) -> None:
        """Ends all engines, and vLLM's process groups."""
        while self._warm:
            self._drop(next(iter(self._warm)))
        launch.end_groups()

    def _drop_failed(self) -> None:
        """Ends engines that failed, or lost a part while idle: they are no job's fault."""
        for key in [key for key, engine in self._warm.items() if not engine.running]:
            self._drop(key)

    def _drop(self, key: tuple[str, str, int, Split]) -> None:
        engine = self._warm.pop(key)
        engine.close()
        self._starts += engine.starts
        self._swaps += engine.swaps

    def _options(self, info: CheckpointInfo, length: int, dtype: str) -> EngineOptions:
        tokens = step_tokens(info, self.settings.engine_batch_tokens, self.device)
        return EngineOptions(
            checkpoint=info.path,
            architecture=info.architecture,
            runner="pooling",
            device=self.device,
            dtype=dtype,
            max_model_len=length,
            step_tokens=tokens,
            max_sequences=min(_SEQUENCES, tokens),
            kv_cache_bytes=kv_cache_bytes(info, self.settings, dtype, max(tokens, length)),
            compiled=self.settings.engine_compile,
            split=Split.of(self.settings),
        )


def context_length(info: CheckpointInfo, max_model_len: int) -> int:
    """The context an engine is made for: the next power of two, so that windows of like length share an engine."""
    bucket = max(BLOCK, 1 << (max_model_len - 1).bit_length())
    limit = info.max_position
    # A longer context than the configuration's may be right where RoPE is scaled; vLLM knows, and refuses else.
    return bucket if limit is None else max(max_model_len, min(bucket, limit))


def resolve_dtype(dtype: str) -> str:
    """The engine's dtype for a `dtype` of models.toml; `auto` is bfloat16, the same for every checkpoint."""
    if dtype == "auto":
        return "bfloat16"
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r} is none of {DTYPES}")
    return dtype


def needed_bytes(info: CheckpointInfo, options: EngineOptions) -> int:
    """What starting an engine takes, in bytes, a little less than it really will: more would refuse what fits. One that
    scores leaves room on a GPU for the divergence of what it scores."""
    beside = divergence_bytes(info, options.device) if options.runner == "pooling" else 0
    weights = weight_bytes(info, options.dtype, options.device, head=options.runner == "generate")
    return beside + engine_bytes(weights, options.kv_cache_bytes, options.split, options.device)
