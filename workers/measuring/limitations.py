"""What a verdict does not speak of: a code for programs, a sentence for people, the numbers of the sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from app.contracts.report import Limitation, LimitationCode
from app.contracts.text import SelfText, TextSource
from workers.analysis.numerals import counted
from workers.distributions.token_values import Positions
from workers.text.windows import Corpus

_DEFAULT_DOMAIN: Final = "text"


def limits_of(
    corpus: Corpus, positions: Positions, text: TextSource, *, tool_calls: bool = False
) -> tuple[Limitation, ...]:
    """What a verdict over a corpus does not speak of."""
    return not_tested(
        longest_context=int(positions.context.max()),
        domains=[document.domain for document in corpus.documents],
        conversations=corpus.conversations,
        whole_conversations=corpus.whole_conversations,
        self_corpus=isinstance(text, SelfText),
        tool_calls=tool_calls,
    )


def without(listed: Iterable[Limitation], *codes: LimitationCode) -> tuple[Limitation, ...]:
    """Those of other codes."""
    return tuple(one for one in listed if one.code not in codes)


def other_tasks(names: Sequence[str]) -> Limitation:
    """For a job that ran these tasks."""
    listed = ", ".join(names)
    return Limitation(code="other_tasks", text=f"Tasks other than {listed}: a model may lose there what it keeps here.")


def not_tested(
    *,
    longest_context: int,
    domains: Sequence[str],
    conversations: int,
    whole_conversations: int,
    self_corpus: bool = False,
    tool_calls: bool = False,
) -> tuple[Limitation, ...]:
    """What the verdict does not speak of, given what was scored.

    `longest_context` is the largest number of tokens before a scored position. `domains` holds one entry for each
    document, `conversations` of which are conversations, `whole_conversations` of these scored whole; `tool_calls` is
    whether calls were generated.
    """
    calls = "" if tool_calls else ", tool call"
    most = counted(longest_context, "token")
    return (
        Limitation(
            code="free_running_generation",
            text="Free-running generation: every position was scored after the given text, so errors that build up "
            "over the candidate's own output are not seen.",
        ),
        Limitation(
            code="tasks",
            text=f"Tasks: no benchmark{calls} or program was run; divergence does not show which answers change.",
        ),
        Limitation(
            code="long_context",
            text=f"Long context: no scored position has more than {most} before it.",
            numbers={"tokens": longest_context},
        ),
        Limitation(code="other_domains", text=f"Other domains and languages than those of the text{_named(domains)}."),
        Limitation(
            code="sampling_settings",
            text="Sampling settings: the full distributions are compared at temperature 1, without truncation or "
            "penalties.",
        ),
        *_form(len(domains), conversations, whole_conversations),
        Limitation(code="text_by_people", text="Text written by people: the reference wrote the scored text.")
        if self_corpus
        else Limitation(
            code="text_of_the_model",
            text="Text written by the reference: none was scored.",
        ),
        Limitation(code="speed_and_memory", text="Speed and memory of the candidate as it is served."),
    )


def _named(domains: Iterable[str]) -> str:
    """The domains, if they say more than that the text is text."""
    named = sorted(set(domains))
    return "" if named == [_DEFAULT_DOMAIN] else f" ({', '.join(named)})"


def _form(documents: int, conversations: int, whole: int) -> tuple[Limitation, ...]:
    """Which of plain text and conversations was left out, or what of the conversations: nothing if all of them are
    scored whole, beside plain text."""
    numbers = {"documents": documents, "conversations": conversations, "whole_conversations": whole}
    if not conversations:
        text = "Conversations: the text was scored as it is, without a chat template."
        return (Limitation(code="conversations", text=text),)
    if whole == conversations < documents:
        return ()
    if conversations == documents:
        return (Limitation(code="plain_text", text="Plain text: every document is a conversation.", numbers=numbers),)
    text = "Messages of users: in conversations only the assistant's messages are scored."
    return (Limitation(code="turns_of_users", text=text, numbers=numbers),)
