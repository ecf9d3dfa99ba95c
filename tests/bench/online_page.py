"""The tables of docs/results/online.md, from tests/bench/online.csv."""

from collections.abc import Callable, Mapping
from typing import Final

from tests.bench.online import FILE
from tests.bench.rows import NONE, by_case, read, table

FACTORS: Final = ("1.2", "1.5", "2.0", "4.0")
SIGMAS: Final = ("0.5", "1.0", "1.5")
STARTS: Final = {"0": "at once", "5000": "after 5,000"}
TRIALS: Final = {
    "equal": "equal",
    "worse_10_percent": "10 % worse",
    "better_0.05": "5 % better",
    "better_0.1": "10 % better",
    "better_0.2": "20 % better",
}
HARMS: Final = ("0.1", "0.3", "1.0")
Of = Mapping[str, Mapping[str, float]]


def alarms(of: Of) -> str:
    """A row per mean after the change, a column per spread and start."""
    columns = [(sigma, start) for sigma in SIGMAS for start in STARTS]
    heads = [f"σ = {float(sigma):g}, {STARTS[start]}" for sigma, start in columns]
    lines = [
        [f"{float(factor):g} m", *(_delay(of[f"drift_x{factor}_sigma_{sigma}_after_{at}"]) for sigma, at in columns)]
        for factor in FACTORS
    ]
    return table(["mean after the change", *heads], lines)


def trials(of: Of) -> str:
    """A row per trial profile."""
    lines = []
    for name, words in TRIALS.items():
        found = of[f"trial_{name}"]
        share = found["reached_ratio"] if "reached_ratio" in found else found["promoted_ratio"]
        lines.append([words, f"{100 * share:.1f} %", _delay(found) if "delay_median" in found else NONE])
    return table(["trial profile", "promoted", "requests until then"], lines)


def rollbacks(of: Of) -> str:
    """A row per harm."""
    lines = [
        [f"{float(harm):g}", *(_delay(of[f"rollback_worse_{harm}_after_{start}"]) for start in ("0", "1000"))]
        for harm in HARMS
    ]
    return table(["mean harm / raw divergence", "at once", "after 1,000 good requests"], lines)


def _delay(of: Mapping[str, float]) -> str:
    """Median and 90 % quantile; a dash for what was not reached."""
    middle, most = (f"{of[name]:,.0f}" if name in of else NONE for name in ("delay_median", "delay_p90"))
    return f"{middle} ({most})"


def _of_file(make: Callable[[Of], str]) -> Callable[[], str]:
    return lambda: make(by_case(read(FILE)))


PARTS: Final = {
    "online-alarms": _of_file(alarms),
    "online-trials": _of_file(trials),
    "online-rollbacks": _of_file(rollbacks),
}
