"""Program code: fenced, quoted inline, in documents of that domain, or told by the look of its lines."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from workers.text.token_classes.json_text import json_spans
from workers.text.token_classes.text import Mask, Span, TokenText

DOMAIN = "code"
FEWEST_LINES = 3
_FENCE = re.compile(r"^[ \t]*```[^\n]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINE = re.compile(
    r"[;{}]\s*$"  # ends a statement or a block
    r"|^\s*(?:def|class|import|from|return|raise|fn|func|function|let|const|var|pub|public|private|static|struct|impl"
    r"|package|namespace|using|select|insert into|update|create table|elif|else|try|except|finally|while|switch)\b.*"
    r"[:;{(,)]\s*$"
    r"|^\s*(?:import|from|return|#include|#define|using|package)\s+[\w\"'<.*]++[^.?!]*$"
    r"|^\s*[\w.\[\]\"']+\s*(?::=|[+\-*/|&%]?=)\s*\S"  # assigns
    r"|^\s*(?:if|for|while|with|def|class)\b.*:\s*$"
    r"|^\s*(?://|/\*|#!|@\w+)"
    r"|\w\([^()]*\)\s*;?\s*$",
    re.IGNORECASE,
)


def code(text: TokenText) -> Mask:
    """Program code: fenced blocks, what is between backticks, documents of the domain `code` that are no
    conversations, and stretches of at least three lines half of which look like statements. JSON is left out: it has a
    class of its own."""
    if text.domain == DOMAIN and not text.conversation:
        chosen = np.ones(len(text.offsets), dtype=np.bool_)
    else:
        chosen = text.some((*_marked(text.text), *_stretches(text.text)))
    return chosen & ~text.some(json_spans(text.text)) & _said(text)


def code_spans(text: str) -> list[Span]:
    """Where code is, for classes that leave it out."""
    return [*_marked(text), *_stretches(text)]


def _said(text: TokenText) -> Mask:
    """Tokens of a conversation that somebody said; of any other document all."""
    return text.touching(text.contents) if text.conversation else np.ones(len(text.offsets), dtype=np.bool_)


def _marked(text: str) -> Iterator[Span]:
    yield from (match.span(1) for match in _FENCE.finditer(text))
    yield from (match.span(1) for match in _INLINE.finditer(text))


def _stretches(text: str) -> Iterator[Span]:
    """Runs of lines that look like code at their ends and half of the way."""
    run: list[tuple[int, int, bool]] = []
    place = 0
    for line in (*text.splitlines(keepends=True), ""):
        end = place + len(line)
        blank = not line.strip()
        looks = bool(_LINE.search(line.rstrip()))
        if line and (looks or (run and (blank or line[0] in " \t"))):
            run.append((place, end, looks))
        else:
            yield from _closed(run)
            run = []
        place = end


def _closed(run: list[tuple[int, int, bool]]) -> Iterator[Span]:
    while run and not run[-1][2]:
        run.pop()
    if sum(looks for _, _, looks in run) >= FEWEST_LINES and 2 * sum(looks for _, _, looks in run) >= len(run):
        yield run[0][0], run[-1][1]
