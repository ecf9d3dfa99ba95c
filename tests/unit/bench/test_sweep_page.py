"""What the page says that a sweep costs is what the bench found."""

from pathlib import Path

import pytest

from tests.bench.rows import read

ROOT = Path(__file__).resolve().parents[3]
RESULTS = ROOT / "tests" / "bench" / "results"
BAR = 1.7


def found(processor: str) -> dict[tuple[str, str], float]:
    rows = read(RESULTS / f"cpu-x86_64-avx512-{processor}-2-threads.csv")
    return {(row.case, row.metric): row.value for row in rows if row.bench == "sweep"}


PROCESSORS = (found("float32-products"), found("bf16"), found("bf16-amx"))


def page() -> str:
    return (ROOT / "docs" / "results" / "sweep.md").read_text(encoding="utf-8")


def ratios(processor: dict[tuple[str, str], float]) -> list[float]:
    """Over twelve forward passes: the points without making, with the reference's pass, the job without making."""
    seconds = {
        metric.removesuffix("_seconds"): value for (case, metric), value in processor.items() if case == "12_points"
    }
    passes = 12 * seconds["forward"]
    points, job = (seconds[whole] - seconds["making"] for whole in ("points", "job"))
    assert points / passes == pytest.approx(processor["12_points", "forward_ratio"], rel=1e-3)
    return [one / passes for one in (points, points + seconds["reference"], job)]


def test_every_way_of_counting_the_cost_stands_beside_the_bar() -> None:
    lines = page().split("| of the twelve settings' passes |")[1].split("\n\n")[0].splitlines()[2:]
    for line, *each in zip(lines, *map(ratios, PROCESSORS), strict=True):
        told = [f"{value:.3f}{', which misses it' if value > BAR else ''}" for value in each]
        assert [cell.strip() for cell in line.strip("|").split("|")[1:]] == told


def test_the_seconds_of_a_pass_and_of_making_are_told_in_the_order_of_the_columns() -> None:
    text = " ".join(page().split())
    for words, metric in (("it took", "forward_seconds"), ("Making took", "making_seconds")):
        first, second, third = (f"{processor['12_points', metric]:.1f} s" for processor in PROCESSORS)
        assert f"{words} {first}, {second} and {third}" in text


def test_what_a_second_worker_gives_is_told_against_half_and_all_of_the_cores() -> None:
    text = " ".join(page().split())
    own, amx = (
        [
            f"{processor['two_workers', f'{what}_ratio{cores}']:.2f}"
            for cores in ("", "_all_cores")
            for what in ("job", "points")
        ]
        for processor in PROCESSORS[1:]
    )
    assert not any(case == "two_workers" for case, _ in PROCESSORS[0]), "the page tells of the other two alone"
    assert f"two workers take {own[0]} of the time of one that has one core, too" in text
    assert f"; {own[1]} for the points alone (bar: 0.6; with AMX {amx[0]} and {amx[1]})" in text
    assert f"two take {own[2]} of the time, {own[3]} for the points (with AMX {amx[2]} and {amx[3]})" in text
