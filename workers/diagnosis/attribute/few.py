"""What it means where a part of the text has too few clusters, in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workers.diagnosis.attribute.subset import SHORTEST_CUT, Missed
from workers.distributions.intervals import FEWEST_CLUSTERS
from workers.distributions.token_values import Positions

# What lets parts see more of the text before some are dropped.
_MORE = "Give more `tokens`, or a larger `budget`, with which fewer parts are dropped so early."


def on_text(tokens: int, documents: int) -> str:
    """So many tokens of so many documents."""
    return f"{tokens} token{'' if tokens == 1 else 's'} of {documents} document{'' if documents == 1 else 's'}"


def too_few_at_first(parts: Sequence[int], where: Positions) -> list[str]:
    """Warnings where some parts were measured on a first part of the text alone, which has too little for intervals
    that the whole has enough for. `parts`: scored positions of each; `where`: those of the whole."""
    documents, windows = _clusters(where, len(where))
    early = [(tokens, *_clusters(where, tokens)) for tokens in parts if tokens < len(where)]
    told = []
    # where the whole has too little, `too_few` tells it of all parts
    without = [tokens for tokens, _, pieces in early if pieces < FEWEST_CLUSTERS <= windows]
    if without:
        so = (
            "its nats have no interval and whether it does"
            if len(without) == 1
            else ("their nats have no interval and whether they do")
        )
        told.append(
            f"{_on_the_first(without, where)}: fewer than six of either, so that {so} damage (`shown`) is not "
            f"told. {_MORE}"
        )
    narrow = [tokens for tokens, texts, pieces in early if texts < FEWEST_CLUSTERS <= min(pieces, documents)]
    if narrow:
        intervals = "its intervals are" if len(narrow) == 1 else "their intervals are"
        told.append(
            f"{_on_the_first(narrow, where)}: fewer than six documents, so that {intervals} clustered by windows, and "
            f"too narrow. {_MORE}"
        )
    return told


def _clusters(where: Positions, tokens: int) -> tuple[int, int]:
    """(documents, windows) of the first so many scored positions."""
    return int(np.unique(where.document[:tokens]).size), int(np.unique(where.window[:tokens]).size)


def _on_the_first(parts: Sequence[int], where: Positions) -> str:
    """How many parts were measured on how much of the text, as the beginning of a sentence."""
    tokens = max(parts)
    documents, windows = _clusters(where, tokens)
    were = "1 part was" if len(parts) == 1 else f"{len(parts)} parts were"
    most = "the first" if min(parts) == tokens else "no more than the first"
    pieces = f"{windows} window{'' if windows == 1 else 's'}"
    return f"{were} measured on {most} {on_text(tokens, documents)}, in {pieces}"


def fallen_out(missed: Missed) -> list[str]:
    """A warning where documents fell out although intervals need them: how many, why, and what to give."""
    why = []
    if missed.short:
        shorter = ", or fewer `tokens`, by which they are cut shorter" if missed.length > SHORTEST_CUT else ""
        why.append(
            f"{missed.short} for want of a window of {missed.length} tokens, to which all are cut (give longer "
            f"documents, or more of them{shorter})"
        )
    if missed.over:
        enough = min(FEWEST_CLUSTERS, missed.documents - missed.short) * missed.length
        why.append(f"{missed.over} for want of `tokens` (give {enough})")
    if not why:
        return []
    count = missed.short + missed.over
    fell = "1 document of the text is" if count == 1 else f"{count} of the {missed.documents} documents are"
    return [f"{fell} not among those that parts were measured on: {'; '.join(why)}."]


def too_few(tokens: int, windows: int, documents: int, *, swapped: bool) -> list[str]:
    """A warning where parts, `swapped` or as the alignment has them, were measured on fewer than six documents: what
    intervals there are is then clustered by windows, and with fewer than six of these there is none."""
    if documents >= FEWEST_CLUSTERS:
        return []
    on = f"Parts were {'swapped' if swapped else 'measured'} on {on_text(tokens, documents)}"
    if windows >= FEWEST_CLUSTERS:
        return [f"{on}, fewer than six: their intervals are clustered by windows, and are too narrow."]
    pieces = f"{windows} window{'' if windows == 1 else 's'}"
    return [
        f"{on}, in {pieces}: fewer than six of either, so that no number of a part has an interval. Give more "
        "documents, or more `tokens`."
    ]
