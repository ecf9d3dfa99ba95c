"""Case `sweep_two_workers` of `make bench`: the same sweep by one worker of a service, then by two that share it.

Each run is a service of its own: an empty home, a Valkey, `python -m workers.main`. A worker is held to its half of the
machine's cores and computes in as many threads, in `one_worker` also, where the other half has nothing to do. So
`job_ratio` and `points_ratio` tell what a second worker of the same size gives, and not that one worker computes in
more threads than each of two. `one_worker_all_cores` is a worker on all cores, in as many threads, as a machine has it
by default: `job_ratio_all_cores` and `points_ratio_all_cores` tell whether two halves beat it.

Workers are warm: each has done a small job in windows of the same length before, so imports and the starts of engines
are no part of any number. Scoring the reference, which two workers do no faster, is a part of `job_seconds`, as whoever
submits the sweep waits for it (`other_seconds` of it are outside the job's own phases: queue, fits, report);
`points_ratio` is that of the points alone. `first` is the worker that the job went to, `second` the one that helps.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from app.contracts.job import JobStatus
from app.jobs.embedded import EmbeddedValkey
from app.jobs.record import JobRecord
from app.kinds.sweep.report import SweepReport
from app.settings import Settings
from tests.bench.cases import prepared, request
from tests.bench.cores import Cpus, halves, held_to, physical_cores
from tests.bench.diagnosis import POINTS, sweep_request
from tests.bench.rows import Row
from tests.support.worker import Owner, WorkerProcess, wait_for
from workers.main import DEFAULT_HANDLERS

TOKENS = 5000
START_S = 300.0
JOB_S = 3600.0
ROUNDS = 5


class Share(NamedTuple):
    """What a worker did of a sweep: points, and seconds of making and measuring them."""

    points: int
    seconds: float


class Run(NamedTuple):
    """A sweep that was run by some workers. `shares`: of the one that had the job, then of the others."""

    seconds: float
    report: SweepReport
    shares: tuple[Share, ...]

    @property
    def points_seconds(self) -> float:
        """Of the phase that is shared."""
        return self.report.provenance.seconds["points"]


def bench_two_workers(home: Path, *, points: int = POINTS, tokens: int = TOKENS) -> list[Row]:
    """Twelve sparsities by magnitude over 5,000 tokens."""
    cores = physical_cores()
    places = halves(cores)
    threads = len(places[0])
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(home / "inductor"))
    one = _run(home / "one", places[:1], points=points, tokens=tokens)
    two = _run(home / "two", places, points=points, tokens=tokens)
    whole = _run(home / "whole", (cores,), points=points, tokens=tokens)
    case = "two_workers"
    return [
        *_rows("one_worker", one),
        *_rows(case, two),
        *_rows("one_worker_all_cores", whole),
        Row("sweep", "one_worker_all_cores", "threads_per_worker", len(cores), "threads"),
        Row("sweep", case, "job_ratio", two.seconds / one.seconds, "ratio"),
        Row("sweep", case, "points_ratio", two.points_seconds / one.points_seconds, "ratio"),
        Row("sweep", case, "job_ratio_all_cores", two.seconds / whole.seconds, "ratio"),
        Row("sweep", case, "points_ratio_all_cores", two.points_seconds / whole.points_seconds, "ratio"),
        Row("sweep", case, "scored_tokens", two.report.tokens, "tokens"),
        Row("sweep", case, "cores", len(cores), "cores"),
        Row("sweep", case, "threads_per_worker", threads, "threads"),
    ]


def _rows(case: str, run: Run) -> list[Row]:
    phases = run.report.provenance.seconds
    rows = [
        Row("sweep", case, "job_seconds", run.seconds, "s"),
        *(Row("sweep", case, f"{phase}_seconds", took, "s") for phase, took in phases.items()),
        Row("sweep", case, "other_seconds", run.seconds - sum(phases.values()), "s"),
    ]
    for name, share in zip(("first", "second"), run.shares, strict=False):
        rows.append(Row("sweep", case, f"points_of_{name}", share.points, "points"))
        if share.points:
            rows.append(Row("sweep", case, f"seconds_per_point_of_{name}", share.seconds / share.points, "s"))
    return rows


def _run(home: Path, places: tuple[list[Cpus], ...], *, points: int, tokens: int) -> Run:
    """The sweep by a warm worker at each of the places."""
    settings = prepared(home, tokens).model_copy(update={"worker_metrics_port": 0})
    owner = Owner(settings)
    with EmbeddedValkey(settings), _workers(settings, places) as workers:
        _warm_up(owner, len(workers))
        record = _succeeded(owner, owner.submit_request(sweep_request(points).model_dump(mode="json")))
        pid = next(info.pid for info in owner.workers() if info.id == record.worker)
        workers.sort(key=lambda worker: worker.pid != pid)
        report = SweepReport.model_validate_json((settings.job_dir(record.job.id) / str(record.report)).read_text())
        assert len(report.points) == points
        shares = tuple(_share(report, worker) for worker in workers)
    assert record.job.attempt == 1
    assert record.job.finished_at is not None
    assert sum(share.points for share in shares) == points
    return Run(record.job.finished_at - record.job.created_at, report, shares)


@contextmanager
def _workers(settings: Settings, places: tuple[list[Cpus], ...]) -> Iterator[list[WorkerProcess]]:
    """A worker at each of the places, in as many threads as it has cores there."""
    with ExitStack() as stack:
        workers = []
        for number, cores in enumerate(places):
            os.environ["OMP_NUM_THREADS"] = str(len(cores))  # of the worker; this process computes nothing
            with held_to(frozenset().union(*cores)):
                worker = WorkerProcess(settings, settings.home / f"worker-{number}.log", handlers=DEFAULT_HANDLERS)
            workers.append(stack.enter_context(worker))
        yield workers


def _warm_up(owner: Owner, workers: int) -> None:
    """Returns when every worker has done a job."""
    wait_for(lambda: len(owner.workers()) == workers, what="workers", timeout_s=START_S)
    text = "The quick brown fox jumps over the lazy dog. " * 120
    documents = [{"id": f"w{number}", "text": f"{number}. {text}"} for number in range(2)]
    small: dict[str, Any] = request([{"type": "prune.magnitude", "sparsity": 0.5}]).model_dump(mode="json")
    small |= {"text": {"source": "inline", "documents": documents}}
    done: set[str | None] = set()
    for _ in range(ROUNDS):
        jobs = [owner.submit_request(small) for _ in range(workers)]
        done |= {_succeeded(owner, job).worker for job in jobs}
        if len(done) == workers:
            return
    raise AssertionError(f"only {done} took a job")


def _succeeded(owner: Owner, job: str) -> JobRecord:
    record = owner.wait(job, timeout_s=JOB_S)
    assert record.job.status is JobStatus.SUCCEEDED, record.job.error
    return record


def _share(report: SweepReport, worker: WorkerProcess) -> Share:
    """What a worker's child did of a sweep."""
    names = {f"{socket.gethostname()}-{child.pid}" for child in worker.children()}
    own = [point for point in report.points if point.by in names]
    return Share(len(own), sum(point.seconds_making + point.seconds_measuring for point in own))
