"""What it means where a part of the text has too few clusters, in words."""

from __future__ import annotations

from workers.distributions.intervals import FEWEST_CLUSTERS


def on_text(tokens: int, documents: int) -> str:
    """So many tokens of so many documents."""
    return f"{tokens} token{'' if tokens == 1 else 's'} of {documents} document{'' if documents == 1 else 's'}"


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
