"""What a class gets of a document, and from characters to tokens.

A token is in a class by its characters other than white space: ` 12` is a number though it begins with a space.

Names: T tokens, C characters.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Span = tuple[int, int]


@dataclass(frozen=True)
class Lexicon:
    """What the whole text says of single words: those that it writes in lower case, and those that it writes with a
    capital in the middle of a sentence."""

    lower: frozenset[str] = frozenset()
    capital: frozenset[str] = frozenset()


@dataclass(frozen=True)
class TokenText:
    """A document as the classes see it.

    `offsets` (T, 2) are the character spans of its tokens in `text`, end exclusive. `contents` are spans of what
    somebody said, `answers` those of the assistant's (of a self corpus: what was sampled). `tool_names` and
    `tool_arguments` those of the calls that the document gives as such. `conversation` is whether a chat template wrote
    the rest; a document without one is all content.
    """

    text: str
    offsets: npt.NDArray[np.int32]
    domain: str = "text"
    conversation: bool = False
    contents: tuple[Span, ...] = ()
    answers: tuple[Span, ...] = ()
    tool_names: tuple[Span, ...] = ()
    tool_arguments: tuple[Span, ...] = ()
    lexicon: Lexicon = Lexicon()

    @cached_property
    def ink(self) -> Mask:
        """(C,) characters that are not white space."""
        return np.fromiter((not character.isspace() for character in self.text), dtype=np.bool_, count=len(self.text))

    def characters(self, spans: Iterable[Span]) -> Mask:
        """(C,) characters of the spans."""
        found = np.zeros(len(self.text), dtype=np.bool_)
        for start, end in spans:
            found[start:end] = True
        return found

    def some(self, spans: Iterable[Span]) -> Mask:
        """(T,) tokens of which some character other than white space is in the spans."""
        return np.asarray(self._count(self.characters(spans) & self.ink) > 0)

    def every(self, spans: Iterable[Span]) -> Mask:
        """(T,) tokens that have a character other than white space, all of which are in the spans."""
        ink = self._count(self.ink)
        return np.asarray((ink > 0) & (self._count(self.characters(spans) & self.ink) == ink))

    def touching(self, spans: Iterable[Span]) -> Mask:
        """(T,) tokens of which any character, white space too, is in the spans."""
        return np.asarray(self._count(self.characters(spans)) > 0)

    def _count(self, characters: Mask) -> npt.NDArray[np.int64]:
        """(T,) how many of the characters each token has."""
        before = np.concatenate([[0], np.cumsum(characters, dtype=np.int64)])
        return np.asarray(before[self.offsets[:, 1]] - before[self.offsets[:, 0]])
