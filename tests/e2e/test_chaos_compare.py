"""Cancelling and killing a worker in mid-comparison, engine running: what another worker makes of it is exact."""

import json
from pathlib import Path

import pyarrow.parquet as pq

from app.contracts.job import JobStatus
from app.jobs.record import JobRecord
from app.kinds.compare.report import CompareReport
from app.settings import Settings
from tests.e2e.conftest import report_of
from tests.support.halting import WINDOWS
from tests.support.handlers import go
from tests.support.worker import Owner, WorkerProcess, gone, wait_for

HANDLERS = "tests.support.halting:HANDLERS"
START_S = 240  # importing vLLM and starting an engine on a busy machine
REQUEST = {
    "kind": "compare",
    "reference": {"model": "tiny"},
    "candidate": {"model": "tiny", "recipe": [{"type": "quantize.rtn", "bits": 4, "group_size": 32}]},
    "text": {
        "source": "inline",
        "documents": [
            {"id": f"d{number}", "text": f"The lazy dog number {number} jumps over the quick brown fox. " * 24}
            for number in range(48)
        ],
    },
    "window": 64,
}


def scoring(record: JobRecord) -> bool:
    """The candidate is being scored, and some of it is kept."""
    assert not record.ended, record
    return record.job.progress.phase == "candidate" and record.job.progress.done >= WINDOWS


def test_a_comparison_is_cancelled_at_once_and_resumed_exactly(house: Settings, tmp_path: Path) -> None:
    owner = Owner(house)
    with WorkerProcess(house, tmp_path / "first.log", handlers=HANDLERS) as first:
        cancelled = owner.submit_request(REQUEST)
        owner.wait_until(cancelled, scoring, timeout_s=START_S)
        (engine,) = first.children()
        owner.cancel(cancelled)
        assert owner.wait(cancelled).job.status is JobStatus.CANCELLED
        assert not gone(engine.pid)  # it listened and was not killed: its engine stays warm

        killed = owner.submit_request(REQUEST)
        with WorkerProcess(house, tmp_path / "second.log", handlers=HANDLERS):
            owner.wait_until(killed, scoring, timeout_s=START_S)
            assert [process.pid for process in first.children()] == [engine.pid]
            first.kill()
            go(house, killed)
            resumed = owner.wait(killed, timeout_s=START_S)
            undisturbed = owner.submit_request(REQUEST)
            go(house, undisturbed)
            whole = owner.wait(undisturbed, timeout_s=START_S)
    wait_for(lambda: gone(engine.pid), what="end of its engine")
    assert (resumed.job.attempt, resumed.tries) == (2, 2)
    left, right = (CompareReport.model_validate_json(report_of(house, one)) for one in (resumed, whole))
    assert left.provenance.resumed_windows > 0
    assert right.provenance.resumed_windows == 0
    assert left.windows == right.windows
    # The same engine on the same weights: not about the same numbers but the same.
    assert left.divergence == right.divergence
    assert left.perplexity == right.perplexity
    tables = [
        pq.read_table(house.job_dir(record.job.id) / f"attempt-{record.job.attempt}" / "tokens.parquet")
        for record in (resumed, whole)
    ]
    assert tables[0].equals(tables[1])
    ends = [json.loads(event) for event in owner.events(killed) if '"end"' in event]
    assert len(ends) == 1
