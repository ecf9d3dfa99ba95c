"""Names of people, places and things, by their capitals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from workers.text.token_classes.code import code_spans
from workers.text.token_classes.language import GERMAN, foreign_paragraphs
from workers.text.token_classes.text import Lexicon, Mask, Span, TokenText

_WORD = re.compile(r"[^\W\d_]+(?:[-’'][^\W\d_]+)*")
# A sentence begins after one of these and what may close it, after a line's beginning, and after an opening quotation.
_BEGINS = re.compile(r"(?:^|[.!?:;…\n|>*#\-–—•\"“„«(\[{/])[\s\"'’”»)\]}*_]*$")
_BACK = 6


def names(text: TokenText) -> Mask:
    """Words with a capital that the text writes so in the middle of a sentence somewhere, and nowhere in lower case.
    Paragraphs in German, where every noun has a capital, and code are left out. There is no dictionary behind it:
    months, weekdays and titles count, and a name that only ever begins sentences does not."""
    chosen = [span for span, word in _words(text.text) if word in text.lexicon.capital]
    left_out = [span for span, language in foreign_paragraphs(text) if language == GERMAN]
    found = text.some(chosen) & ~text.some((*left_out, *code_spans(text.text)))
    return found & text.touching(text.contents) if text.conversation else found


def lexicon_of(texts: Iterable[str]) -> Lexicon:
    """What all texts together say of single words."""
    lower: set[str] = set()
    capital: set[str] = set()
    for text in texts:
        for span, word in _words(text):
            if word.islower():
                lower.add(word)
            elif _capital(word) and word not in capital and not _begins_sentence(text, span[0]):
                capital.add(word)
    return Lexicon(frozenset(lower), frozenset(word for word in capital if word.lower() not in lower))


def _words(text: str) -> Iterator[tuple[Span, str]]:
    for match in _WORD.finditer(text):
        word = match[0]
        for ending in ("'s", "’s"):
            word = word.removesuffix(ending)
        yield (match.start(), match.start() + len(word)), word


def _capital(word: str) -> bool:
    """`I'm` is none: what is before an apostrophe has two letters at least."""
    stem = re.split("[’']", word)[0]
    return len(stem) > 1 and stem[0].isupper() and any(letter.islower() for letter in stem)


def _begins_sentence(text: str, place: int) -> bool:
    return _BEGINS.search(text[max(0, place - _BACK) : place]) is not None
