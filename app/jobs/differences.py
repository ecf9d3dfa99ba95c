"""Candidates of several compare jobs against each other: asked of a process that may import numpy."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from app.admission import Line
from app.contracts.diff_report import MOST, DiffReport, Measure
from app.contracts.errors import ErrorCode, HemostatError
from app.jobs import results
from app.jobs.record import JobRecord
from app.kinds.compare.report import CompareReport
from app.reports import describe
from app.reports.reading import parse
from app.reports.untrusted import visible
from app.secrets import without_secrets
from app.settings import Settings

TOKENS: Final = "tokens.parquet"
LONGEST_S: Final = 120.0
RETRY_S: Final = 5
_COMMAND: Final = (sys.executable, "-m", "workers.diagnosis.diff")


@dataclass
class Differences:
    """Answers, of which few are computed at one time."""

    settings: Settings
    command: Sequence[str] = _COMMAND
    longest_s: float = LONGEST_S
    _line: Line = field(
        default_factory=lambda: Line(
            per_replica=2,
            most_queued=16,
            timeout_s=LONGEST_S,
            owner_share=0.5,
            what="differences of reports",
            late=ErrorCode.UNAVAILABLE,
        )
    )

    async def answer(
        self, records: Sequence[JobRecord], *, by: Measure, anyway: bool, seed: int, owner: str
    ) -> DiffReport:
        """The differences of these jobs, for an owner of keys.

        Raises what `results.require_report` raises, and ARTIFACT_NOT_FOUND if a job's values by token are gone. Raises
        REPORTS_NOT_COMPARABLE, and INVALID_REQUEST if the reports share no position. Raises RATE_LIMITED or UNAVAILABLE
        if too many ask at once, if it takes too long, or if a package is missing.
        """
        sides = await asyncio.to_thread(lambda: [self._side(record) for record in records])
        asked = {"sides": sides, "by": by, "anyway": anyway, "seed": seed}
        async with self._line.place(owner):
            answer = await self._run(json.dumps(asked).encode())
        error = answer.get("error")
        if error is not None:
            raise HemostatError(ErrorCode(error["code"]), error["detail"], hint=error["hint"])
        return DiffReport.model_validate(answer["diff"])

    def _side(self, record: JobRecord) -> dict[str, str]:
        report = compare_report_of(record, self.settings)
        return {
            "name": record.job.id,
            "candidate": visible(describe.model(report.provenance.candidate)),
            "report": str(self.settings.job_dir(record.job.id) / results.require_report(record)),
            "tokens": str(results.artifact(record, self.settings, TOKENS).path),
        }

    async def _run(self, given: bytes) -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            *self.command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=without_secrets(),
        )
        try:
            written, complaint = await asyncio.wait_for(process.communicate(given), self.longest_s)
        except TimeoutError:
            raise HemostatError(
                ErrorCode.UNAVAILABLE,
                f"The differences cannot be computed at the moment: that took longer than {self.longest_s:g} s.",
                hint="Wait as long as Retry-After says and ask again, or compare fewer jobs at once.",
                retry_after_s=RETRY_S,
            ) from None
        finally:
            # Also where the client has left.
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode == 0:
            found: dict[str, Any] = json.loads(written)
            return found
        last = (complaint.decode(errors="replace").strip().splitlines() or [f"status {process.returncode}"])[-1]
        if last.startswith("ModuleNotFoundError"):
            raise HemostatError(
                ErrorCode.UNAVAILABLE,
                f"Token differences need a package that the API's installation lacks: {last.partition(': ')[2]}.",
                hint="Install numpy, scipy and pyarrow there, or run `hemostat diff` where they are.",
                retry_after_s=RETRY_S,
            )
        raise RuntimeError(f"the comparison of reports ended with status {process.returncode}: {last[:500]}")


def compare_report_of(record: JobRecord, settings: Settings) -> CompareReport:
    """The report of a compare job. Raises INVALID_REQUEST for a job of another kind, and what reading a report does."""
    if record.job.kind != "compare":
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"{record.job.id} is a job of kind {record.job.kind}: only reports of compare jobs have token values.",
            hint="Submit a compare job with its recipe.",
        )
    report = parse(json.loads(results.read_report(record, settings)))
    assert isinstance(report, CompareReport)  # noqa: S101 - the kind says so
    return report


def check_jobs(jobs: Sequence[str]) -> None:
    """Raises INVALID_REQUEST for fewer than two, for more than `MOST`, and for one that is named twice."""
    if len(jobs) < 2:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST, "A difference needs two reports.", hint="Name two jobs or more: job=…&job=…"
        )
    if len(jobs) > MOST:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST, f"{len(jobs)} jobs are named; at most {MOST} can be compared with each other."
        )
    for job in jobs:
        if jobs.count(job) > 1:
            raise HemostatError(ErrorCode.INVALID_REQUEST, f"{job} is named twice.", hint="Name each job once.")
