"""A bench's CSV, of which some cases are measured again."""

from pathlib import Path

from tests.bench.rows import Row, merged, read, replaced, write

FIRST = [
    Row("sweep", "12_points", "job_seconds", 153.409, "s"),
    Row("sweep", "12_points", "kernel_term_seconds", 0.0, "s"),
    Row("sweep", "two_workers", "job_ratio", 0.58, "ratio"),
    Row("memory", "12_points", "peak_resident", 1.90541e9, "B"),
]


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    write(tmp_path / "rows.csv", FIRST)
    assert read(tmp_path / "rows.csv") == FIRST


def test_a_case_that_is_measured_again_keeps_no_row_and_the_others_keep_theirs() -> None:
    fresh = [Row("sweep", "12_points", "job_seconds", 120.0, "s")]
    assert replaced(FIRST, fresh) == [FIRST[2], FIRST[3], *fresh]


def test_a_number_that_is_measured_again_stands_where_it_stood_and_the_others_of_its_case_stay() -> None:
    again = Row("sweep", "12_points", "job_seconds", 120.0, "s")
    new = Row("sweep", "12_points", "points_seconds", 110.0, "s")
    assert merged(FIRST, [new, again]) == [again, *FIRST[1:], new]
