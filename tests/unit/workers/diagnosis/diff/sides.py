"""Sides of a comparison of reports, written and read as jobs leave them."""

import json

import numpy as np

from app.kinds.compare.report import CompareReport
from tests.support.token_files import values, write_job
from workers.diagnosis.diff.answer import Side
from workers.diagnosis.diff.tokens import read


def side(tmp_path, name, kl, classes=None, **more):
    folder = write_job(tmp_path / name, values(kl), job=f"diag_{name}", classes=classes, **more)
    report = CompareReport.model_validate(json.loads((folder / "report.json").read_text()))
    return Side(name, report, read(folder / "tokens.parquet", name=name))


def holm(p):
    """Holm's steps, one by one."""
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, index in enumerate(np.argsort(p)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = largest
    return adjusted
