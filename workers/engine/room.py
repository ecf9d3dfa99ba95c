"""What a job handler takes engines from."""

from collections.abc import Callable, Sequence
from pathlib import Path

from app.models.checkpoint import CheckpointInfo
from app.settings import Settings
from workers.engine.launch import never
from workers.engine.logprobs import TOP, Array, prompt_logprobs
from workers.engine.pool import EnginePool
from workers.engine.sampling import Sampler
from workers.engine.scoring import ScoringEngine


class EngineRoom:
    """Warm engines that outlive jobs. Opening it imports vLLM (seconds) and starts nothing.

    `starts` and `swaps` count engines started for scoring and weights swapped in place, since it was opened.
    """

    def __init__(self, settings: Settings) -> None:
        self.pool = EnginePool(settings)

    @property
    def starts(self) -> int:
        """Scoring engines started."""
        return self.pool.starts

    @property
    def swaps(self) -> int:
        """Weights swapped in place."""
        return self.pool.swaps

    def engine(
        self,
        checkpoint: Path | CheckpointInfo,
        max_model_len: int,
        *,
        dtype: str = "bfloat16",
        load: bool = True,
        check_cancelled: Callable[[], None] = never,
    ) -> ScoringEngine:
        """A scoring engine for `checkpoint`, from a warm one where there is one of its shape. Raises as `load` does.

        `max_model_len` is the longest window, in tokens; `dtype` that of models.toml, and the same for both models of a
        comparison. Without `load` the weights are put in when the first window is scored, and it raises then.
        """
        return ScoringEngine(
            checkpoint,
            settings=self.pool.settings,
            max_model_len=max_model_len,
            dtype=dtype,
            pool=self.pool,
            load=load,
            check_cancelled=check_cancelled,
        )

    def sampler(
        self,
        checkpoint: Path | CheckpointInfo,
        *,
        dtype: str = "bfloat16",
        check_cancelled: Callable[[], None] = never,
    ) -> Sampler:
        """A sampler of `checkpoint`, to be closed after use."""
        return Sampler(checkpoint, pool=self.pool, dtype=dtype, check_cancelled=check_cancelled)

    def prompt_logprobs(
        self,
        checkpoint: Path | CheckpointInfo,
        tokens: Sequence[int],
        *,
        dtype: str = "bfloat16",
        top: int = TOP,
        check_cancelled: Callable[[], None] = never,
    ) -> Array:
        """As `workers.engine.logprobs.prompt_logprobs`, with this room's memory."""
        return prompt_logprobs(
            checkpoint, tokens, pool=self.pool, dtype=dtype, top=top, check_cancelled=check_cancelled
        )

    def run_as(self, settings: Settings) -> None:
        """From now on engines are split as `settings` say."""
        self.pool.run_as(settings)

    def take_share(self, share: float) -> None:
        """From now on engines take at most this share of a GPU's memory."""
        self.pool.take_share(share)

    def close(self) -> None:
        """Ends all engines."""
        self.pool.close()
