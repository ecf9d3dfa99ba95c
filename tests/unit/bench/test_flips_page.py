"""The tables of real runs in docs/results/flips.md."""

from dataclasses import replace
from pathlib import Path

from tests.bench.flips_page import section
from tests.bench.flips_runs import BENCH, Told, read
from tests.bench.rows import Row
from workers.analysis.flips.runs import Run

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "results" / "flips.md").read_text(encoding="utf-8")
MACHINE = Row(BENCH, "processor", "this one", 2.0, "cores")


def told(last: int) -> list[Told]:
    """Eight recipes on two tasks, a tenth of KL flipped, and `last` of 100 at the largest but one."""
    found = []
    for number in range(8):
        kl = 0.1 * 2**number / 8
        for task in ("films", "words"):
            run = Run(f"j{number}", task, f"f-{task}", 100, round(30 * kl**0.5), kl, "r", f"c{number}")
            found.append(Told(run, f"quantize.rtn:bits={number}", MACHINE))
    index = next(index for index, one in enumerate(found) if one.run.task == "words" and one.run.job == "j6")
    found[index] = replace(found[index], run=replace(found[index].run, flips=last))
    return found


def test_the_page_has_the_tables_of_the_runs() -> None:
    wanted = section(read())
    assert wanted in PAGE, f"docs/results/flips.md should have:\n{wanted}"


def test_a_recipe_has_a_line_of_its_kl_and_what_flipped_the_least_kl_first() -> None:
    lines = section(list(reversed(told(27)))).splitlines()
    assert lines[0] == "| recipe | KL, nats per token | words | films |"
    assert lines[2] == "| `quantize.rtn:bits=0` | 0.0125 | 3 of 100 | 3 of 100 |"
    assert lines[9] == "| `quantize.rtn:bits=7` | 1.6 | 38 of 100 | 38 of 100 |"


def test_what_lies_beyond_an_interval_is_told_and_what_is_outside_counted_apart() -> None:
    assert not [line for line in section(told(27)).splitlines() if line.startswith("- Not held")]
    lines = section(told(95)).splitlines()
    missed = [line for line in lines if line.startswith("- Not held")]
    assert missed[0].startswith(
        "- Not held, without its recipe, on every task: `quantize.rtn:bits=6` on words, 95.0 % flipped, expected were"
    )
    # The least and the largest KL lie beyond the others' by more than half; of two tasks one does not tell the other.
    assert any(line.startswith("| its recipe, on every task; said to be outside | 4 |") for line in lines)
    assert any(line.startswith("| its recipe, on every task | 12 | 11: 92 % [62, 100] (") for line in lines)
    assert any(line.startswith("| its task; said to be outside | 16 |") for line in lines)
