"""The page of block corrections shows what was measured."""

from tests.bench import blocks_page
from tests.bench.rows import Row


def test_a_line_of_the_table_by_hand() -> None:
    values = {"fitted": 100.0}
    for side, removed in (("own", 0.5), ("other", 0.25), ("wikitext", -0.125)):
        values |= {f"{side}_removed": removed, f"{side}_removed_low": removed - 0.1, f"{side}_removed_high": 0.75}
        values |= {f"{side}_removed_least": removed - 0.2}
    line = blocks_page.page([Row("blocks", "base", name, value, "share") for name, value in values.items()])
    cells = "50.0 [40.0, 75.0] | 25.0 [15.0, 75.0] | -12.5 [-22.5, 75.0] | -32.5"
    assert line.splitlines()[-1] == f"| `base` | 100 | {cells} |"


def test_a_line_of_a_job_has_both_sides_and_its_outcome() -> None:
    values = {"chosen": 1.0}
    for side, removed in (("own", 0.5), ("other", 0.25)):
        values |= {f"{side}_removed": removed, f"{side}_removed_low": removed - 0.1, f"{side}_removed_high": 0.75}
        values |= {f"{side}_removed_least": removed - 0.3, f"{side}_kl_raw": 2 * removed}
    rows = [Row("calibrators", "wanda/blocks", name, value, "share") for name, value in values.items()]
    passed = Row("calibrators", "wanda/job", "passed", 0.0, "yes=1")
    cells = "`wanda` | `blocks` | 1 / 0.5 | 50.0 [40.0, 75.0] | 25.0 [15.0, 75.0] | -5.0 | **refused**"
    assert blocks_page.jobs([passed, *rows]).splitlines()[-1] == f"| {cells} |"
