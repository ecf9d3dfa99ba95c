"""An engine in which one model drafts for another, and the caller draws and judges every token.

vLLM keeps the keys and values of both models and takes back those of rejected tokens. Its own draws would have to be
trusted. So a judge replaces them: it gets the logits of both models and says which tokens are drafted, and taken.

Names: R rows of a step, D hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import accumulate, islice
from typing import Any, Protocol

import torch

from app.models.checkpoint import CheckpointInfo
from app.settings import Settings
from workers.engine import launch
from workers.engine import vllm_names as vllm
from workers.engine.drafting import refuse_split
from workers.engine.errors import translate
from workers.engine.finite import check_finite
from workers.engine.launch import EngineFault, EngineOptions, never
from workers.engine.pool import EnginePool, resolve_dtype
from workers.engine.sizes import engine_bytes, kv_cache_bytes, step_tokens, weight_bytes
from workers.engine.split import Split


def margin(block: int) -> int:
    """Tokens behind the longest answer: vLLM drafts for no one while one sequence has no room for two blocks."""
    return 2 * block


class Judge(Protocol):
    """Who draws. A request is named by the key that `SpeculativeEngine.add` gave."""

    def logits(self, hidden_RD: torch.Tensor) -> torch.Tensor:
        """logits_RV of the reference from its final normed hidden states."""
        ...

    def drafted(self, keys: Sequence[str], logits_RV: torch.Tensor) -> list[int]:
        """The candidate's next token of each request's block, from its logits."""
        ...

    def verified(self, keys: Sequence[str], drafts: Sequence[list[int]], logits_RV: torch.Tensor) -> list[list[int]]:
        """The tokens that each request takes: kept ones of its draft, and one more. A draft of K tokens has K + 1 rows:
        the reference's logits before each of them and after the last."""
        ...


class SpeculativeEngine:
    """The reference, and the candidate that drafts `block` tokens per step for each request; a context manager.

    `length` is the most tokens of a prompt and its answer; the context of both models must be longer by `margin`.
    `streams` is how many requests run at once. They share memory for keys and values of `kv_tokens` tokens: those that
    do not fit wait. Raises ENGINE_FAILED for a model that is split, and what `ScoringEngine.load` raises.
    """

    def __init__(
        self,
        reference: CheckpointInfo,
        candidate: CheckpointInfo,
        judge: Judge,
        *,
        pool: EnginePool,
        length: int,
        streams: int,
        block: int,
        dtype: str = "bfloat16",
        kv_tokens: int | None = None,
        check_cancelled: Callable[[], None] = never,
    ) -> None:
        settings: Settings = pool.settings
        refuse_split(settings)
        dtype = resolve_dtype(dtype)
        both = (reference, candidate)
        tokens = kv_tokens or streams * length
        options = EngineOptions(
            checkpoint=reference.path,
            architecture=reference.architecture,
            runner="generate",
            device=pool.device,
            dtype=dtype,
            max_model_len=length + margin(block),
            step_tokens=max(step_tokens(reference, settings.engine_batch_tokens, pool.device), streams * (block + 2)),
            max_sequences=streams,
            kv_cache_bytes=sum(kv_cache_bytes(info, settings, dtype, tokens) for info in both),
            draft=candidate.path,
            drafted=block,
        )
        for info in both:
            check_finite(info, check_cancelled)
        weights = sum(weight_bytes(info, dtype, pool.device, head=True) for info in both)
        pool.make_room(engine_bytes(weights, options.kv_cache_bytes, Split.of(settings), pool.device))
        try:
            self._engine: Any = launch.start(options)
            launch.on_ranks(self._engine, "hemostat_judge", judge)
        except Exception as error:
            raise translate(error, f"while starting an engine for {reference.path.name} and its draft") from error
        self._keys: dict[str, str] = {}  # by the name that vLLM's outputs have
        self._added = 0

    def add(self, prompt: list[int], salt: str | None = None) -> str:
        """Takes a request; its key. Requests share prefixes in the cache only with those of the same `salt`."""
        name, self._added = str(self._added), self._added + 1
        params = vllm.SamplingParams(temperature=0.0, max_tokens=None, ignore_eos=True, detokenize=False)
        with self._translated():
            key: str = self._engine.add_request(name, vllm.tokens_input(prompt, cache_salt=salt), params)
        self._keys[name] = key
        return key

    def step(self) -> dict[str, list[int]]:
        """One pass of the reference, and the next drafts; all tokens of the requests that took some, by key. The others
        have to wait. Raises ENGINE_OUT_OF_MEMORY and ENGINE_FAILED."""
        with self._translated():
            launch.use_workspace(self._engine)
            outputs = self._engine.step()
        return {self._keys[output.request_id]: list(output.outputs[0].token_ids) for output in outputs}

    def drop(self, keys: Sequence[str]) -> None:
        """Forgets requests."""
        if keys:
            gone = set(keys)
            self._keys = {name: key for name, key in self._keys.items() if key not in gone}
            with self._translated():
                self._engine.abort_request(list(keys), internal=True)

    def close(self) -> None:
        """Ends the engine."""
        engine, self._engine = self._engine, None
        if engine is not None:
            launch.stop(engine)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            with launch.faults(self._engine):
                yield
        except EngineFault as fault:
            self.close()
            raise translate(fault.__cause__ or fault, "while verifying a draft") from fault.__cause__

    def __enter__(self) -> SpeculativeEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def install(runner: Any, judge: Judge) -> None:
    """Has `judge` draw in the place of a vLLM model runner with a drafter."""
    runner.get_model().compute_logits = judge.logits
    runner.drafter._sample_draft_tokens = partial(_draft, runner, judge)
    runner._sample = partial(_sample, runner, judge)


def _sample(runner: Any, judge: Judge, logits_RV: torch.Tensor, metadata: Any) -> Any:
    rows, keys = _whole(runner), runner.input_batch.req_ids
    counts = metadata.num_draft_tokens
    drafted = iter(metadata.draft_token_ids.tolist())
    drafts = [list(islice(drafted, count)) for count in counts]
    ends = list(accumulate(count + 1 for count in counts))
    places = [place for row in rows for place in range(ends[row] - counts[row] - 1, ends[row])]
    taken = judge.verified([keys[row] for row in rows], [drafts[row] for row in rows], logits_RV[places])
    tokens_RK = logits_RV.new_full((len(counts), runner.num_spec_tokens + 1), -1, dtype=torch.int32)
    for row, tokens in zip(rows, taken, strict=True):
        tokens_RK[row, : len(tokens)] = tokens_RK.new_tensor(tokens)
    return vllm.SamplerOutput(sampled_token_ids=tokens_RK, logprobs_tensors=None)


def _draft(runner: Any, judge: Judge, hidden_RD: torch.Tensor, _: Any) -> tuple[torch.Tensor, None]:
    rows, keys = _whole(runner), runner.input_batch.req_ids
    logits_RV = runner.drafter.model.compute_logits(hidden_RD[rows])
    tokens_R = hidden_RD.new_zeros(len(hidden_RD), dtype=torch.int64)
    tokens_R[rows] = tokens_R.new_tensor(judge.drafted([keys[row] for row in rows], logits_RV.float()))
    return tokens_R, None


def _whole(runner: Any) -> list[int]:
    """The rows that draw: those of a prompt that was read in part do not."""
    unfinished = runner.discard_request_mask.np[: runner.input_batch.num_reqs]
    return [row for row, waits in enumerate(unfinished.tolist()) if not waits]
