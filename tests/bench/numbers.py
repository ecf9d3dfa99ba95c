"""Sentences and numbers in pages of docs/ that are not about results, from committed numbers."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from tests.bench import mitigation_page, online_page, threshold
from tests.bench.flips_runs import read as read_flips
from tests.bench.rows import by_case, read, span

HELD: Final = "coverage_of_95"


def _kl(case: str, text: str = "wiki") -> str:
    """Nats per token."""
    return f"{mitigation_page.read()[case][f'kl_{text}']:.3g}"


def _ratio(case: str, against: str, text: str) -> float:
    """KL over that of another case, on the same documents."""
    return mitigation_page.read()[case][f"ratio_to_{against}_{text}"]


def _seconds(case: str) -> str:
    return f"{mitigation_page.read()[case]['seconds']:.0f} s"


def readme_dynamic() -> str:
    """README: what `quantize.dynamic` loses of what rounding loses."""
    wiki, other = (100 * _ratio("dynamic_4", "rtn_4", text) for text in ("wiki", "unfitted"))
    return f"Its loss is {wiki:.0f} % of the loss of `quantize.rtn` on WikiText-2, and {other:.0f} % on other text."


def readme_calibrated() -> str:
    """README: what the usual correction removes on the test documents of its fit."""
    file = mitigation_page.RESULTS.parent / "results/cpu-x86_64-avx512-bf16-2-threads.csv"
    found = by_case(row for row in read(file) if row.bench == "calibrate")
    (of,) = (case for case in found.values() if case.get("chosen"))
    return (
        f"Here the correction removes {100 * of['removed_share']:.0f} % of the KL: {of['removed']:.3f} "
        f"(95 % interval {of['removed_low']:.3f} to {of['removed_high']:.3f}) of {of['raw_kl']:.3f} nats per token."
    )


def order() -> str:
    """Two orders of two steps."""
    return (
        f"On the demo model at 4 bits and 30 %, where pruning is the weaker (alone {_kl('wanda_30')} nats per token; "
        f"rounding {_kl('rtn_4')}), rounding first costs {_kl('rtn_4_then_wanda_30')} and pruning first "
        f"{_kl('wanda_30_then_rtn_4')}."
    )


def dynamic() -> str:
    """Nats per token and seconds of `quantize.dynamic`."""
    return (
        f"At 4 bits the default leaves {_kl('dynamic_4')} nats on WikiText-2 and {_kl('dynamic_4', 'unfitted')} on "
        f"other text after {_seconds('dynamic_4')}; layers alone (`block_epochs` 0) leave {_kl('dynamic_4_layers')} "
        f"and {_kl('dynamic_4_layers', 'unfitted')} after {_seconds('dynamic_4_layers')}."
    )


def repair() -> str:
    """What a repair of rounding leaves, with the defaults."""
    case = "repair_rtn_4_r16"
    wiki, other = (_ratio(case, "rtn_4", text) for text in ("wiki", "unfitted"))
    return (
        f"With the defaults, mean rank 16 after RTN at 4 bits leaves {wiki:.3g} of the divergence on WikiText-2 and "
        f"{other:.3g} on other text, after {_seconds(case)} on two cores."
    )


def patterns() -> str:
    """KL of 2:4 over that of one half of the weights."""
    of = mitigation_page.read()
    methods = {"magnitude": "magnitude", "sparsegpt": "SparseGPT", "ria": "RIA", "wanda": "Wanda"}
    times = {words: of[f"{name}_2:4"]["kl_wiki"] / of[f"{name}_50"]["kl_wiki"] for name, words in methods.items()}
    return ", ".join(f"{ratio:.2f} ({words})" for words, ratio in times.items())


def gradient() -> str:
    """What gradient pruning loses on text that was not fitted."""
    name = "ratio_to_wanda_50_unfitted"
    of = mitigation_page.read()["gradient_50"]
    return f"{of[name]:.3g} [{of[f'{name}_low']:.3g}, {of[f'{name}_high']:.3g}]"


def bits(number: int) -> str:
    """Nats per token that the demo model loses by rounding to so many bits."""
    (kl,) = {one.run.kl for one in read_flips() if one.recipe == f"quantize.rtn:bits={number}"}
    return f"{kl:.2g}"


def knees() -> str:
    """Coverage of the intervals of a knee."""
    return span(row.value for row in read(threshold.RESULTS) if (row.bench, row.metric) == ("coverage", HELD))


def delays(cases: Iterable[str]) -> str:
    """The least and the largest median delay, in scored requests."""
    of = by_case(read(online_page.FILE))
    found = sorted(of[case]["delay_median"] for case in cases)
    return f"{found[0]:,.0f} to {found[-1]:,.0f}"


def recorded(limit: str, factor: str, runs: Iterable[int]) -> list[str]:
    """Cases of recorded requests that get worse by a factor, in runs of these lengths."""
    return [f"recorded_{limit}_x{factor}_{change}_runs_{length}" for change in ("all", "some") for length in runs]


def long_runs() -> str:
    """The largest share of streams that ever raise a false quiet alarm in runs of 400 similar requests."""
    of = by_case(read(online_page.FILE))
    found = [one["false_alarm_ratio"] for case, one in of.items() if case.startswith("quiet_null_runs_400")]
    return f"{100 * max(found):.1f} %"


PARTS: Final[dict[str, Callable[[], str]]] = {
    "readme-dynamic": readme_dynamic,
    "readme-calibrated": readme_calibrated,
    "order": order,
    "dynamic": dynamic,
    "repair": repair,
    "patterns": patterns,
    "gradient": gradient,
    **{f"loss-{number}-bits": partial(bits, number) for number in (8, 6, 4)},
    "knees-held": knees,
    "drift-delays": lambda: delays(f"drift_x2.0_sigma_{sigma}_after_0" for sigma in online_page.SIGMAS),
    "recorded-drift": lambda: delays(recorded("drift", "2.0", online_page.RUNS)),
    "recorded-quiet": lambda: delays(recorded("quiet", "2.0", online_page.RUNS)),
    "recorded-fifth": lambda: delays(recorded("quiet", "1.2", (1,))),
    "long-runs": long_runs,
    "rollback-delay": lambda: f"{by_case(read(online_page.FILE))['rollback_worse_0.3_after_0']['delay_median']:.0f}",
}
