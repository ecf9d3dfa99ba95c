"""Which documents are fitted, which stop the fitting and choose, and which are the test.

Whole documents, never parts of one: neighbouring tokens share what they are about. Each domain is divided by itself, so
that every set holds every domain where there are documents enough, and a seed decides who goes where.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

# Of the documents of a domain. Fitting needs most; the intervals of the test need many documents, not long ones.
TEST_SHARE: Final = 0.3
CHOOSE_SHARE: Final = 0.2
# Tokens to choose by, as a share of those that are fitted: a mean over fewer is too noisy, more would only cost time.
CHOOSE_BUDGET: Final = 0.4


@dataclass(frozen=True)
class Partition:
    """Indices of documents, in the order in which they were drawn. A document is in at most one set."""

    fit: tuple[int, ...]
    choose: tuple[int, ...]
    test: tuple[int, ...]


def divide(
    domains: Sequence[str],
    tokens: Sequence[int],
    *,
    budget: int,
    seed: int,
    with_test: bool,
    fit_domains: Collection[str] | None = None,
) -> Partition:
    """Divides documents, given the domain and the scored tokens of each.

    `budget` bounds the tokens of the fitted ones (the first is taken whatever its size). Without `with_test` none is
    kept for a test, because the test has a text of its own. Documents of domains that are not in `fit_domains` only
    ever stand in the test, and so does the single document of a domain.
    """
    queues: dict[str, dict[str, list[int]]] = {"fit": {}, "choose": {}, "test": {}}
    for domain in sorted(set(domains)):
        own = [index for index, name in enumerate(domains) if name == domain]
        order = [own[place] for place in _rng(seed, domain).permutation(len(own))]
        if fit_domains is not None and domain not in fit_domains:
            queues["test"][domain] = order if with_test else []
            continue
        test = _share(len(order), TEST_SHARE) if with_test else 0
        if with_test and len(order) == 1:
            test = 1
        rest = len(order) - test
        choose = _share(rest, CHOOSE_SHARE)
        queues["test"][domain] = order[:test]
        queues["choose"][domain] = order[test : test + choose]
        queues["fit"][domain] = order[test + choose :]
    return Partition(
        fit=_within(_in_turn(queues["fit"]), tokens, budget),
        choose=_within(_in_turn(queues["choose"]), tokens, int(budget * CHOOSE_BUDGET)),
        test=tuple(_in_turn(queues["test"])),
    )


def halve(domains: Sequence[str], *, share: float, seed: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Indices of documents to choose by, and of the others, which are the test; each domain is divided by itself.

    `share` of a domain's documents are chosen by, at least one where it has two; the single document of a domain is
    in the test. Both come each domain in turn, so that the first so many hold every domain.
    """
    queues: dict[str, dict[str, list[int]]] = {"choose": {}, "test": {}}
    for domain in sorted(set(domains)):
        own = [index for index, name in enumerate(domains) if name == domain]
        order = [own[place] for place in _rng(seed, domain).permutation(len(own))]
        choose = _share(len(order), share)
        queues["choose"][domain], queues["test"][domain] = order[:choose], order[choose:]
    return tuple(_in_turn(queues["choose"])), tuple(_in_turn(queues["test"]))


def _share(count: int, share: float) -> int:
    """At least one where one is left for what the rest is needed for."""
    return 0 if count < 2 else min(count - 1, max(1, round(count * share)))


def _rng(seed: int, domain: str) -> np.random.Generator:
    """Of its own for each domain: one more domain does not divide the others again."""
    digest = hashlib.sha256(f"{seed} {domain}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def _in_turn(by_domain: dict[str, list[int]]) -> list[int]:
    longest = max((len(many) for many in by_domain.values()), default=0)
    return [many[turn] for turn in range(longest) for many in by_domain.values() if turn < len(many)]


def _within(order: Sequence[int], tokens: Sequence[int], budget: int) -> tuple[int, ...]:
    """The first ones that fit into the budget together; a long one is passed over for shorter ones after it."""
    taken: list[int] = []
    left = budget
    for index in order:
        if tokens[index] <= left or not taken:
            taken.append(index)
            left -= tokens[index]
    return tuple(taken)
