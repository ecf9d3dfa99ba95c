"""Kinds of token of drawn texts (`trajectory_draws`), and what a cell of a report says of them by plain statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from tests.support.reports import Floats, _mean
from tests.support.trajectory_draws import Json, Written, along, share_of

Masks = dict[str, list[NDArray[np.bool_]]]

# Share of tokens, and how much larger KL is there.
SHARES: Final = {"numbers": 0.06, "code": 0.03, "names": 0.08, "punctuation": 0.15, "non_english": 0.02, "rare": 0.1}
TITLES: Final = {
    "numbers": "Numbers",
    "code": "Program code",
    "answer_start": "First tokens of an answer",
    "names": "Names",
    "punctuation": "Punctuation",
    "non_english": "Other languages",
    "rare": "Rare tokens",
}
NONE: Final = "none"

BLOCK: Final[Json] = {
    "classes": [
        {"name": name, "title": title, "definition": f"Tokens that are of the class {title.lower()}."}
        for name, title in TITLES.items()
    ],
    "absent": ["JSON structure", "Tool names", "Tool arguments", "Chat template"],
}


def reference_masks(decoder: str, lengths: Sequence[int]) -> Masks:
    """Of the reference's texts by a decoder, whoever the candidate is."""
    return _drawn(np.random.default_rng([ord(letter) for letter in decoder]), lengths)


def _drawn(rng: np.random.Generator, lengths: Sequence[int]) -> Masks:
    masks = {name: [rng.random(length) < share for length in lengths] for name, share in SHARES.items()}
    masks["answer_start"] = [np.arange(length) < 8 for length in lengths]
    return {name: masks[name] for name in TITLES}


def with_none(masks: Masks) -> Masks:
    """Beside them the tokens that are in none."""
    return masks | {NONE: [~np.any(one, axis=0) for one in zip(*masks.values(), strict=True)]}


def by_class_of(decoder: str, candidate: int, written: Written) -> Json:
    """Of one decoder of one candidate. Before the texts part their tokens are the same, and so are the classes."""
    ours = reference_masks(decoder, [len(text) for text in written.kl[0]])
    theirs = _drawn(np.random.default_rng([candidate, *map(ord, decoder)]), [len(text) for text in written.kl[1]])
    for name, masks in theirs.items():
        for mask, other, at in zip(masks, ours[name], written.first, strict=True):
            shared = len(other) if at is None else at - 1
            mask[:shared] = other[:shared]
    return {
        "reference_text": _kl(written.kl[0], ours),
        "candidate_text": _kl(written.kl[1], theirs),
        "first_divergence": _first(written, ours),
    }


def _kl(kl: Sequence[Floats], masks: Masks) -> list[Json]:
    whole = np.concatenate(kl)
    listed = []
    for name, of in with_none(masks).items():
        inside = [text[mask] for text, mask in zip(kl, of, strict=True)]
        outside = np.concatenate([text[~mask] for text, mask in zip(kl, of, strict=True)])
        joined = np.concatenate(inside)
        if not joined.size:
            continue
        gap, p = _welch(joined, outside)
        share = float(joined.sum() / whole.sum()) if whole.sum() else None
        listed.append(
            {
                "name": name,
                "tokens": joined.size,
                "prompts": sum(bool(text.size) for text in inside),
                "share": joined.size / whole.size,
                "kl": along(inside),
                "share_of_kl": share,
                "share_of_kl_ci": None if share is None else [0.8 * share, min(1.0, 1.2 * share)],
                "difference": None if name == NONE else gap,
                "p_value": None if name == NONE else p,
                "nonfinite_positions": 0,
            }
        )
    return listed


def _within(shares: Sequence[Floats]) -> Json:
    """A share of positions, its interval cut to what it can be."""
    found = along(shares)
    return found | {"ci": found["ci"] and [max(0.0, found["ci"][0]), min(1.0, found["ci"][1])]}


def _welch(inside: Floats, outside: Floats) -> tuple[Json, float]:
    gap = float(inside.mean() - outside.mean())
    error = float(np.sqrt(inside.var() / inside.size + outside.var() / outside.size))
    p = float(2 * stats.norm.sf(abs(gap) / error)) if error else 1.0
    ci = [gap - 1.96 * error, gap + 1.96 * error]
    return {"mean": gap, "ci": ci, "clusters": "documents"}, min(1.0, len(TITLES) * p)


def _first(written: Written, masks: Masks) -> Json:
    lengths = [len(text) for text in written.kl[0]]
    until = [length if at is None else at for at, length in zip(written.first, lengths, strict=True)]
    parted = [(prompt, at) for prompt, at in enumerate(written.first) if at is not None]
    listed = []
    for name, of in with_none(masks).items():
        risk = [mask[:end] for mask, end in zip(of, until, strict=True)]
        tokens = int(sum(mask.sum() for mask in risk))
        if not tokens:
            continue
        hits = [bool(of[prompt][at - 1]) for prompt, at in parted]
        events = [
            (np.arange(1, end + 1) == (at or 0)).astype(np.float64)[mask]
            for mask, end, at in zip(risk, until, written.first, strict=True)
        ]
        share: dict[str, Any] = share_of(hits) if hits else {"mean": None, "ci": None, "clusters": None}
        place = None
        if hits and name != NONE:
            place = float(np.mean([np.mean([len(m) >= at and m[at - 1] for m in of]) for _, at in parted]))
        p = None
        if place is not None and name != "answer_start":
            p = min(1.0, len(TITLES) * float(stats.binomtest(sum(hits), len(hits), place).pvalue))
        listed.append(
            {
                "name": name,
                "tokens": tokens,
                "prompts": sum(bool(mask.any()) for mask in risk),
                "share_of_tokens": _within([mask.astype(np.float64) for mask in risk]),
                "divergences": sum(hits),
                "share": share,
                "share_by_place": place,
                "hazard": _within(events),
                "p_value": p,
            }
        )
    return {"parted": len(parted), "after_the_end": 0, "tokens": sum(until), "classes": listed}


def distances_of(columns: dict[str, Floats], document: NDArray[np.integer[Any]], masks: Masks) -> list[Json]:
    """Means of `columns` (kl, infinite, tv, top1) at the tokens of each class; `kl` is NaN where it is infinite."""
    listed = []
    for name, of in with_none(masks).items():
        mask = np.concatenate(of)
        if not mask.any():
            continue
        finite = mask & np.isfinite(columns["kl"])
        none = {"mean": None, "ci": None, "clusters": None}
        listed.append(
            {
                "name": name,
                "tokens": int(mask.sum()),
                "kl": _mean(columns["kl"][finite], document[finite]) if finite.any() else none,
                **{key: _mean(columns[key][mask], document[mask]) for key in ("infinite", "tv", "top1")},
            }
        )
    return listed
