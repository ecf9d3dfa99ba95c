"""From both models' answers to the report's block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from app.contracts.report import GeneratedToolCalls, PairedProportion, Proportion, ToolCallAnswer
from workers.analysis.paired import mcnemar, score
from workers.analysis.paired.pairs import Pairs, wilson
from workers.diagnosis.compare.tool_calls.judging import RULE, Judged, judge
from workers.diagnosis.compare.tool_calls.prompts import Prompt

EXAMPLES = 6
LONGEST_EXAMPLE = 600


def summarize(
    prompts: Sequence[Prompt],
    reference: Sequence[str],
    candidate: Sequence[str],
    *,
    cut_off: tuple[int, int],
    max_tokens: int,
    form: Literal["template", "written"],
    store_text: bool,
) -> GeneratedToolCalls:
    """The block. Answers are in the order of the prompts, each of which is a document of its own."""
    judged = [
        (judge(one, prompt.tools), judge(other, prompt.tools))
        for prompt, one, other in zip(prompts, reference, candidate, strict=True)
    ]
    outcomes = [
        tuple(_outcome(answer, prompt) for answer in pair) for prompt, pair in zip(prompts, judged, strict=True)
    ]
    asked = [index for index, prompt in enumerate(prompts) if prompt.expected is not None]
    return GeneratedToolCalls(
        prompts=len(prompts),
        max_tokens=max_tokens,
        cut_off=cut_off,
        form=form,
        parsable=paired([pair[0] >= 1 for pair in outcomes], [pair[1] >= 1 for pair in outcomes]),
        valid=paired([pair[0] >= 2 for pair in outcomes], [pair[1] >= 2 for pair in outcomes]),
        right_tool=(
            paired([outcomes[index][0] == 3 for index in asked], [outcomes[index][1] == 3 for index in asked])
            if asked
            else None
        ),
        rule=RULE,
        examples=tuple(_examples(prompts, reference, candidate, judged, outcomes, store_text=store_text)),
    )


def proportion(count: int, of: int) -> Proportion:
    """A share with its interval; of nothing it is not known, [0, 1]."""
    return Proportion(count=count, of=of, share=count / of if of else 0.0, ci=wilson(count, of) if of else (0.0, 1.0))


def paired(reference: Sequence[bool], candidate: Sequence[bool]) -> PairedProportion:
    """Both shares, and their difference."""
    pairs = Pairs.of(np.asarray(reference), np.asarray(candidate))
    return PairedProportion(
        reference=proportion(sum(reference), len(reference)),
        candidate=proportion(sum(candidate), len(candidate)),
        difference=pairs.difference,
        ci=score.interval(pairs),
        lost=pairs.harmful,
        gained=pairs.helpful,
        p_value=mcnemar.exact(pairs),
    )


_STEPS = ("no call", "parsable", "valid", "right_tool")


def _outcome(answer: Judged, prompt: Prompt) -> int:
    """How far an answer comes: 0 no call, 1 a call that parses, 2 valid, 3 of the tool that was called."""
    if not answer.valid:
        return int(answer.parsable)
    return 3 if prompt.expected is not None and answer.calls[0][0] == prompt.expected else 2


def _examples(
    prompts: Sequence[Prompt],
    reference: Sequence[str],
    candidate: Sequence[str],
    judged: Sequence[tuple[Judged, Judged]],
    outcomes: Sequence[tuple[int, ...]],
    *,
    store_text: bool,
) -> list[ToolCallAnswer]:
    """Prompts of another outcome, those that the candidate lost first."""
    apart = [index for index, (one, other) in enumerate(outcomes) if one != other]
    apart.sort(key=lambda index: outcomes[index][1] - outcomes[index][0])
    found = []
    for index in apart[:EXAMPLES]:
        one, other = outcomes[index]
        worse = judged[index][0 if one < other else 1]
        found.append(
            ToolCallAnswer(
                document=prompts[index].document,
                lost=_STEPS[min(one, other) + 1],
                by="reference" if one > other else "candidate",
                reference=reference[index][:LONGEST_EXAMPLE] if store_text else None,
                candidate=candidate[index][:LONGEST_EXAMPLE] if store_text else None,
                reason=worse.reason or "the first call is of another tool",
            )
        )
    return found
