"""What it means where a part of the text has too few clusters, in words."""

from __future__ import annotations

from workers.diagnosis.attribute.subset import SHORTEST_CUT, Missed
from workers.distributions.intervals import FEWEST_CLUSTERS


def on_text(tokens: int, documents: int) -> str:
    """So many tokens of so many documents."""
    return f"{tokens} token{'' if tokens == 1 else 's'} of {documents} document{'' if documents == 1 else 's'}"


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
    """A warning where parts (`swapped`), or gaps, were measured on fewer than six documents: what intervals there are
    is then clustered by windows, and with fewer than six of these there is none."""
    if documents >= FEWEST_CLUSTERS:
        return []
    on = f"{'Parts were swapped' if swapped else 'Gaps were measured'} on {on_text(tokens, documents)}"
    if windows >= FEWEST_CLUSTERS:
        return [f"{on}, fewer than six: their intervals are clustered by windows, and are too narrow."]
    pieces = f"{windows} window{'' if windows == 1 else 's'}"
    return [
        f"{on}, in {pieces}: fewer than six of either, so that no number of a part has an interval. Give more "
        "documents, or more `tokens`."
    ]
