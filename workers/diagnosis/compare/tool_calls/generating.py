"""Both models write answers to the prompts, greedily, in vLLM; what is done survives a lost attempt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from app.contracts.errors import ErrorCode, HemostatError
from app.models.checkpoint import CheckpointInfo
from workers.diagnosis.compare.tool_calls.prompts import POINTER, Prompt
from workers.engine.sampling import Sampler
from workers.process.handler import JobContext
from workers.text.storage import read_checked, write_checked

# Prompts between two looks at what was done: they run together.
TOGETHER = 16
PHASE = "generate"


def answers_of(
    prompts: Sequence[Prompt],
    info: CheckpointInfo,
    sampler: Callable[[], Sampler],
    *,
    max_tokens: int,
    plan: str,
    done_before: int,
    total: int,
    context: JobContext,
) -> list[list[int]]:
    """The tokens of each answer, in order, without the token that ends it.

    `plan` names everything that decides them: what an earlier attempt has kept under it is taken as it is. Raises
    WINDOW_TOO_LARGE if a prompt and its answer do not fit the context, and what the engine raises.
    """
    longest = max(len(prompt.tokens) for prompt in prompts)
    if info.max_position is not None and longest + max_tokens > info.max_position:
        raise HemostatError(
            ErrorCode.WINDOW_TOO_LARGE,
            f"a prompt of {longest} tokens and {max_tokens} more exceed the model's context of {info.max_position}",
            hint="lower max_tokens, or give shorter conversations",
            pointer=POINTER,
        )
    # The longest first: the engine is made for it, and need not be made again.
    order = sorted(range(len(prompts)), key=lambda index: (-len(prompts[index].tokens), index))
    answers: list[list[int]] = [[] for _ in prompts]
    files = [_file(context, plan, start) for start in range(0, len(order), TOGETHER)]
    with closing(sampler()) as model:
        for number, file in enumerate(files):
            context.check_cancelled()
            chunk = order[number * TOGETHER : (number + 1) * TOGETHER]
            kept = read_checked(file)
            if kept is None:
                drawn = model.sample([prompts[index].tokens for index in chunk], max_tokens, seed=0, temperature=0.0)
                kept = {"answers": drawn}
                write_checked(file, kept)
                context.observe("tokens_scored", sum(map(len, drawn)), role="generate")
            for index, tokens in zip(chunk, kept["answers"], strict=True):
                answers[index] = [int(token) for token in tokens]
            context.progress(PHASE, done_before + min(len(order), (number + 1) * TOGETHER), total)
    return answers


def _file(context: JobContext, plan: str, start: int) -> Path:
    return context.scratch / "tool_calls" / f"{plan}-{start:06d}.json"
