"""Slices of a trajectory by the kind of the generated token: KL along both texts, first divergences.

Names: T tokens of all texts of a path, prompt by prompt; C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from app.kinds.trajectory.report import (
    ClassDivergence,
    ClassesOfCell,
    ClassFirstDivergence,
    ClassKl,
    TokenClassName,
    TrajectoryTokenClasses,
)
from workers.diagnosis.trajectory.breaking import breaking
from workers.diagnosis.trajectory.cells import Path
from workers.diagnosis.trajectory.means import POSITIVE, mean_over, share_of_prompts
from workers.diagnosis.trajectory.pairs import first_difference
from workers.distributions.significance import holm
from workers.distributions.token_values import Positions
from workers.measuring.classify import Classified
from workers.measuring.summary import as_mean
from workers.measuring.token_classes import difference, share_intervals
from workers.text.token_classes.catalogue import CLASSES, NONE
from workers.text.token_classes.text import Mask

Array = NDArray[np.float64]

ORDER = (*(one.name for one in CLASSES), NONE)


def token_classes(paths: Sequence[Classified], by_candidate: Sequence[ClassesOfCell]) -> TrajectoryTokenClasses:
    """What a report says of the classes of `paths`: definitions, those that no one wrote, and each candidate's."""

    def written(name: str) -> bool:
        return any(bool(path.masks[name].any()) for path in paths)

    return TrajectoryTokenClasses(
        classes=tuple(
            TokenClassName(name=one.name, title=one.title, definition=one.definition)
            for one in CLASSES
            if written(one.name)
        ),
        absent=tuple(one.title for one in CLASSES if not written(one.name)),
        by_candidate=tuple(by_candidate),
    )


def classes_of(
    ours: Path,
    theirs: Path,
    classes: tuple[Classified, Classified],
    *,
    seed: int,
    check_cancelled: Callable[[], None] = lambda: None,
) -> ClassesOfCell:
    """Both models' texts by class; `classes` are those of the tokens of either's texts."""
    first = [first_difference(one.tokens, other.tokens) for one, other in zip(ours.texts, theirs.texts, strict=True)]
    reference, candidate = (
        kl_by_class(path.column("kl"), found, seed=seed, check_cancelled=check_cancelled)
        for path, found in zip((ours, theirs), classes, strict=True)
    )
    lengths = [len(text.tokens) for text in ours.texts]
    return ClassesOfCell(
        reference_text=reference,
        candidate_text=candidate,
        first_divergence=first_by_class(first, lengths, classes[0], seed=seed, check_cancelled=check_cancelled),
    )


def kl_by_class(
    kl: Sequence[Array],
    found: Classified,
    *,
    seed: int,
    check_cancelled: Callable[[], None] = lambda: None,
) -> tuple[ClassKl, ...]:
    """KL(p‖q) of each class along one path, `NONE` last. `kl` is by prompt and token, NaN if logits are not finite:
    such tokens are counted and left out."""
    kl_T = np.concatenate([np.zeros(0), *kl])
    prompts_T = np.repeat(np.arange(len(kl)), [len(one) for one in kl])
    finite_T = np.isfinite(kl_T)
    positions = _positions(prompts_T[finite_T])
    present = dict(_present(found, np.ones(len(kl_T), dtype=np.bool_)))
    classes = {name: mask for name, mask in present.items() if name != NONE}
    differences = {
        name: difference(kl_T[finite_T], positions, mask[finite_T]) if finite_T.any() else (None, None)
        for name, mask in classes.items()
    }
    p = dict(zip(classes, holm([of[1] for of in differences.values()]), strict=True))
    shares = share_intervals(kl_T[finite_T], positions, [mask[finite_T] for mask in present.values()], seed=seed)
    total = float(kl_T[finite_T].sum())
    listed = []
    for (name, mask), share_ci in zip(present.items(), shares, strict=True):
        check_cancelled()
        kept = mask & finite_T
        gap = differences.get(name, (None, None))[0]
        listed.append(
            ClassKl(
                name=name,
                tokens=int(np.count_nonzero(kept)),
                prompts=int(np.unique(prompts_T[kept]).size),
                share=int(np.count_nonzero(kept)) / max(1, int(np.count_nonzero(finite_T))),
                kl=mean_over([kl_T[kept]], prompts_T[kept], [POSITIVE], seed=seed)[0],
                share_of_kl=float(kl_T[kept].sum()) / total if total > 0 else None,
                share_of_kl_ci=share_ci,
                difference=None if gap is None else as_mean(gap),
                p_value=p.get(name),
                nonfinite_positions=int(np.count_nonzero(mask & ~finite_T)),
            )
        )
    return tuple(listed)


def first_by_class(
    first: Sequence[int | None],
    lengths: Sequence[int],
    found: Classified,
    *,
    seed: int,
    check_cancelled: Callable[[], None] = lambda: None,
) -> ClassFirstDivergence:
    """Which kinds of the reference's tokens are the first to differ.

    `first` is the position from 1 at which the texts of a prompt part (None: the same text), `lengths` those of the
    reference's texts, `found` the classes along them. At risk are the reference's tokens up to the first different one,
    that one included, and all of them where it has none.
    """
    at_token = [at if at is not None and at <= length else None for at, length in zip(first, lengths, strict=True)]
    ends = np.cumsum(lengths)
    starts = ends - np.asarray(lengths, dtype=np.int64)
    risk_T, parts_T = np.zeros(int(sum(lengths)), dtype=np.bool_), np.zeros(int(sum(lengths)), dtype=np.bool_)
    for at, start, end in zip(at_token, starts, ends, strict=True):
        risk_T[start : end if at is None else start + at] = True
        if at is not None:
            parts_T[start + at - 1] = True
    present = dict(_present(found, risk_T))
    named = [name for name in present if name != NONE]
    split = [np.split(found.masks[name], ends[:-1]) for name in named]
    check_cancelled()
    broken = breaking(split, at_token, seed=seed)
    p = dict(zip(named, holm([None if one is None else one.p_value for one in broken]), strict=True))
    by_place = {name: one.by_place for name, one in zip(named, broken, strict=True) if one is not None}
    listed = []
    for name, mask in present.items():
        hits = [bool(hit) for hit in mask[parts_T]]
        listed.append(
            ClassDivergence(
                name=name,
                tokens=int(np.count_nonzero(mask & risk_T)),
                divergences=sum(hits),
                share=share_of_prompts(hits),
                share_by_place=by_place.get(name),
                p_value=p.get(name),
            )
        )
    return ClassFirstDivergence(
        parted=int(np.count_nonzero(parts_T)),
        after_the_end=sum(at is not None for at in first) - int(np.count_nonzero(parts_T)),
        tokens=int(np.count_nonzero(risk_T)),
        classes=tuple(listed),
    )


def _present(found: Classified, where: Mask) -> Iterator[tuple[str, Mask]]:
    """Classes that have a token among `where`, in the catalogue's order, and that of no class last."""
    masks: Mapping[str, Mask] = found.with_none()
    for name in ORDER:
        if (masks[name] & where).any():
            yield name, masks[name]


def _positions(prompts_T: NDArray[np.integer]) -> Positions:
    """Positions of which the prompt alone is of interest: it is their cluster however few there are."""
    nothing = np.zeros(len(prompts_T), dtype=np.int32)
    return Positions(prompts_T, prompts_T, nothing, nothing, nothing)
