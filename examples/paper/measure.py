"""Jobs are run through a service, and their reports kept: what was measured once is not measured again.

A report, and the values by token of a compare job, are kept under the hash of the request, of Hemostat's version and of
those of the steps in its recipes. Another request, or a step that gives other weights than before, is another file.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from app.cli.client import Client
from app.cli.watching import run_to_end
from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.report import Report
from app.jobs.parsing import parse_submission
from app.reports.reading import parse
from examples.paper.versions import versions

Json = dict[str, Any]
TOKENS: Final = ".parquet"
# The service went away: no other job can be measured either.
_HOPELESS: Final = frozenset({ErrorCode.UNAVAILABLE})


@dataclass(frozen=True)
class Measured:
    """What became of a job: its report and what it took, or why there is none. Seconds are from submission to end.
    `tokens`: the file of a compare job's values by token."""

    name: str
    report: Report | None = None
    seconds: float = 0.0
    why: str = ""
    tokens: Path | None = None


@dataclass
class Results:
    """The kept reports, one file a job below `folder`."""

    folder: Path
    _failed: dict[str, str] = field(default_factory=dict)

    def path(self, name: str, request: Json) -> Path:
        """Where the report of this request is kept. Raises `HemostatError` where the request is refused."""
        checked = parse_submission(json.dumps(request).encode()).model_dump(mode="json")
        named = {"hemostat": version("hemostat"), "steps": versions(checked), "request": checked}
        key = hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:16]
        return self.folder / f"{name}-{key}.json"

    def find(self, name: str, request: Json) -> Measured:
        """What was measured, else why it was not."""
        try:
            path = self.path(name, request)
        except HemostatError as error:
            return Measured(name, why=f"its request is refused: {error.detail}")
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            tokens = path.with_suffix(TOKENS)
            return Measured(
                name, parse(kept["report"]), float(kept["seconds"]), tokens=tokens if tokens.exists() else None
            )
        except FileNotFoundError:
            return Measured(name, why=self._failed.get(name, "it has not been run"))
        except (HemostatError, ValueError, KeyError, TypeError) as error:
            return Measured(name, why=f"what was kept cannot be read: {error}")

    def keep(self, name: str, request: Json, report: Json, seconds: float, tokens: bytes | None = None) -> None:
        """Whole or not at all: the report is written last."""
        path = self.path(name, request)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        if tokens is not None:
            partial.write_bytes(tokens)
            partial.replace(path.with_suffix(TOKENS))
        partial.write_text(json.dumps({"seconds": seconds, "report": report}), encoding="utf-8")
        partial.replace(path)
        self._failed.pop(name, None)

    def failed(self, name: str, why: str) -> None:
        """Remembered until the end of this run."""
        self._failed[name] = why


def run(
    client: Client,
    requests: Iterable[tuple[str, Json]],
    results: Results,
    console: Console,
    *,
    after: Callable[[], object],
) -> None:
    """Runs what has no kept report. A job that fails is told and the next one begun; `after` is called behind each.

    Raises `HemostatError(UNAVAILABLE)` where the service is gone.
    """
    for name, request in requests:
        began = time.monotonic()
        console.print(f"[bold]{name}[/]")
        try:
            job = run_to_end(client, request, console)
            seconds = time.monotonic() - began
            tokens = client.artifact(job["id"], f"tokens{TOKENS}") if request["kind"] == "compare" else None
            results.keep(name, request, client.report(job["id"]), seconds, tokens)
        except HemostatError as error:
            if error.code in _HOPELESS:
                raise
            results.failed(name, f"the job ended with {error.code}: {error.detail}")
            console.print(f"[bold red]failed[/] {error.code}: {error.detail}", soft_wrap=True)
        else:
            console.print(f"[dim]{name}: {time.monotonic() - began:.0f} s[/]")
        after()
