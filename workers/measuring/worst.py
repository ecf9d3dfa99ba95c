"""The positions of largest KL, and the text around them.

A few a document: one document that the candidate cannot follow would else fill the list and hide what is wrong
elsewhere.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from app.contracts.report import ContextToken, Passage, WorstToken
from workers.distributions.token_values import Positions, TokenValues

Ids = NDArray[np.int32]
Decode = Callable[[Sequence[int]], str]

WORST_TOKENS = 50
PASSAGES = 12
CONTEXT = 24
FEWEST_A_DOCUMENT = 3
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def worst_indices(kl: NDArray[np.floating], document: NDArray[np.integer], usable: NDArray[np.bool_]) -> list[int]:
    """Indices of the `WORST_TOKENS` largest KL > 0 among usable positions, largest first, equal ones in order of text.

    At most three a document, or twice its even share where documents are few.
    """
    limit = _limit(WORST_TOKENS, document)
    taken: Counter[int] = Counter()
    chosen: list[int] = []
    for index in _by_kl(kl, usable):
        if len(chosen) == WORST_TOKENS:
            break
        owner = int(document[index])
        if taken[owner] < limit:
            taken[owner] += 1
            chosen.append(index)
    return chosen


def worst_tokens(
    values: TokenValues,
    positions: Positions,
    indices: Sequence[int],
    documents: Sequence[str],
    domains: Sequence[str],
    decode: Decode | None,
) -> tuple[WorstToken, ...]:
    """The rows of the report for these indices. Without `decode` they hold ids and numbers but no text."""

    def text(token: int) -> str | None:
        return None if decode is None else decode([token])

    delta_p = values.delta_p
    return tuple(
        WorstToken(
            document=documents[positions.document[index]],
            domain=domains[positions.document[index]],
            position=int(positions.position[index]),
            token_id=int(positions.token_id[index]),
            token=text(int(positions.token_id[index])),
            kl=float(values.kl[index]),
            delta_p=float(delta_p[index]),
            reference_top=text(int(values.top_reference[index])),
            candidate_top=text(int(values.top_candidate[index])),
            probability_reference=float(np.exp(np.float64(values.logp_reference[index]))),
            probability_candidate=float(np.exp(np.float64(values.logp_candidate[index]))),
        )
        for index in indices
    )


def passage_indices(kl: NDArray[np.floating], positions: Positions, usable: NDArray[np.bool_]) -> list[int]:
    """Indices of the worst positions whose contexts of ±`CONTEXT` tokens do not overlap, at most `PASSAGES`."""
    limit = _limit(PASSAGES, positions.document)
    centres: dict[int, list[int]] = {}
    chosen: list[int] = []
    for index in _by_kl(kl, usable):
        if len(chosen) == PASSAGES:
            break
        mine = centres.setdefault(int(positions.document[index]), [])
        position = int(positions.position[index])
        if len(mine) < limit and all(abs(position - other) > 2 * CONTEXT for other in mine):
            mine.append(position)
            chosen.append(index)
    return chosen


def passages(
    values: TokenValues,
    positions: Positions,
    indices: Sequence[int],
    tokens: Mapping[int, Ids],
    documents: Sequence[str],
    domains: Sequence[str],
    decode: Decode,
    usable: NDArray[np.bool_],
) -> tuple[Passage, ...]:
    """The text around these indices, each token with its KL where it was scored.

    `tokens` holds the tokens of each of their documents, negative where they are not known; a passage ends there.
    """
    wanted = {int(positions.document[index]) for index in indices}
    scored: dict[int, dict[int, float]] = {document: {} for document in wanted}
    for index in np.flatnonzero(np.isin(positions.document, list(wanted)) & usable):
        scored[int(positions.document[index])][int(positions.position[index])] = float(values.kl[index])
    found: list[Passage] = []
    for index in indices:
        document, position = int(positions.document[index]), int(positions.position[index])
        start, stop = _known_around(tokens[document], position)
        texts = pieces(tokens[document][start:stop].tolist(), decode)
        found.append(
            Passage(
                document=documents[document],
                domain=domains[document],
                start=start,
                tokens=tuple(
                    ContextToken(text=text, kl=scored[document].get(start + offset))
                    for offset, text in enumerate(texts)
                ),
            )
        )
    return tuple(found)


def pieces(tokens: Sequence[int], decode: Decode) -> list[str]:
    """The text of each token in its place: joined, they are the text of all.

    Bytes of one character may be spread over tokens; the character then is at the last of them, and what comes
    before is empty. Where a tokenizer changes earlier text when a token follows, that token is decoded alone.
    """
    found: list[str] = []
    shown = ""
    for count, token in enumerate(tokens, start=1):
        text = decode(tokens[:count])
        if text.endswith(_REPLACEMENT) and count < len(tokens):
            found.append("")
        elif text.startswith(shown):
            found.append(text[len(shown) :])
            shown = text
        else:
            found.append(decode([token]))
            shown = text
    return found


def _limit(wanted: int, document: NDArray[np.integer]) -> int:
    """How many a document may hold."""
    documents = max(1, np.unique(document).size)
    return max(FEWEST_A_DOCUMENT, -(-2 * wanted // documents))


def _by_kl(kl: NDArray[np.floating], usable: NDArray[np.bool_]) -> list[int]:
    """Indices of usable positions that differ at all, by falling KL."""
    candidates = np.flatnonzero(usable & (np.where(usable, kl, 0.0) > 0))
    order: list[int] = candidates[np.argsort(-kl[candidates], kind="stable")].tolist()
    return order


def _known_around(tokens: Ids, position: int) -> tuple[int, int]:
    """The stretch of known tokens around a position, at most `CONTEXT` to each side."""
    start, stop = position, position + 1
    while start > max(0, position - CONTEXT) and tokens[start - 1] >= 0:
        start -= 1
    while stop < min(len(tokens), position + CONTEXT + 1) and tokens[stop] >= 0:
        stop += 1
    return start, stop
