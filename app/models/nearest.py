"""The valid name that was probably meant."""

import difflib
from collections.abc import Iterable


def nearest(word: str, valid: Iterable[str]) -> str | None:
    """The most similar of `valid` by difflib's ratio, compared without case; None when none comes near."""
    by_folded = {name.casefold(): name for name in sorted(valid, reverse=True)}
    found = difflib.get_close_matches(word.casefold(), list(by_folded), n=1, cutoff=0.5)
    return by_folded[found[0]] if found else None


def suggestion(word: str, valid: Iterable[str], *, many: int = 12) -> str:
    """A hint: the nearest valid name, and the valid ones as far as they are few."""
    names = set(valid)
    near = nearest(word, names)
    parts = [f"did you mean {near!r}?"] if near else []
    return " ".join([*parts, listed(names, many=many)])


def listed(valid: Iterable[str], *, many: int = 12) -> str:
    """The valid names as far as they are few."""
    names = sorted(set(valid))
    told = ", ".join(names[:many]) + (f", … ({len(names)} in all)" if len(names) > many else "")
    return f"valid: {told}" if names else "there is none"
