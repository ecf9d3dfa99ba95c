"""Two workers on one Redis share a sweep; killing either of them loses no point."""

from collections import Counter
from pathlib import Path

from app.kinds.sweep.report import SweepReport
from app.settings import Settings
from tests.e2e.conftest import report_of
from tests.support.halting import POINTS
from tests.support.handlers import go
from tests.support.worker import Owner, WorkerProcess, wait_for

HANDLERS = "tests.support.halting:HANDLERS"
START_S = 600  # importing vLLM and starting an engine on a busy machine
SHARES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
REQUEST = {
    "kind": "sweep",
    "reference": {"model": "tiny"},
    "candidate": {"model": "tiny", "recipe": [{"type": "prune.magnitude", "sparsity": SHARES[0]}]},
    "knobs": [{"step": 0, "field": "sparsity", "values": SHARES}],
    "text": {
        "source": "inline",
        "documents": [
            {"id": f"d{number}", "text": f"The lazy dog number {number} jumps over the quick brown fox. " * 4}
            for number in range(8)
        ],
    },
    "window": 64,
}


def points(settings: Settings, job_id: str) -> dict[Path, int]:
    """The points that are kept, and when they were written."""
    kept = (settings.job_dir(job_id) / "partial" / "points").glob("*.json")
    return {file: file.stat().st_mtime_ns for file in kept}


def test_a_sweep_is_shared_and_a_killed_worker_loses_no_point(house: Settings, tmp_path: Path) -> None:
    owner = Owner(house)
    with WorkerProcess(house, tmp_path / "first.log", handlers=HANDLERS) as first:
        shared = owner.submit_request(REQUEST)
        wait_for(lambda: len(points(house, shared)) >= POINTS, what="points of the first worker", timeout_s=START_S)
        with WorkerProcess(house, tmp_path / "second.log", handlers=HANDLERS) as second:
            several = POINTS + 2
            wait_for(lambda: len(points(house, shared)) >= several, what="points of the second", timeout_s=START_S)
            second.kill()
        go(house, shared)
        record = owner.wait(shared, timeout_s=START_S)
        assert (record.job.attempt, record.tries) == (1, 1)
        report = SweepReport.model_validate_json(report_of(house, record))
        assert [point.value for point in report.points] == SHARES
        shares = Counter(point.by for point in report.points)
        assert len(shares) == 2 and min(shares.values()) >= 2

        # Whoever measured a point: the numbers are the same.
        alone = owner.submit_request(REQUEST)
        go(house, alone)
        undisturbed = SweepReport.model_validate_json(report_of(house, owner.wait(alone, timeout_s=START_S)))
        assert len({point.by for point in undisturbed.points}) == 1
        for one, other in zip(report.points, undisturbed.points, strict=True):
            assert one.divergence == other.divergence
            assert one.perplexity == other.perplexity
        assert report.threshold == undisturbed.threshold
        assert first.process.poll() is None


def test_whoever_helped_goes_on_with_every_point_of_a_worker_that_is_killed(house: Settings, tmp_path: Path) -> None:
    owner = Owner(house)
    with WorkerProcess(house, tmp_path / "first.log", handlers=HANDLERS) as first:
        job = owner.submit_request(REQUEST)
        wait_for(lambda: len(points(house, job)) >= POINTS, what="points of the first worker", timeout_s=START_S)
        with WorkerProcess(house, tmp_path / "second.log", handlers=HANDLERS):
            # the first halts: all others are the second's
            wait_for(lambda: len(points(house, job)) == len(SHARES), what="points of the second", timeout_s=START_S)
            kept = points(house, job)
            first.kill()
            wait_for(lambda: owner.record(job).tries == 2, what="another attempt", timeout_s=START_S)
            go(house, job)
            record = owner.wait(job, timeout_s=START_S)
    assert record.job.attempt == 2
    report = SweepReport.model_validate_json(report_of(house, record))
    assert [point.value for point in report.points] == SHARES
    assert report.provenance.resumed_windows == len(kept) * report.windows
    shares = Counter(point.by for point in report.points)
    assert len(shares) == 2 and min(shares.values()) >= POINTS
