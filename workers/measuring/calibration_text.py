"""The text that recipe steps look at: from a text source to windows of one length, and what it may not share.

Documents are tokenized without special tokens, put one after the other in an order that the step's seed decides, and
cut into windows. Each begins with the BOS if the tokenizer adds one. Statistics of activations do not mind where
a document ends, and equal windows run fast; what is scored keeps documents apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import numpy as np
import torch

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.notice import Notice
from app.contracts.notices import Warned
from app.contracts.text import SelfText, TextSource
from app.recipes.base import Calibrated
from app.recipes.recipe import Recipe
from app.settings import Settings
from workers.analysis.numerals import counted
from workers.surgery.calibration_text import CalibrationText
from workers.text.callbacks import CheckCancelled, never_cancelled
from workers.text.documents import TextDocument
from workers.text.overlap import document_overlap
from workers.text.sources import load_documents
from workers.text.tokenization import bos_of, load_tokenizer
from workers.text.windows import document_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# The domain of documents that name none.
UNNAMED: Final = "text"
Load = Callable[[TextSource], list[TextDocument]]


class CalibrationLoader:
    """Gives the text of steps; each source is loaded once. `load` reads a source, `tokenizer` is the folder of the
    reference's tokenizer."""

    def __init__(self, load: Load, tokenizer: Path, *, check_cancelled: CheckCancelled = never_cancelled) -> None:
        self._load, self._folder, self._check_cancelled = load, tokenizer, check_cancelled
        self._documents: dict[str, list[TextDocument]] = {}
        self._texts: dict[str, CalibrationText] = {}

    def __call__(self, step: Calibrated) -> CalibrationText:
        """The windows of a step. Raises what the source raises, and CALIBRATION_TOO_SHORT."""
        named = step.model_dump_json(include={"calibration", "calibration_windows", "calibration_window", "seed"})
        if named not in self._texts:
            self._texts[named] = self._cut(step)
        return self._texts[named]

    def documents(self, step: Calibrated) -> list[TextDocument]:
        """The documents of a step's source."""
        named = step.calibration.model_dump_json()
        if named not in self._documents:
            self._documents[named] = self._load(step.calibration)
        return self._documents[named]

    def overlap(self, recipe: Recipe, scored: Sequence[TextDocument]) -> dict[int, list[str]]:
        """Ids of the scored documents that a step looks at, by the step's index; none for steps that look at none."""
        found: dict[int, list[str]] = {}
        for index, step in enumerate(recipe):
            if not isinstance(step, Calibrated) or not step.reads_text:
                continue
            shared = document_overlap(self.documents(step), scored)
            if shared:
                found[index] = list(dict.fromkeys(second for _, second in shared))
        return found

    def unread(self, recipe: Recipe, scored: Sequence[TextDocument]) -> list[str]:
        """Named domains of the scored documents of which a step that looks at text looks at no document, in their
        order. Nothing is known of a text without names."""
        found: dict[str, None] = {}
        for step in recipe:
            if isinstance(step, Calibrated) and step.reads_text:
                read = {document.domain for document in self.documents(step)}
                if read != {UNNAMED}:
                    found |= {document.domain: None for document in scored if document.domain not in {*read, UNNAMED}}
        return list(found)

    def refuse_overlap(
        self, recipe: Recipe, scored: Sequence[TextDocument], *, pointer: str, what: str = "document"
    ) -> None:
        """Raises CALIBRATION_OVERLAP if a step looks at a document that is scored; `what` people call one."""
        for index, ids in self.overlap(recipe, scored).items():
            raise HemostatError(
                ErrorCode.CALIBRATION_OVERLAP,
                f"{counted(len(ids), what)} that {recipe[index].type} looks at {'is' if len(ids) == 1 else 'are'} also "
                f"scored, such as {', '.join(map(repr, ids[:3]))}",
                hint=(
                    "give one of the two other documents; `allow_overlap` measures anyway, and the result looks too "
                    "good"
                ),
                pointer=f"{pointer}/{index}/calibration",
            )

    def _cut(self, step: Calibrated) -> CalibrationText:
        documents = self.documents(step)
        order = np.random.default_rng(step.seed).permutation(len(documents))
        tokenizer = load_tokenizer(self._folder)
        bos = bos_of(tokenizer)
        stride = step.calibration_window - (bos is not None)
        ids: list[int] = []
        used = 0
        for index in order:
            if len(ids) >= step.calibration_windows * stride:
                break
            self._check_cancelled()
            tokens, _ = document_tokens(documents[index], tokenizer, bos, self._check_cancelled)
            ids += tokens.tolist()
            used += 1
        windows = min(step.calibration_windows, len(ids) // stride)
        if windows == 0:
            raise HemostatError(
                ErrorCode.CALIBRATION_TOO_SHORT,
                f"the calibration text has {len(ids)} tokens, but a window needs {step.calibration_window}",
                hint="give more text, or a smaller calibration_window",
            )
        cut_NL = np.asarray(ids[: windows * stride], dtype=np.int64).reshape(windows, stride)
        if bos is not None:
            cut_NL = np.concatenate([np.full((windows, 1), bos, dtype=np.int64), cut_NL], axis=1)
        fingerprint = hashlib.sha256(f"{cut_NL.shape}".encode() + cut_NL.astype("<i8").tobytes()).hexdigest()
        return CalibrationText(
            torch.from_numpy(cut_NL), fingerprint, used, step.calibration_windows, ordinary_tokens(tokenizer)
        )


def ordinary_tokens(tokenizer: PreTrainedTokenizerBase) -> torch.Tensor | None:
    """(V,) int64: the ids of a tokenizer's tokens that text is made of. None was added to it, as marks of a
    conversation are, and which may lie beyond the model's vocabulary. None if all its tokens were added."""
    control = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    ordinary = sorted(set(tokenizer.get_vocab().values()) - control)
    return torch.tensor(ordinary, dtype=torch.int64) if ordinary else None


def reads_text(recipe: Recipe) -> bool:
    """Whether a step looks at a text."""
    return any(isinstance(step, Calibrated) and step.reads_text for step in recipe)


def looked_at(documents: int, by: str, what: str = "scored document") -> list[Notice]:
    """A warning where scored documents were fitted on, which a request must allow; `what` people call one."""
    return [Warned.LOOKED_AT(documents=documents, what=what, by=by)] if documents else []


def loader_without_sampler(
    settings: Settings, tokenizer: Path, *, check_cancelled: CheckCancelled = never_cancelled
) -> CalibrationLoader:
    """For processes that serve: every source but text sampled from the reference itself."""

    def load(source: TextSource) -> list[TextDocument]:
        if isinstance(source, SelfText):
            _refuse_self()
        return load_documents(
            source, settings=settings, tokenizer=load_tokenizer(tokenizer), check_cancelled=check_cancelled
        )

    return CalibrationLoader(load, tokenizer, check_cancelled=check_cancelled)


def _refuse_self() -> NoReturn:
    raise HemostatError(
        ErrorCode.RECIPE_NOT_APPLICABLE,
        "a deployment cannot sample its recipe's calibration text from the reference",
        hint="give the step a text source that can be read: shipped, file or hub",
    )
