"""Paired differences of several candidates, and their ranking.

Every pair is compared at the same positions, so that what makes a text hard cancels. All pairs are corrected together
(Holm), measure by measure. With five candidates ten differences are asked for, and without it one of them would be
found in four of ten runs where there is none. Ranks are ranges. A candidate's best rank is one more than how many are
better for sure, its worst is how many there are less how many are worse for sure. Candidates between which no
difference is shown are ties, which does not say that they are equal: the interval says how far they may differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from app.contracts.diff_report import MEASURES, MOST, UNITS, Difference, DiffReport, Measure, Mismatch, Pair, Ranked
from app.contracts.distances import DISTANCES
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.notice import Notice
from app.contracts.notices import DiffNotice
from app.contracts.report import Mean
from app.kinds.compare.report import CompareReport
from workers.diagnosis.diff.classes import classes_of, listed, title
from workers.diagnosis.diff.protocol import mismatches, sentence
from workers.diagnosis.diff.tokens import Tokens, same_positions, shared
from workers.distributions.intervals import FEWEST_CLUSTERS, Clusters
from workers.distributions.significance import LEAST_P, LEVEL, holm, p_values
from workers.distributions.statistics import exponential
from workers.measuring.summary import as_mean

Array = NDArray[np.float64]
Masks = Mapping[str, NDArray[np.bool_]]
Said = Literal["better", "worse", "no difference shown", "cannot be judged", "equal"]
_TIES: Final = frozenset({"no difference shown", "cannot be judged", "equal"})
_BOUNDS: Final = {of.name: of.bounds for of in DISTANCES} | {"top1_agreement": (0.0, 1.0)}
# A difference below 0 is better in all others.
_GAINS: Final = frozenset({"top1_agreement"})
METHOD: Final = (
    "differences paired by token; 95 % studentized bootstrap intervals and two-sided p-values clustered by document "
    "(by window if fewer than six documents are at hand). Holm’s correction is over all pairs of a measure, of slices "
    "over all pairs and domains, and over all pairs and token classes, at the 5 % level. A domain or token class of "
    "fewer than six documents has no p and is not judged. Intervals are not corrected"
)


@dataclass(frozen=True)
class Side:
    """One report with its values by token. `name` is what a person reads for its candidate."""

    name: str
    report: CompareReport
    tokens: Tokens


def compare_reports(sides: Sequence[Side], *, by: Measure = "kl", anyway: bool = False, seed: int = 0) -> DiffReport:
    """The differences of every pair, and the ranking by one measure.

    Raises REPORTS_NOT_COMPARABLE (unless `anyway`), and INVALID_REQUEST for fewer than two or more than `MOST` reports
    and where they share no position that is finite in all of them.
    """
    if not 2 <= len(sides) <= MOST:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST, f"{len(sides)} reports are given; 2 to {MOST} can be compared with each other"
        )
    letters = [_letter(index) for index in range(len(sides))]
    found = mismatches({letter: side.report for letter, side in zip(letters, sides, strict=True)})
    found += _positions(letters, sides, told={mismatch.what for mismatch in found})
    if found and not anyway:
        raise HemostatError(
            ErrorCode.REPORTS_NOT_COMPARABLE,
            f"the reports are not comparable: {'; '.join(map(sentence, found))}",
            hint=(
                "measure them alike; --anyway (over HTTP anyway=true) compares what they share and labels the result"
            ),
        )
    common = shared([side.tokens for side in sides])
    usable = np.logical_and.reduce([tokens.finite for tokens in common])
    if not usable.any():
        why = "no position that is finite in all of them" if len(common[0]) else "no position"
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"the reports share {why}: there is nothing to compare",
            hint="compare over the same text, and leave out candidates whose logits are not finite",
        )
    kept = [tokens.select(usable) for tokens in common]
    domains, classes = _domains(kept[0]), classes_of(kept)
    pairs = _pairs(letters, kept, by, seed, domains, classes.masks)
    ranking = _ranking(letters, sides, common, kept, pairs, by, seed)
    ties = tuple((pair.earlier, pair.later) for pair in pairs if _said(pair, by) in _TIES)
    documents = np.unique(kept[0].document).size
    return DiffReport(
        comparable=not found,
        label=_label(found),
        mismatches=tuple(found),
        by=by,
        tokens=len(kept[0]),
        documents=documents,
        ranking=ranking,
        ties=ties,
        pairs=tuple(pairs),
        token_classes_note=classes.note,
        verdict=_verdict(ranking, pairs, ties, by, comparable=not found),
        method=METHOD,
        warnings=tuple(
            _warnings(letters, sides, common, kept, documents, {"domain": domains, "token class": classes.masks})
        ),
    )


def _letter(index: int) -> str:
    return chr(ord("a") + index)


def _positions(letters: Sequence[str], sides: Sequence[Side], *, told: set[str]) -> list[Mismatch]:
    """Reports of one protocol whose positions differ all the same: some were cut short, or edited."""
    if told & {"text", "tokenizer", "window", "stride", "scored positions"}:
        return []
    first = sides[0].tokens
    found = []
    for letter, side in zip(letters[1:], sides[1:], strict=True):
        if not same_positions(first, side.tokens):
            both = len(shared([first, side.tokens])[0])
            found.append(
                Mismatch(
                    reports=(letters[0], letter),
                    what="scored positions",
                    one=f"{len(first)}",
                    other=f"{len(side.tokens)}, of which {both} are the same",
                )
            )
    return found


def _label(found: Sequence[Mismatch]) -> str:
    if not found:
        return ""
    what = list(dict.fromkeys(mismatch.what for mismatch in found))
    differ = "differs" if len(what) == 1 and not what[0].endswith("positions") else "differ"
    return f"NOT COMPARABLE: {', '.join(what)} {differ}; the numbers below may show that instead of the candidates"


# --- pairs


def _domains(places: Tokens) -> Masks:
    """The positions of each domain; none where there is but one, which is the whole."""
    names = list(dict.fromkeys(places.domain.tolist()))
    return {name: places.domain == name for name in names} if len(names) > 1 else {}


def _pairs(
    letters: Sequence[str], kept: Sequence[Tokens], by: Measure, seed: int, domains: Masks, classes: Masks
) -> list[Pair]:
    every = np.ones(len(kept[0]), dtype=np.bool_)
    chosen = list(combinations(range(len(letters)), 2))
    whole = {measure: _differences(kept, chosen, measure, {None: every}, seed) for measure in MEASURES}
    parts = _differences(kept, chosen, by, domains, seed, kind="domain")
    kinds = _differences(kept, chosen, by, classes, seed, kind="token_class")
    return [
        Pair(
            earlier=letters[one],
            later=letters[other],
            differences=tuple(row for measure in MEASURES for row in whole[measure][one, other]),
            domains=tuple(parts[one, other]),
            token_classes=tuple(kinds[one, other]),
        )
        for one, other in chosen
    ]


def _differences(
    kept: Sequence[Tokens],
    chosen: Sequence[tuple[int, int]],
    measure: Measure,
    slices: Mapping[str, NDArray[np.bool_]] | Mapping[None, NDArray[np.bool_]],
    seed: int,
    *,
    kind: Literal["domain", "token_class"] = "domain",
) -> dict[tuple[int, int], list[Difference]]:
    """Rows of each pair, one a slice of this kind, corrected over all of them."""
    rows: list[tuple[tuple[int, int], str | None, Array, Mean, float | None, Tokens]] = []
    for name, mask in slices.items():
        places = kept[0].select(mask)
        columns = [kept[other].measures[measure][mask] - kept[one].measures[measure][mask] for one, other in chosen]
        clusters = Clusters.of(places.document, places.window, places.domain)
        means = [as_mean(estimate) for estimate in clusters.means(columns, seed=seed)]
        p = p_values(columns, clusters, seed=seed)
        if name is not None and np.unique(places.document).size < FEWEST_CLUSTERS:
            # Windows of a few documents speak of these alone, and a slice is named to speak of others of its kind.
            p = [None] * len(columns)
        rows += [
            (pair, name, column, mean, value, places)
            for pair, column, mean, value in zip(chosen, columns, means, p, strict=True)
        ]
    adjusted = holm([row[4] for row in rows])
    found: dict[tuple[int, int], list[Difference]] = {pair: [] for pair in chosen}
    for (pair, name, column, mean, value, places), corrected in zip(rows, adjusted, strict=True):
        found[pair].append(
            Difference(
                measure=measure,
                unit=UNITS[measure],
                domain=name if kind == "domain" else None,
                token_class=name if kind == "token_class" else None,
                title=title(name) if kind == "token_class" and name is not None else "",
                tokens=column.size,
                documents=np.unique(places.document).size,
                difference=mean,
                p=value,
                p_adjusted=corrected,
                verdict=_judged(measure, column, mean.mean or 0.0, corrected),
            )
        )
    return found


def _judged(measure: Measure, column: Array, mean: float, p: float | None) -> Said:
    if not column.any():
        return "equal"
    if p is None:
        return "cannot be judged"
    if p >= LEVEL:
        return "no difference shown"
    return "better" if (mean < 0) == (measure not in _GAINS) else "worse"


def _said(pair: Pair, by: Measure) -> Said:
    return next(row.verdict for row in pair.differences if row.measure == by)


# --- ranking


def _ranking(
    letters: Sequence[str],
    sides: Sequence[Side],
    common: Sequence[Tokens],
    kept: Sequence[Tokens],
    pairs: Sequence[Pair],
    by: Measure,
    seed: int,
) -> tuple[Ranked, ...]:
    better: dict[str, int] = dict.fromkeys(letters, 0)  # how many are better than it
    worse: dict[str, int] = dict.fromkeys(letters, 0)
    for pair in pairs:
        said = _said(pair, by)
        if said in {"better", "worse"}:
            winner, loser = (pair.later, pair.earlier) if said == "better" else (pair.earlier, pair.later)
            better[loser] += 1
            worse[winner] += 1
    clusters = Clusters.of(kept[0].document, kept[0].window, kept[0].domain)
    values = clusters.means([tokens.measures[by] for tokens in kept], seed=seed)
    rows = [
        Ranked(
            letter=letter,
            job=side.report.job,
            candidate=side.name,
            severity=side.report.severity,
            classes=() if side.report.decision.conclusive else side.report.decision.classes,
            bytes=side.report.provenance.candidate.bytes,
            bits_per_weight=side.report.provenance.candidate.bits_per_weight,
            value=as_mean(value, _BOUNDS.get(by, (0.0, np.inf))),
            perplexity=_finite(exponential(float(tokens.measures["log_perplexity"].mean()))),
            best_rank=1 + better[letter],
            worst_rank=len(letters) - worse[letter],
            nonfinite_positions=int(np.count_nonzero(~whole.finite)),
        )
        for letter, side, value, tokens, whole in zip(letters, sides, values, kept, common, strict=True)
    ]
    sign = -1 if by in _GAINS else 1
    return tuple(sorted(rows, key=lambda row: (sign * (row.value.mean or 0.0), row.letter)))


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _verdict(
    ranking: Sequence[Ranked],
    pairs: Sequence[Pair],
    ties: Sequence[tuple[str, str]],
    by: Measure,
    *,
    comparable: bool,
) -> str:
    name = by.replace("_", " ").replace("kl", "KL").replace("js", "JS").replace("tv", "TV").replace("top1", "top-1")
    letters = listed(sorted(row.letter for row in ranking))
    every = [_said(pair, by) for pair in pairs]
    best = [row for row in ranking if row.best_rank == 1]
    if len(pairs) == 1:
        said = _said(pairs[0], by)
        told = {
            "better": f"b is better than a in {name}",
            "worse": f"a is better than b in {name}",
            "no difference shown": f"no difference between a and b is shown in {name}",
            "cannot be judged": f"whether a and b differ in {name} cannot be judged on so few documents",
            "equal": f"a and b are equal in {name} at every position",
        }[said]
    elif "cannot be judged" in every:  # one document of one window: no pair that differs can be
        told = f"how {letters} differ in {name} cannot be judged on so few documents"
    elif set(every) == {"equal"}:
        told = f"{letters} are equal in {name} at every position"
    elif len(best) == 1:
        told = _first(best[0], ties, name)
    else:
        told = f"in {name} {listed([row.letter for row in best])} are the best, and none of them is shown to be better"
    if len(pairs) > 1 and set(every) - {"equal", "cannot be judged"}:
        told += f"; {len(ties) or 'none'} of {len(pairs)} pairs {'is a tie' if len(ties) < 2 else 'are ties'}"
    equal = every.count("equal")
    if 0 < equal < len(every):
        told += f"; {equal} of {len(pairs)} {'is' if equal == 1 else 'are'} equal at every position"
    return ("" if comparable else "Not comparable, compared anyway: ") + told + "."


def _first(best: Ranked, ties: Sequence[tuple[str, str]], name: str) -> str:
    """What is reported of the only one than which none is better: not each of the others need be worse for sure."""
    tied = [pair for pair in ties if best.letter in pair]
    if not tied:
        return f"{best.letter} is better than every other one in {name}"
    others = listed([other for pair in tied for other in pair if other != best.letter])
    return f"{best.letter} ranks first in {name}, but is not told from {others}"


def _warnings(
    letters: Sequence[str],
    sides: Sequence[Side],
    common: Sequence[Tokens],
    kept: Sequence[Tokens],
    documents: int,
    slices: Mapping[str, Masks],
) -> list[Notice]:
    found = []
    for letter, tokens in zip(letters, common, strict=True):
        broken = int(np.count_nonzero(~tokens.finite))
        if broken:
            found.append(DiffNotice.NONFINITE_POSITIONS(report=letter, positions=broken))
    least = min(len(side.tokens) for side in sides)
    if len(common[0]) < least:
        found.append(DiffNotice.FEW_SHARED_POSITIONS(shared=len(common[0]), scored=least))
    for kind, masks in slices.items():
        judged = sum(np.unique(kept[0].document[mask]).size >= FEWEST_CLUSTERS for mask in masks.values())
        asked = len(letters) * (len(letters) - 1) // 2 * judged
        if asked * LEAST_P >= LEVEL:
            found.append(DiffNotice.TOO_MANY_DIFFERENCES(differences=asked, slice=kind, least=LEAST_P))
    if Clusters.of(kept[0].document, kept[0].window).by == "windows":
        found.append(DiffNotice.FEW_DOCUMENTS(documents=documents))
    return found
