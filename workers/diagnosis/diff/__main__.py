"""Differences of reports in a process of their own: the API asks here, so that it needs neither numpy nor the time.

One JSON object on standard input (`Asked`), one on standard output: `{"diff": …}` (schema `hemostat.diff/1`) or
`{"error": {"code", "detail", "hint"}}`. Exit status 0 either way; anything else is a fault.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from app.contracts.errors import ErrorCode, HemostatError
from app.kinds.compare.report import CompareReport
from workers.diagnosis.diff.answer import Side, compare_reports
from workers.diagnosis.diff.tokens import read


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """The differences of `asked["sides"]`: each has `name`, `candidate` (for people), `report` and `tokens` (paths)."""
    try:
        sides = [
            Side(
                one["candidate"],
                _report(Path(one["report"]), name=one["name"]),
                read(Path(one["tokens"]), name=one["name"]),
            )
            for one in asked["sides"]
        ]
        found = compare_reports(sides, by=asked["by"], anyway=asked["anyway"], seed=asked["seed"])
    except HemostatError as error:
        return {"error": {"code": error.code.value, "detail": error.detail, "hint": error.hint}}
    return {"diff": found.model_dump(mode="json")}


def _report(file: Path, *, name: str) -> CompareReport:
    try:
        written = file.read_bytes()
    except FileNotFoundError:
        raise HemostatError(
            ErrorCode.ARTIFACT_NOT_FOUND, f"{name} no longer has {file.name}", hint="measure it again"
        ) from None
    return CompareReport.model_validate_json(written, extra="ignore")


if __name__ == "__main__":
    json.dump(answer(json.load(sys.stdin)), sys.stdout)
