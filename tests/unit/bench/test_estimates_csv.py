"""Estimates are held to what steps took: no time is measured here, the rows are those of the bench."""

from pathlib import Path

import pytest

from tests.bench import estimates
from tests.bench.rows import by_case, read

FOUND = {case: row for case, row in by_case(read(estimates.RESULTS)).items() if case != "processor"}


def test_every_kind_of_work_was_measured() -> None:
    """Of the demo model; of the other shapes those rows count that there are."""
    cases = ("rtn_4", "wanda_50", "smoothquant", "gptq_4", "sparsegpt_50", "awq_4")
    assert {f"{case} of {estimates.DEMO}" for case in cases} <= FOUND.keys()
    assert any("qwen2.5" in case for case in FOUND)


@pytest.mark.parametrize("case", FOUND)
def test_a_step_takes_what_is_estimated_within_a_factor_of_1_5(case: str, tmp_path: Path) -> None:
    name, _, model = case.partition(" of ")
    reckoned = estimates.estimated(estimates.outline(tmp_path, model), name)
    assert 1 / 1.5 <= reckoned / estimates.took(FOUND[case]) <= 1.5
    assert FOUND[case]["estimated"] == pytest.approx(reckoned, rel=1e-4), "run tests.bench.estimates"
