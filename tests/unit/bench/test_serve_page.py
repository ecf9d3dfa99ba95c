"""What the page says of serving was measured so, and is judged by its worst pair, too."""

from tests.bench.rows import Row
from tests.bench.serve_page import BARS, page


def line(case: str, metric: str, **changes: float) -> str:
    """The table's line of a run in which everything is at its bar, but for `changes` of this number."""
    found = {(row, name + end): bar for (row, name), (bar, _) in BARS.items() for end in ("", "_low", "_high")}
    found |= {(case, metric + end.removeprefix("median")): value for end, value in changes.items()}
    rows = [Row("serve", *key, value, "") for key, value in found.items()]
    return next(one for one in page(rows).splitlines() if one.startswith(f"| `{case},{metric}` "))


def test_what_is_at_its_bar_meets_it() -> None:
    assert line("off_8", "throughput_ratio").endswith("| ≥ 0.99 | 0.990 | 0.990 to 0.990 |")
    assert line("gateway_32", "p99_added_ms").endswith("| ≤ 10 | 10.0 | 10.0 to 10.0 |")


def test_a_median_beyond_its_bar_and_a_pair_beyond_it_are_told_apart() -> None:
    pair = line("off_8", "throughput_ratio", _low=0.95, _high=1.2)
    assert pair.endswith("| 0.990 | 0.950 to 1.200, the worst beyond the bar |")
    assert line("off_8", "throughput_ratio", median=0.98, _low=0.95).count("missed") == 1
    assert "the worst beyond" in line("gateway_32", "p99_added_ms", _high=11.0)
    assert "missed" in line("gateway_32", "p99_added_ms", median=11.0, _high=12.0)
