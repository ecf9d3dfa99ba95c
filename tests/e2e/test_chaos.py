"""A few deaths of `make chaos`."""

import csv
from pathlib import Path

import pytest

from tests.bench import chaos

pytestmark = pytest.mark.timeout(1800)


def test_a_few_deaths_break_no_promise(tmp_path: Path) -> None:
    rows = tmp_path / "chaos.csv"
    status = chaos.main(["--seed", "7", "--kills", "4", "--csv", str(rows), "--logs", str(tmp_path / "logs")])
    with rows.open() as file:
        (row,) = csv.DictReader(file)
    assert (row["kills"], row["violations"], status) == ("4", "0", 0), row
    assert int(row["succeeded"]) > 0 and int(row["done"]) > 0, "the load was none"
