"""Greedy answers of one model to open prompts, in batches that a later attempt finds again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from workers.answering.answers import cut
from workers.answering.prompts import Prompts
from workers.engine import vllm_names as vllm
from workers.engine.device import identity
from workers.engine.generation import GenerationEngine
from workers.engine.pool import context_length, resolve_dtype
from workers.engine.room import EngineRoom
from workers.engine.sampling import STREAMS, stop_tokens
from workers.measuring.plan import plan_fingerprint
from workers.measuring.sides import Side
from workers.process.handler import JobContext
from workers.text.storage import read_checked, write_checked

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Prompts of a batch: what is lost with a worker.
_BATCH: Final = 2 * STREAMS


def generate(
    prompts: Prompts,
    side: Side,
    *,
    dtype: str,
    max_tokens: int,
    stops: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    room: EngineRoom,
    context: JobContext,
    folder: Path,
) -> list[str]:
    """The text after each prompt, greedy, at most `max_tokens` tokens, up to the first of `stops` or the end."""
    engine_name = str(identity(room.pool.device, resolve_dtype(dtype), room.pool.settings, compiled=False))
    plan = plan_fingerprint([side.weights, prompts.fingerprint, engine_name, str(max_tokens), *stops])[:32]
    rows = [window.tokens.tolist() for window in prompts.windows]
    batches = [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]
    files = [folder / f"{plan}-{number:05d}.json" for number in range(len(batches))]
    kept = map(read_checked, files)
    texts: list[list[str] | None] = [None if one is None else one["texts"] for one in kept]
    done = sum(len(found) for found in texts if found is not None)
    context.progress("generate", done, len(rows))
    if done < len(rows):
        length = context_length(side.info, prompts.longest + max_tokens)
        with GenerationEngine(
            side.info,
            pool=room.pool,
            length=length,
            streams=STREAMS,
            dtype=dtype,
            check_cancelled=context.check_cancelled,
        ) as engine:
            for number, (batch, file) in enumerate(zip(batches, files, strict=True)):
                if texts[number] is None:
                    found = _answers(engine, batch, max_tokens, stops, tokenizer, context.check_cancelled)
                    write_checked(file, {"texts": found})
                    texts[number] = found
                    done += len(batch)
                    context.progress("generate", done, len(rows))
    return [text for found in texts for text in found or ()]


def _answers(
    engine: GenerationEngine,
    batch: list[list[int]],
    max_tokens: int,
    stops: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    check_cancelled: Callable[[], None],
) -> list[str]:
    ends = sorted({*stop_tokens(engine.info), *special_stops(tokenizer, stops)})
    params = [
        vllm.SamplingParams(temperature=0.0, max_tokens=max_tokens, stop_token_ids=ends, detokenize=False)
        for _ in batch
    ]
    outputs = engine.run(batch, params, check_cancelled)
    return [
        cut(written(tokenizer, row, list(output.outputs[0].token_ids)), stops)
        for row, output in zip(batch, outputs, strict=True)
    ]


def special_stops(tokenizer: PreTrainedTokenizerBase, stops: Sequence[str]) -> set[int]:
    """Ids of those of `stops` that are a special token, and of the tokenizer's own end of text.

    Texts are decoded without special tokens, so that `cut` could not find them there.
    """
    added = tokenizer.added_tokens_decoder.items()
    found = {int(token) for token, told in added if told.special and told.content in stops}
    return found if tokenizer.eos_token_id is None else found | {int(tokenizer.eos_token_id)}


def written(tokenizer: PreTrainedTokenizerBase, prompt: list[int], answer: list[int]) -> str:
    """The text that `answer` adds to its prompt, special tokens left out.

    Decoded by itself an answer may lose the space that it begins with (SentencePiece), and with it the indentation of
    code.
    """

    def text(tokens: list[int]) -> str:
        return str(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    before, whole = text(prompt), text([*prompt, *answer])
    return whole[len(before) :] if whole.startswith(before) else text(answer)
