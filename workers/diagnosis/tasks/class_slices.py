"""What a report says of a task by the token classes of its items' answers.

Fisher's exact test compares how often the items of a class and all others flip. It is adjusted by Holm's rule over the
judged classes of all tasks together. Which classes are judged is settled by their items alone, before any answer is
looked at. So those of a task that could not be scored count, too, with p = 1: the answers decide which tasks these are.

Names: I items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from app.kinds.tasks.report import FEWEST_CLASS_ITEMS, AnyTaskResult, ItemClass, ItemClasses, Share
from workers.analysis.paired import mcnemar, score
from workers.analysis.paired.pairs import Pairs, wilson
from workers.answering.pair import Answered
from workers.diagnosis.tasks.answer_classes import ANSWER_CLASSES, AnswerClasses
from workers.distributions.significance import holm
from workers.text.token_classes.catalogue import NONE, TokenClass
from workers.text.token_classes.text import Mask

_OF_NONE: Final = TokenClass(NONE, "In no class", "What was looked at holds no token of any class.")


@dataclass(frozen=True)
class _Part:
    """Items of a task that are of one class, and the others."""

    kind: TokenClass
    pairs: Pairs
    others: Pairs | None

    @property
    def judged(self) -> bool:
        """Whether a test could show something of it, and there are others to compare with. Fisher's test takes items
        for independent, which those of one passage are not."""
        return self.pairs.items >= FEWEST_CLASS_ITEMS and self.others is not None and self.pairs.clusters is None

    def p_value(self) -> float | None:
        """Of Fisher's test; None for a class that is not judged."""
        if not self.judged or self.others is None:
            return None
        return mcnemar.fisher(self.pairs.flips, self.pairs.items, self.others.flips, self.others.items)


def sliced(
    found: Sequence[AnyTaskResult],
    answered: Sequence[Answered],
    classes: Sequence[AnswerClasses],
    *,
    unscored: Sequence[tuple[Answered, AnswerClasses]] = (),
) -> tuple[list[AnyTaskResult], str]:
    """The results with their slices by class, and what so many of them mean for the p values; `unscored` are
    tasks that have no result, with their classes."""
    parts = [_parts(one, of) for one, of in zip(answered, classes, strict=True)]
    tests = [part.p_value() for of_task in parts for part in of_task]
    nothing = [1.0] * sum(_judgeable(one, of) for one, of in unscored)
    adjusted = iter(zip(tests, holm([*tests, *nothing])[: len(tests)], strict=True))
    results: list[AnyTaskResult] = []
    for result, of, of_task in zip(found, classes, parts, strict=True):
        slices = ItemClasses(
            where=of.where,
            note=of.note,
            classes=tuple(_row(part, result, *next(adjusted)) for part in of_task),
            absent=tuple(kind.title for kind in ANSWER_CLASSES if of.where and not of.holds[kind.name].any()),
        )
        results.append(result.model_copy(update={"token_classes": slices}))
    return results, multiplicity(parts, len(nothing))


def multiplicity(parts: Sequence[Sequence[_Part]], lost: int = 0) -> str:
    """How many classes were judged, `lost` of tasks without a result among them; empty if there is none at all."""
    every = [part for of_task in parts for part in of_task]
    judged = sum(part.judged for part in every)
    sentences = []
    if judged:
        among = f", {lost} of tasks that could not be scored among them" if lost else ""
        sentences.append(
            f"p values are adjusted over the {judged + lost} {'kind' if judged + lost == 1 else 'kinds'} of all tasks "
            f"that can be judged (Holm){among}. Intervals are not adjusted."
        )
    shared = sum(part.others is not None and part.pairs.clusters is not None for part in every)
    if shared:
        sentences.append(f"Not judged: {shared} {'kind' if shared == 1 else 'kinds'} in items that share passages.")
    few = sum(part.others is not None and not part.judged for part in every) - shared
    if few:
        sentences.append(
            f"Not judged: {few} {'kind' if few == 1 else 'kinds'} in fewer than {FEWEST_CLASS_ITEMS} items."
        )
    return " ".join(sentences)


def _parts(one: Answered, classes: AnswerClasses) -> list[_Part]:
    """The classes that some item is in, and the items that are in none."""
    return [] if classes.where is None else [_part(kind, mask_I, one) for kind, mask_I in _present(classes)]


def _present(classes: AnswerClasses) -> list[tuple[TokenClass, Mask]]:
    """Those that some item is in, which (I,); the items in none last."""
    of_none = ~np.any(list(classes.holds.values()), axis=0)
    kinds = [(kind, classes.holds[kind.name]) for kind in ANSWER_CLASSES]
    return [(kind, mask_I) for kind, mask_I in (*kinds, (_OF_NONE, of_none)) if mask_I.any()]


def _judgeable(one: Answered, classes: AnswerClasses) -> int:
    """How many classes would be judged, as `_Part.judged` has it, whatever is answered."""
    if classes.where is None or one.passages is not None:
        return 0
    return sum(int(mask_I.sum()) >= FEWEST_CLASS_ITEMS and not mask_I.all() for _, mask_I in _present(classes))


def _part(kind: TokenClass, mask_I: Mask, one: Answered) -> _Part:
    reference, candidate = one.reference[one.metric].right, one.candidate[one.metric].right
    others = None if mask_I.all() else Pairs.of(reference[~mask_I], candidate[~mask_I])
    passages = None if one.passages is None else one.passages[mask_I]
    return _Part(kind, Pairs.of(reference[mask_I], candidate[mask_I], passages), others)


def _row(part: _Part, result: AnyTaskResult, p: float | None, p_holm: float | None) -> ItemClass:
    pairs, others = part.pairs, part.others
    flips = result.flips.harmful + result.flips.helpful
    return ItemClass(
        name=part.kind.name,
        title=part.kind.title,
        definition=part.kind.definition,
        items=pairs.items,
        share=pairs.items / result.items,
        reference=_share(pairs.both_right + pairs.harmful, pairs.items),
        candidate=_share(pairs.both_right + pairs.helpful, pairs.items),
        difference=Share(mean=pairs.difference, ci=score.interval(pairs)),
        harmful=pairs.harmful,
        helpful=pairs.helpful,
        rate=_share(pairs.flips, pairs.items),
        rate_others=None if others is None else _share(others.flips, others.items),
        share_of_flips=pairs.flips / flips if flips else None,
        fisher_p=p,
        fisher_p_holm=p_holm,
    )


def _share(count: int, items: int) -> Share:
    return Share(mean=count / items, ci=wilson(count, items))
