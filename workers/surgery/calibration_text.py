"""Text that a step looks at: windows of tokens, and what they are known by. Where it comes from is the caller's."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from app.recipes.base import Calibrated

__all__ = ["CalibrationText", "CalibrationTexts"]


@dataclass(frozen=True)
class CalibrationText:
    """`tokens_NL`: N windows of L token ids (int64), all of one length. `fingerprint`: SHA-256 of the ids.

    `asked` is how many windows the step asked for: fewer are there where the text is shorter. `ordinary_V`: ids of all
    tokens that text is made of, control tokens left out (int64); None if the tokenizer shows none.
    """

    tokens_NL: torch.Tensor
    fingerprint: str
    documents: int
    asked: int
    ordinary_V: torch.Tensor | None = None


# Raises `HemostatError` of text sources, and CALIBRATION_TOO_SHORT if not one whole window is there. `load` of a
# step that was asked for before answers at once.
CalibrationTexts = Callable[[Calibrated], CalibrationText]
