"""An engine whose tokens are drawn by its caller, so that the caller knows the very distribution they were drawn from.

The sampler of vLLM would have to be trusted to draw from what it reports. Here a logits processor shows the caller the
logits of each row, and leaves vLLM one token to take.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo
from app.settings import Settings
from workers.engine import vllm_names as vllm
from workers.engine.generation import GenerationEngine
from workers.engine.launch import load_vllm, never
from workers.engine.pool import EnginePool
from workers.engine.split import Split

if TYPE_CHECKING:
    import torch

# Given float32 logits (rows, V) and of each row its key and how many tokens of its block were drawn before: the token
# that each takes. vLLM asks more than once for one place of a block where a prompt is read in parts, or read again: the
# last answer is the one that counts.
Draw = Callable[["torch.Tensor", Sequence[tuple[int, int]]], Sequence[int]]

ARGUMENT = "hemostat_draft"
PROCESSOR = "workers.engine.draft_processor:DraftProcessor"

# Who draws, by the number in a request's `extra_args`: vLLM makes the processor and does not tell it for which engine.
_drawers: dict[int, Draw] = {}
_numbers = itertools.count()


def drawer(number: int) -> Draw:
    """Who draws for the engine of that number. Raises KeyError."""
    return _drawers[number]


def refuse_split(settings: Settings) -> None:
    """Raises ENGINE_FAILED if a model that drafts would be split."""
    if Split.of(settings).ranks > 1:
        raise HemostatError(
            ErrorCode.ENGINE_FAILED,
            "tokens are drawn in the model's process, but this model is split over several processes",
            hint="run the model on one device",
        )


class DraftEngine:
    """Generates blocks of tokens from one checkpoint; a context manager.

    `length` is the most tokens of a prompt and its block, `streams` how many prompts run at once. `kv_tokens` is the
    number of tokens whose keys and values are kept. None keeps all streams at full length; fewer make streams wait for
    each other. Raises ENGINE_FAILED for a model that is split, and what `GenerationEngine` raises.
    """

    def __init__(
        self,
        checkpoint: Path | CheckpointInfo,
        draw: Draw,
        *,
        pool: EnginePool,
        length: int,
        streams: int,
        dtype: str = "bfloat16",
        kv_tokens: int | None = None,
        check_cancelled: Callable[[], None] = never,
    ) -> None:
        load_vllm()
        refuse_split(pool.settings)
        self.length = length
        self._number = next(_numbers)
        _drawers[self._number] = draw
        self._engine = GenerationEngine(
            checkpoint,
            pool=pool,
            length=length,
            streams=streams,
            dtype=dtype,
            logits_processors=(PROCESSOR,),
            kv_tokens=kv_tokens,
            check_cancelled=check_cancelled,
        )
        self.info = self._engine.info

    def block(
        self,
        prompts: Sequence[list[int]],
        keys: Sequence[int],
        counts: Sequence[int],
        check_cancelled: Callable[[], None] = never,
        *,
        ends: Sequence[int] = (),
    ) -> list[list[int]]:
        """So many tokens after each prompt, drawn by the caller's `draw` under the prompt's key; fewer where one of
        `ends`, which then is the last, is drawn.

        Raises what `GenerationEngine.run` raises.
        """
        params: list[Any] = [
            vllm.SamplingParams(
                temperature=0.0,  # the processor leaves one token
                max_tokens=count,
                ignore_eos=True,  # what ends a text is the caller's to say
                stop_token_ids=list(ends),
                detokenize=False,
                extra_args={ARGUMENT: [self._number, key]},
            )
            for key, count in zip(keys, counts, strict=True)
        ]
        outputs = self._engine.run([list(prompt) for prompt in prompts], params, check_cancelled)
        return [list(output.outputs[0].token_ids) for output in outputs]

    def close(self) -> None:
        """Ends the engine."""
        self._engine.close()
        _drawers.pop(self._number, None)

    def __enter__(self) -> DraftEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
