"""What a gate sees of a row: how far into the text it is, what its last token is, how unsure the model seems.

F features: 1; ln(1 + position) / 8; the estimated entropy; then one for each token class. The entropy of the raw row
would cost a second product with the head before the hidden state is corrected, so it is estimated from the hidden state
by a linear probe that was fitted to it.

Token classes come from the model's tokenizer once, as a table of int8, one number a token: a served row looks its class
up and needs no text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Final

import torch

CLASSES: Final = ("other", "word", "part of a word", "number", "punctuation", "white space", "special")
_OTHER, _WORD, _PART, _NUMBER, _PUNCTUATION, _SPACE, _SPECIAL = range(len(CLASSES))
# Ahead of the classes: the constant, the position, the entropy.
PLAIN: Final = 3


def class_of(text: str, *, special: bool = False) -> int:
    """Index in `CLASSES` of a token that decodes to `text`."""
    if special:
        return _SPECIAL
    core = text.strip()
    if not core:
        return _SPACE if text else _OTHER
    if "\ufffd" in core:  # a piece of a character
        return _OTHER
    first = unicodedata.category(core[0])
    if first[0] == "L":
        return _WORD if text[0].isspace() else _PART
    return {"N": _NUMBER, "P": _PUNCTUATION, "S": _PUNCTUATION}.get(first[0], _OTHER)


def class_table(texts: Sequence[str], special: frozenset[int] = frozenset()) -> torch.Tensor:
    """class_V int8 of all tokens; `texts` what each decodes to, `special` the ids of control tokens."""
    classes = [class_of(text, special=index in special) for index, text in enumerate(texts)]
    return torch.tensor(classes, dtype=torch.int8)


def features(
    entropy_T: torch.Tensor, position_T: torch.Tensor, token_T: torch.Tensor, class_V: torch.Tensor, classes: int
) -> torch.Tensor:
    """The features of rows, [T, F], in the dtype of `entropy_T`.

    A token that the table does not hold (the head may be longer than the tokenizer) counts as "other".
    """
    inside_T = (token_T >= 0) & (token_T < len(class_V))
    class_T = torch.where(inside_T, class_V[token_T.clamp(0, len(class_V) - 1)].long(), _OTHER)
    made_TF = entropy_T.new_zeros(len(entropy_T), PLAIN + classes)
    made_TF[:, 0] = 1
    made_TF[:, 1] = torch.log1p(position_T.to(entropy_T.dtype)) / 8
    made_TF[:, 2] = entropy_T
    made_TF.scatter_(1, PLAIN + class_T[:, None], 1)
    return made_TF
