"""What the bench of serving writes down of itself."""

from pathlib import Path

from tests.bench.rows import Row
from tests.bench.serve import QUICK, Bench


def test_the_first_row_says_on_which_processor_the_others_were_measured(tmp_path: Path) -> None:
    machine = Row("serve", "processor", "cpu x86_64 avx512+bf16 2 threads", 2.0, "cores")
    bench = Bench(QUICK, tmp_path, machine)
    bench.add("plain", "start", 20.0, "s")
    assert bench.rows == [machine, Row("serve", "plain", "start", 20.0, "s")]
