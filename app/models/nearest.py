"""The valid name that was probably meant."""

import difflib
from collections.abc import Iterable
from typing import Final

_NEAR: Final = 0.5  # difflib's ratio from which a name may have been meant
_LONGEST: Final = 128  # characters of a word that are compared
_MOST: Final = 4  # as many may have been meant; of more none stands out


def nearest(word: str, valid: Iterable[str]) -> str | None:
    """The most similar of `valid` by difflib's ratio, compared without case; None when none comes near."""
    return next(iter(as_near(word, valid)), None)


def as_near(word: str, valid: Iterable[str]) -> list[str]:
    """The most similar of `valid`, and all that are just as similar; [] when none comes near."""
    matcher = difflib.SequenceMatcher()
    matcher.set_seq2(word[:_LONGEST].casefold())
    ratios: dict[str, float] = {}
    for name in sorted(set(valid)):
        matcher.set_seq1(name.casefold())
        # The bounds are quick, and the ratio of long names is not.
        if matcher.real_quick_ratio() >= _NEAR and matcher.quick_ratio() >= _NEAR:
            ratios[name] = matcher.ratio()
    best = max(ratios.values(), default=0.0)
    return [name for name, ratio in ratios.items() if ratio == best >= _NEAR]


def meant(word: str, valid: Iterable[str]) -> str:
    """`did you mean 'window'?`, or `did you mean 'k_bits' or 'v_bits'?` where both are as near; "" when none is."""
    names = [repr(name) for name in as_near(word, valid)]
    if not 0 < len(names) <= _MOST:
        return ""
    last = names.pop()
    return f"did you mean {', '.join(names)}{' or ' if names else ''}{last}?"


def suggestion(word: str, valid: Iterable[str], *, many: int = 16) -> str:
    """A hint: the nearest valid name, and the valid ones as far as they are few."""
    names = set(valid)
    return " ".join(filter(None, [meant(word, names), listed(names, many=many)]))


def listed(valid: Iterable[str], *, many: int = 16) -> str:
    """The valid names as far as they are few."""
    names = sorted(set(valid))
    told = ", ".join(names[:many]) + (f", … ({len(names)} in all)" if len(names) > many else "")
    return f"valid: {told}" if names else "there is none"
