"""What a verdict does not speak of: a code for programs, a sentence for people, the numbers of the sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from app.contracts.notice import Notice, Notices
from app.contracts.notices import Untested
from app.contracts.text import SelfText, TextSource
from workers.distributions.token_values import Positions
from workers.text.windows import Corpus

_DEFAULT_DOMAIN: Final = "text"


def limits_of(
    corpus: Corpus, positions: Positions, text: TextSource, *, tool_calls: bool = False
) -> tuple[Notice, ...]:
    """What a verdict over a corpus does not speak of."""
    return not_tested(
        longest_context=int(positions.context.max()),
        domains=[document.domain for document in corpus.documents],
        conversations=corpus.conversations,
        whole_conversations=corpus.whole_conversations,
        self_corpus=isinstance(text, SelfText),
        tool_calls=tool_calls,
    )


def without(listed: Iterable[Notice], *of: Notices) -> tuple[Notice, ...]:
    """Those of other codes."""
    codes = {one.code for one in of}
    return tuple(one for one in listed if one.code not in codes)


def not_tested(
    *,
    longest_context: int,
    domains: Sequence[str],
    conversations: int,
    whole_conversations: int,
    self_corpus: bool = False,
    tool_calls: bool = False,
) -> tuple[Notice, ...]:
    """What the verdict does not speak of, given what was scored.

    `longest_context` is the largest number of tokens before a scored position. `domains` holds one entry for each
    document, `conversations` of which are conversations, `whole_conversations` of these scored whole; `tool_calls` is
    whether calls were generated.
    """
    named = tuple(sorted(set(domains)))
    return (
        Untested.FREE_RUNNING_GENERATION(),
        Untested.TASKS(not_run=("benchmark",) if tool_calls else ("benchmark", "tool call")),
        Untested.LONG_CONTEXT(tokens=longest_context),
        Untested.OTHER_DOMAINS(domains=() if named == (_DEFAULT_DOMAIN,) else named),
        Untested.SAMPLING_SETTINGS(),
        *_form(len(domains), conversations, whole_conversations),
        Untested.TEXT_BY_PEOPLE() if self_corpus else Untested.TEXT_OF_THE_MODEL(),
        Untested.SPEED_AND_MEMORY(),
    )


def _form(documents: int, conversations: int, whole: int) -> tuple[Notice, ...]:
    """Which of plain text and conversations was left out, or what of the conversations: nothing if all of them are
    scored whole, beside plain text."""
    if not conversations:
        return (Untested.CONVERSATIONS(),)
    if whole == conversations < documents:
        return ()
    form = Untested.PLAIN_TEXT if conversations == documents else Untested.TURNS_OF_USERS
    return (form(documents=documents, conversations=conversations, whole_conversations=whole),)
