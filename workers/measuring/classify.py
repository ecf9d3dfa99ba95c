"""Which classes each scored position of a corpus is in.

Names: N scored positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from workers.distributions.token_values import Positions
from workers.text.callbacks import CheckCancelled, never_cancelled
from workers.text.documents import TextDocument
from workers.text.token_classes.catalogue import BY_TEXT, NONE, RARE
from workers.text.token_classes.frequency import occurrences, rare
from workers.text.token_classes.names import lexicon_of
from workers.text.token_classes.reading import read
from workers.text.token_classes.text import Mask
from workers.text.tokenization import bos_of
from workers.text.windows import Corpus

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Classified:
    """Masks (N,) by the name of the class."""

    masks: dict[str, Mask]

    @property
    def of_none(self) -> Mask:
        """The positions (N,) that are in no class."""
        of_any: Mask = np.any(list(self.masks.values()), axis=0)
        return ~of_any

    def with_none(self) -> dict[str, Mask]:
        """The masks, and that of no class under `NONE`."""
        return self.masks | {NONE: self.of_none}


def classify(
    documents: Sequence[TextDocument],
    corpus: Corpus,
    positions: Positions,
    tokenizer: PreTrainedTokenizerBase,
    *,
    vocabulary: int,
    check_cancelled: CheckCancelled = never_cancelled,
) -> Classified:
    """The classes of the predicted token at each of `positions`, which are those of `corpus`, made of `documents`.

    One document's text is held at a time. Raises RuntimeError if a document does not give the tokens that were
    scored: the classes would speak of other tokens.
    """
    lexicon = lexicon_of(_texts(documents, check_cancelled))
    bos = bos_of(tokenizer)
    masks = {name: np.zeros(len(positions), dtype=np.bool_) for name in BY_TEXT}
    rows = _rows(positions.document, len(documents))
    for number, document in enumerate(documents):
        here = rows[number]
        if not here.size:
            continue
        check_cancelled()
        tokens, text = read(document, tokenizer, bos, lexicon, check_cancelled)
        at = positions.position[here]
        if len(tokens) != corpus.documents[number].tokens or not np.array_equal(tokens[at], positions.token_id[here]):
            raise RuntimeError("a document gives other tokens than those that were scored")
        for name, mask in BY_TEXT.items():
            check_cancelled()
            masks[name][here] = mask(text)[at]
    counts = occurrences((window.tokens for window in corpus.windows), vocabulary)[positions.token_id]
    return Classified(masks | {RARE: rare(counts)})


def _rows(document_N: npt.NDArray[Any], documents: int) -> list[npt.NDArray[np.intp]]:
    """The positions of each document."""
    order = np.argsort(document_N, kind="stable")
    return np.split(order, np.searchsorted(document_N[order], np.arange(1, documents)))


def _texts(documents: Sequence[TextDocument], check_cancelled: CheckCancelled) -> Iterator[str]:
    """Everything that somebody said; text sampled from the model is not looked at for names."""
    for document in documents:
        check_cancelled()
        yield from document.strings()
