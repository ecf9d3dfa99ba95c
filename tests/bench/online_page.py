"""The tables of docs/results/online.md, from tests/bench/online.csv."""

from collections.abc import Callable, Mapping
from typing import Final

from tests.bench.online import FILE, RUNS
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
LIMITS: Final = {"drift": "drift limit", "quiet": "quiet limit"}
CHANGES: Final = {
    "x1.2_all": "each 1.2 times as large",
    "x2.0_all": "each doubled",
    "x1.2_some": "some of 3 bits, mean 1.2 times as large",
    "x2.0_some": "some of 3 bits, mean doubled",
}
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


def recorded(of: Of) -> str:
    """A row per change of the recorded requests, a column per limit and length of runs; false alarms first."""
    columns = [(limit, length) for limit in LIMITS for length in RUNS]
    heads = [f"{LIMITS[limit]}, {'independent' if length == 1 else f'runs of {length}'}" for limit, length in columns]
    false = [f"{of[f'recorded_{limit}_null_runs_{length}']['false_alarm_ratio']:.1%}" for limit, length in columns]
    lines = [["none: false alarms", *(share.replace("%", " %") for share in false)]]
    for change, words in CHANGES.items():
        kind, which = change.split("_")
        cases = [f"recorded_{limit}_{kind}_{which}_runs_{length}" for limit, length in columns]
        lines.append([words, *(_delay(of[case]) for case in cases)])
    return table(["change", *heads], lines)


def requests(of: Of) -> str:
    """How many were recorded."""
    return f"{of['recorded']['requests']:.0f}"


def border(of: Of) -> str:
    """False alarms of a drift limit that is the mean itself, by length of runs."""
    *most, last = (f"{100 * of[f'recorded_border_null_runs_{length}']['false_alarm_ratio']:.2g}" for length in RUNS)
    return f"{', '.join(most)} and {last} %"


def limit_over_mean(of: Of) -> str:
    """How many times the mean of the recorded requests the drift limit is."""
    return f"{of['recorded']['drift_limit']:.2g}"


def three_bits(of: Of) -> str:
    """The share of requests of 3 bits that gives 1.2 times the mean, and that which doubles it."""
    least, most = (100 * (factor - 1) / (of["recorded"]["three_bits"] - 1) for factor in (1.2, 2.0))
    return f"{least:.0f} % or {most:.0f} %"


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
    "online-recorded": _of_file(recorded),
    "recorded-requests": _of_file(requests),
    "recorded-border": _of_file(border),
    "recorded-limit": _of_file(limit_over_mean),
    "recorded-three-bits": _of_file(three_bits),
    "online-trials": _of_file(trials),
    "online-rollbacks": _of_file(rollbacks),
}
