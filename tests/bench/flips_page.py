"""The tables of docs/results/flips.md.

Of tests/bench/flips_runs.jsonl: what was run and what flipped, how often predictions held it, and a line for each that
did not. Of tests/bench/flips.csv: how often predictions held runs of drawn worlds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from tests.bench import flips
from tests.bench.flips_real import LEFT_OUT, Predicted, by_case, predicted, rows_of
from tests.bench.flips_runs import Told
from tests.bench.rows import Row, table
from workers.analysis.flips.model import INTERCEPT_SD, SLOPE_SD

CASES: Final = {
    "recipe_left_out": "its recipe, on every task",
    "task_left_out": "its task",
    "both_left_out": "both",
}

WORLDS: Final = {
    "priors": "the model's own form, α and β nearer to the centres of their priors (spread "
    f"{flips.SPREADS[0]:g} and {flips.SPREADS[1]:g}, not {INTERCEPT_SD:g} and {SLOPE_SD:g})",
    "levelling_off": "flip rates that level off",
    "proportional": "flip rates that rise with KL, not with its root",
}


def worlds(rows: Iterable[Row]) -> str:
    """The least and the largest coverage of 95 % intervals in each drawn world."""
    shares = [(row.case, 100 * row.value) for row in rows if (row.bench, row.metric) == ("flips", "coverage_of_95")]
    lines = []
    for world, words in WORLDS.items():
        found = [share for case, share in shares if case.startswith(f"{world}_")]
        lines.append([words, f"{min(found):.1f} %", f"{max(found):.1f} %"])
    return table(["worlds", "least", "most"], lines)


def section(told: Sequence[Told]) -> str:
    """The lines, without an end of line after the last one."""
    runs = [one.run for one in told]
    found = {case: list(predicted(runs, left_out)) for case, left_out in LEFT_OUT.items()}
    lines = [*_runs(told), "", *_coverage(found), "", *_missed(told, found)]
    return "\n".join(lines)


def _runs(told: Sequence[Told]) -> Iterator[str]:
    tasks = list(dict.fromkeys(one.run.task for one in told))
    yield f"| recipe | KL, nats per token | {' | '.join(tasks)} |"
    yield "|---" * (len(tasks) + 2) + "|"
    recipes = {one.recipe: one.run.kl for one in told}
    for recipe in sorted(recipes, key=recipes.__getitem__):
        flips = {one.run.task: f"{one.run.flips} of {one.run.items}" for one in told if one.recipe == recipe}
        yield f"| `{recipe}` | {recipes[recipe]:.3g} | {' | '.join(flips.get(task, '–') for task in tasks)} |"


def _coverage(found: Mapping[str, Sequence[Predicted]]) -> Iterator[str]:
    yield (
        "| left out | runs predicted | held by the 95 % interval (expected, %) | by the 50 % interval (expected, %) "
        "| median width of the former (of coin tosses alone), points | median error of the median, points |"
    )
    yield "|---|---|---|---|---|---|"
    for case, words in CASES.items():
        for name, group in by_case(case, found[case]).items():
            of = {row.metric: row.value for row in rows_of(name, group)}
            task = name.removeprefix(case).removeprefix("_")
            where = {"": words, "outside": f"{words}; said to be outside"}.get(task, f"– {task} alone")
            yield (
                f"| {where} | {len(group)} | {_share(of, 95)} | {_share(of, 50)} | {100 * of['median_width']:.1f} "
                f"({100 * of['median_width_of_tosses']:.1f}) | {100 * of['median_absolute_error']:.1f} |"
            )


def _share(of: Mapping[str, float], level: int) -> str:
    share, low, high = (100 * of[f"coverage_of_{level}{end}"] for end in ("", "_low", "_high"))
    return (
        f"{of[f'held_by_{level}']:.0f}: {share:.0f} % [{low:.0f}, {high:.0f}] ({100 * of[f'expected_of_{level}']:.0f})"
    )


def _missed(told: Sequence[Told], found: Mapping[str, Sequence[Predicted]]) -> Iterator[str]:
    for case, words in CASES.items():
        for one, result in zip(told, found[case], strict=True):
            if not result.held(95):
                outside = ", and said to be outside" if result.status == "outside" else ""
                low, high = (100 * end for end in result.intervals[95])
                yield (
                    f"- Not held, without {words}: `{one.recipe}` on {one.run.task}, {100 * one.run.rate:.1f} % "
                    f"flipped, expected were {100 * result.median:.1f} % [{low:.1f}, {high:.1f}]{outside}."
                )
