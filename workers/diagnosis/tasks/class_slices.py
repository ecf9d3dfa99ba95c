"""What a report says of a task by the token classes of its items' answers.

Of each class: the paired figures of the task over the class's items, McNemar's exact test, and Fisher's exact test that
its items flip as often as all others. Both are adjusted by Holm's rule over the judged classes of all tasks together,
each kind of test by itself; which classes are judged is settled by their items alone, before any answer is looked at.
So those of a task that could not be scored count, too, with p = 1: which tasks these are hangs on what the models said.

Names: I items, N tokens of right choices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.kinds.tasks.report import (
    FEWEST_CLASS_ITEMS,
    AnswerTokens,
    AnyTaskResult,
    ClassOutcome,
    ItemClass,
    ItemClasses,
    Share,
)
from app.models.tasks.power import LEVEL
from workers.analysis.paired import mcnemar, score
from workers.analysis.paired.pairs import Pairs, wilson
from workers.answering.guessing import chance_of
from workers.answering.pair import Answered
from workers.diagnosis.tasks.answer_classes import ANSWER_CLASSES, AnswerClasses
from workers.distributions.intervals import Clusters
from workers.distributions.significance import holm
from workers.measuring.summary import as_mean
from workers.text.callbacks import CheckCancelled, never_cancelled
from workers.text.token_classes.catalogue import NONE, TokenClass
from workers.text.token_classes.text import Mask

_OF_NONE: Final = TokenClass(NONE, "In no class", "What was looked at holds no token of any class.")
_ALL: Final = TokenClass("all", "All tokens", "")


@dataclass(frozen=True)
class _Part:
    """Items of a task that are of one class, and the others."""

    kind: TokenClass
    pairs: Pairs
    others: Pairs | None
    at_chance: bool

    @property
    def judged(self) -> bool:
        """Whether a test could show something of it, and there are others to compare with."""
        return self.pairs.items >= FEWEST_CLASS_ITEMS and self.others is not None

    def tests(self) -> tuple[float | None, float | None]:
        """p of McNemar's and of Fisher's test."""
        if not self.judged or self.others is None:
            return None, None
        inside, outside = self.pairs, self.others
        return mcnemar.exact(inside), mcnemar.fisher(inside.flips, inside.items, outside.flips, outside.items)

    def outcome(self, mcnemar_holm: float | None) -> ClassOutcome:
        """What is reported of it."""
        if self.others is None:
            return "every_item"
        if mcnemar_holm is None:
            return "too_few"
        if self.at_chance:
            return "at_chance"
        if mcnemar_holm >= LEVEL:
            return "not_shown"
        return "worse" if self.pairs.harmful > self.pairs.helpful else "better"


def sliced(
    found: Sequence[AnyTaskResult],
    answered: Sequence[Answered],
    classes: Sequence[AnswerClasses],
    *,
    seed: int,
    unscored: Sequence[AnswerClasses] = (),
    check_cancelled: CheckCancelled = never_cancelled,
) -> tuple[list[AnyTaskResult], str]:
    """The results with their slices by class, and what so many of them mean for the p values; `unscored` are the
    classes of tasks that have no result. Raises what `check_cancelled` raises."""
    parts = [_parts(one, of, result) for result, one, of in zip(found, answered, classes, strict=True)]
    tests = [part.tests() for of_task in parts for part in of_task]
    nothing = [1.0] * sum(map(_judgeable, unscored))
    mcnemar_holm, fisher_holm = (holm([*(pair[kind] for pair in tests), *nothing])[: len(tests)] for kind in (0, 1))
    adjusted = zip(tests, mcnemar_holm, fisher_holm, strict=True)
    told: list[AnyTaskResult] = []
    for result, one, of, of_task in zip(found, answered, classes, parts, strict=True):
        rows = tuple(_row(part, result, *next(adjusted)) for part in of_task)
        sliced_ = ItemClasses(
            where=of.where,
            note=of.note,
            classes=rows,
            absent=tuple(kind.title for kind in ANSWER_CLASSES if of.where and not of.holds[kind.name].any()),
            tokens=_tokens(one, of, seed, check_cancelled),
        )
        told.append(result.model_copy(update={"token_classes": sliced_}))
    return told, multiplicity(parts, len(nothing))


def multiplicity(parts: Sequence[Sequence[_Part]], lost: int = 0) -> str:
    """How many classes were judged, `lost` of tasks without a result among them; empty where there is none at all."""
    every = [part for of_task in parts for part in of_task]
    judged = sum(part.judged for part in every)
    if not every:
        return ""
    told = []
    if judged:
        among = f", {lost} of tasks that could not be scored among them" if lost else ""
        told.append(
            f"Each interval is a 95 % one of its own. p values are adjusted over the {judged + lost} "
            f"{'kind' if judged + lost == 1 else 'kinds'} of all tasks that can be judged (Holm){among}, those of "
            "McNemar's test and those of Fisher's test apart: in either, the chance that any statement of p below "
            f"{LEVEL:g} is wrong is at most {100 * LEVEL:g} %."
        )
    few = sum(part.others is not None and not part.judged for part in every)
    if few:
        told.append(
            f"{few} {'kind' if few == 1 else 'kinds'} in fewer than {FEWEST_CLASS_ITEMS} items, of which McNemar's "
            "test could show nothing, not even if all flipped: too few to be judged."
        )
    return " ".join(told)


def _parts(one: Answered, classes: AnswerClasses, result: AnyTaskResult) -> list[_Part]:
    """The classes that some item is in, and the items that are in none."""
    if classes.where is None:
        return []
    return [_part(kind, mask_I, one, result) for kind, mask_I in _present(classes)]


def _present(classes: AnswerClasses) -> list[tuple[TokenClass, Mask]]:
    """Those that some item is in, which (I,); the items in none last."""
    of_none = ~np.any(list(classes.holds.values()), axis=0)
    kinds = [(kind, classes.holds[kind.name]) for kind in ANSWER_CLASSES]
    return [(kind, mask_I) for kind, mask_I in (*kinds, (_OF_NONE, of_none)) if mask_I.any()]


def _judgeable(classes: AnswerClasses) -> int:
    """How many classes would be judged, as `_Part.judged` has it, whatever is answered."""
    if classes.where is None:
        return 0
    return sum(int(mask_I.sum()) >= FEWEST_CLASS_ITEMS and not mask_I.all() for _, mask_I in _present(classes))


def _part(kind: TokenClass, mask_I: Mask, one: Answered, result: AnyTaskResult) -> _Part:
    reference, candidate = one.reference[one.metric].right, one.candidate[one.metric].right
    pairs = Pairs.of(reference[mask_I], candidate[mask_I])
    inside = [item for item, chosen in zip(one.items, mask_I, strict=True) if chosen]
    guessed = result.outcome == "at_chance" or chance_of(replace(one, items=inside), pairs).reference_at_chance
    others = None if mask_I.all() else Pairs.of(reference[~mask_I], candidate[~mask_I])
    return _Part(kind, pairs, others, guessed)


def _row(
    part: _Part,
    result: AnyTaskResult,
    p: tuple[float | None, float | None],
    mcnemar_holm: float | None,
    fisher_holm: float | None,
) -> ItemClass:
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
        mcnemar_p=p[0],
        mcnemar_p_holm=mcnemar_holm,
        fisher_p=p[1],
        fisher_p_holm=fisher_holm,
        outcome=part.outcome(mcnemar_holm),
    )


def _share(count: int, items: int) -> Share:
    return Share(mean=count / items, ci=wilson(count, items))


def _tokens(
    one: Answered, classes: AnswerClasses, seed: int, check_cancelled: CheckCancelled
) -> tuple[AnswerTokens, ...]:
    """By class how likely the right choices' tokens are; none where it is not known of single tokens. Of ten thousand
    items the intervals take a second a class.

    Raises RuntimeError where the classes are of other tokens than those that were scored.
    """
    scored = one.likelihoods
    if classes.token is None or scored is None or scored.change is None or scored.choice is None:
        return ()
    gold = np.asarray([item.gold for item in one.items])
    right = scored.choice == gold[scored.item]
    change_N, item_N = scored.change[right], scored.item[right]
    masks = [(kind, classes.token[kind.name]) for kind in ANSWER_CLASSES]
    if any(mask_N.size != change_N.size for _, mask_N in masks):
        raise RuntimeError("a choice gives other tokens than those that were scored")
    of_none = ~np.any([mask_N for _, mask_N in masks], axis=0)
    rows = [*masks, (_OF_NONE, of_none), (_ALL, np.ones(change_N.size, dtype=np.bool_))]
    finite = np.isfinite(change_N)
    told = []
    for kind, mask_N in rows:
        check_cancelled()
        if mask_N.any():
            told.append(_changed(kind, change_N[mask_N & finite], item_N[mask_N & finite], seed))
    return tuple(told)


def _changed(kind: TokenClass, change_N: NDArray[np.float64], item_N: NDArray[np.int64], seed: int) -> AnswerTokens:
    estimate = Clusters(item_N, "documents").means([change_N], seed=seed)[0] if change_N.size else None
    return AnswerTokens(
        name=kind.name,
        title=kind.title,
        tokens=change_N.size,
        items=np.unique(item_N).size,
        change=as_mean(estimate),
    )
