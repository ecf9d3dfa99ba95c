"""Differences of kept compare jobs, at the same tokens."""

from pathlib import Path

import numpy as np
import pytest

from app.kinds.compare.report import CompareReport
from examples.paper.finding import NoNumberError
from examples.paper.measure import Measured
from examples.paper.pairs import differ_of
from tests.support.token_files import DOCUMENTS, LENGTH, values, write_job

KL_T = np.random.default_rng(0).lognormal(-2, 1, DOCUMENTS * LENGTH)


def kept(folder: Path, name: str, kl_T: np.ndarray) -> Measured:
    found = write_job(folder / name, values(kl_T), job=name)
    report = CompareReport.model_validate_json((found / "report.json").read_bytes())
    return Measured(name, report, 1.0, tokens=found / "tokens.parquet")


def test_the_difference_is_the_later_job_minus_the_earlier_one_at_the_same_tokens(tmp_path: Path) -> None:
    measured = {"mild": kept(tmp_path, "mild", KL_T), "harsh": kept(tmp_path, "harsh", KL_T + 0.01)}
    found = differ_of(measured)("mild", "harsh", "kl")
    # The spread of the text cancels: each side alone has an interval far wider than the difference.
    assert found.difference.mean == pytest.approx(0.01, abs=1e-6)
    assert found.p < 0.01
    assert differ_of(measured)("harsh", "mild", "log_perplexity").difference.mean == pytest.approx(-0.01, abs=1e-6)


def test_a_job_without_values_by_token_has_no_difference(tmp_path: Path) -> None:
    one = kept(tmp_path, "one", KL_T)
    with pytest.raises(NoNumberError, match="bare has no values by token"):
        differ_of({"one": one, "bare": Measured("bare", one.report, 1.0)})("one", "bare", "kl")
