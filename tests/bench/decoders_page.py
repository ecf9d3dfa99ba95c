"""What docs/results/decoders.md says of tests/bench/decoders.csv.

Two tables, a row a decoder, and sentences that name what amplifies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from app.contracts.decoding import DECODERS
from tests.bench.rows import NONE, Row, table

RESULTS: Final = Path(__file__).with_name("decoders.csv")
LENGTHS: Final = (16, 32, 64, 128)
FACTORS: Final = {"kl_factor": "KL factor", "token_factor": "token factor"}
Values = Mapping[tuple[str, str], float]


def page(rows: Iterable[Row]) -> str:
    """The tables and the sentences, of the decoders that were measured, and which were not."""
    values = {(row.case, row.metric): row.value for row in rows}
    lacking = [f"`{name}`" for name in DECODERS if name not in _measured(values)]
    parts = [_parting(values), _divergence(values), *(_sentence(values, factor) for factor in FACTORS)]
    return "\n\n".join(parts + [f"Not measured yet: {', '.join(lacking)}."] * bool(lacking))


def _measured(values: Values) -> list[str]:
    return [name for name in DECODERS if (name, "prompts") in values]


def _parting(values: Values) -> str:
    head = ["decoder", "texts that part, %", "first different token, median", "shared prefix, tokens"]
    head += [f"{'edits of ' if length == LENGTHS[0] else ''}{length}, %" for length in LENGTHS]
    return _table(
        values,
        (*head, "seconds"),
        lambda name: (
            _number(values, name, "parted", 100),
            _median(values, name),
            _number(values, name, "shared_prefix"),
            *(_number(values, name, f"edit_distance_{length}", 100, interval=False) for length in LENGTHS[:-1]),
            _number(values, name, f"edit_distance_{LENGTHS[-1]}", 100),
            f"{values[name, 'seconds']:.0f}",
        ),
    )


def _divergence(values: Values) -> str:
    return _table(
        values,
        (
            "decoder",
            "KL, reference’s text",
            "KL, own text",
            "KL factor",
            "token factor",
            "repeated 4-grams, %",
            "entropy, nats",
        ),
        lambda name: (
            _number(values, name, "kl_reference_both"),
            _number(values, name, "kl_candidate_both"),
            f"{_number(values, name, 'kl_factor')} {_word(values, name, 'kl_factor')}".rstrip(),
            _number(values, name, "token_factor"),
            _pair(values, name, "repetition", 100),
            _pair(values, name, "entropy"),
        ),
    )


def _table(values: Values, head: Sequence[str], cells: Callable[[str], Sequence[str]]) -> str:
    return table(head, ([f"`{name}`", *cells(name)] for name in _measured(values)))


def _number(values: Values, name: str, metric: str, scale: float = 1.0, *, interval: bool = True) -> str:
    """With its interval where it has one and it is asked for."""
    if (name, metric) not in values:
        return NONE
    ends = [scale * values[name, f"{metric}{end}"] for end in ("_low", "_high") if (name, f"{metric}{end}") in values]
    between = f" [{', '.join(map(_digits, ends))}]" if interval and ends else ""
    return f"{_digits(scale * values[name, metric])}{between}"


def _pair(values: Values, name: str, metric: str, scale: float = 1.0) -> str:
    """The reference's, then the candidate's."""
    each = (_number(values, name, f"{metric}_{whose}", scale, interval=False) for whose in ("reference", "candidate"))
    return " → ".join(each)


def _digits(value: float) -> str:
    """Three significant ones, trailing zeros kept where a decimal point stands before them."""
    return f"{value:#.3g}".removesuffix(".") if value else "0"


def _median(values: Values, name: str) -> str:
    """A place beyond the end is not in the CSV."""
    middle, low, high = (values.get((name, f"first_different{end}")) for end in ("", "_low", "_high"))
    if middle is None:
        return "beyond the end"
    return f"{middle:.0f} [{low or 1:.0f}, {'beyond the end' if high is None else f'{high:.0f}'}]"


def _word(values: Values, name: str, factor: str) -> str:
    """What an interval says of 1; nothing where it holds it or there is none."""
    low, high = (values.get((name, f"{factor}{end}")) for end in ("_low", "_high"))
    if low is None or high is None:
        return ""
    return "↑" if low > 1 else "↓" if high < 1 else ""


def _sentence(values: Values, factor: str) -> str:
    names = _measured(values)
    words = {name: _word(values, name, factor) for name in names}
    above, below = ([f"`{name}`" for name, word in words.items() if word == arrow] for arrow in "↑↓")
    open_ = len(names) - len(above) - len(below)
    told = {name: values[name, factor] for name in names if (name, factor) in values}
    least, most = min(told, key=told.__getitem__), max(told, key=told.__getitem__)
    return (
        f"The {FACTORS[factor]} is above 1 with its whole interval for {_listed(above, names)}, below 1 for "
        f"{_listed(below, names)}; {open_} of {len(names)} are open. It goes from {_digits(told[least])} "
        f"(`{least}`) to {_digits(told[most])} (`{most}`)."
    )


def _listed(some: Sequence[str], every: Sequence[str]) -> str:
    if not some:
        return "none"
    return f"all {len(some)}" if len(some) == len(every) else f"{len(some)} ({', '.join(some)})"
