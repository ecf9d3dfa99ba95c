"""A distance is one line and one term: here one that a test alone defines."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from app.contracts.distances import DISTANCES
from workers.distributions.terms import TERMS, distances


def test_every_distance_has_its_term() -> None:
    assert [distance.name for distance in DISTANCES] == list(TERMS)


def test_no_distance_of_unlike_models_passes_its_bound() -> None:
    """Rounding of float32 sums alone would take the total variation above 1."""
    rows = torch.randn((2, 200, 20_000), generator=torch.Generator().manual_seed(1)) * 12
    found = distances(*rows.log_softmax(-1))
    for distance in DISTANCES:
        assert float(found[distance.name].max()) <= np.float32(distance.most), distance.name
    assert float(found["tv"].max()) > 0.999


def test_a_distance_of_a_test_reaches_tokens_report_differences_pages_and_metrics(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.hellinger_measured", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"TORCHDYNAMO_DISABLE": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for place in ("tokens", "calibration", "report", "domain", "band", "point", "metric"):
        assert found[place] == pytest.approx(found["exact"], rel=1e-4), place
    assert found["diff"] == pytest.approx([-0.5 * found["exact"]], rel=1e-4)
    page, terminal, markdown, difference = found["pages"]
    assert "squared Hellinger distance" in page
    assert "H²" in terminal
    assert "H²" in difference
    assert markdown
