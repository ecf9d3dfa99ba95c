"""The whole of it: prompts, answers of both models, the report's block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from app.contracts.report import GeneratedToolCalls
from app.kinds.compare.request import ToolCallRun
from workers.diagnosis.compare.tool_calls.generating import PHASE, answers_of
from workers.diagnosis.compare.tool_calls.prompts import prompts_of
from workers.diagnosis.compare.tool_calls.summary import summarize
from workers.engine.device import identity
from workers.engine.pool import resolve_dtype
from workers.engine.room import EngineRoom
from workers.measuring.plan import plan_fingerprint
from workers.measuring.sides import Side, Sides
from workers.process.handler import JobContext
from workers.text.chat import template_writes
from workers.text.documents import TextDocument
from workers.text.tokenization import bos_of, load_tokenizer


def generated_tool_calls(
    asked: ToolCallRun,
    documents: Sequence[TextDocument],
    sides: Sides,
    room: EngineRoom,
    *,
    store_text: bool,
    context: JobContext,
) -> GeneratedToolCalls:
    """Both models' answers to the first `asked.prompts` conversations with tools of `documents`, judged."""
    tokenizer = load_tokenizer(sides.reference.tokenizer)
    prompts = prompts_of(documents, tokenizer, asked.prompts, bos_of(tokenizer))
    total = 2 * len(prompts)
    context.progress(PHASE, 0, total)
    engine = str(identity(room.pool.device, resolve_dtype(sides.dtype), room.pool.settings, compiled=False))
    texts: list[list[str]] = []
    cut_off: list[int] = []
    for number, side in enumerate((sides.reference, sides.candidate)):
        answers = answers_of(
            prompts,
            side.info,
            lambda side=side: room.sampler(side.info, dtype=sides.dtype, check_cancelled=context.check_cancelled),  # type: ignore[misc]
            max_tokens=asked.max_tokens,
            plan=_plan(side, engine, asked, prompts),
            done_before=number * len(prompts),
            total=total,
            context=context,
        )
        texts.append([str(tokenizer.decode(tokens, skip_special_tokens=False)) for tokens in answers])
        cut_off.append(sum(len(tokens) >= asked.max_tokens for tokens in answers))
    form: Literal["template", "written"] = "template" if template_writes(tokenizer, calls=False) else "written"
    return summarize(
        prompts,
        *texts,
        cut_off=(cut_off[0], cut_off[1]),
        max_tokens=asked.max_tokens,
        form=form,
        store_text=store_text,
    )


def _plan(side: Side, engine: str, asked: ToolCallRun, prompts: Sequence[object]) -> str:
    return plan_fingerprint([side.weights, engine, str(asked.max_tokens), repr(prompts)])[:32]
