"""What the bench of shared sweeps compares with what; no worker is started."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.kinds.sweep.report import Share
from tests.bench import sharing
from tests.bench.cores import Cpus

Places = tuple[list[Cpus], ...]
CORES = [frozenset({cpu, cpu + 8}) for cpu in range(4)]


def test_two_workers_stand_against_one_and_one_on_all_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # Seconds of the job and of its points, by how many cores each worker has.
    seconds = {(2,): (100.0, 80.0), (2, 2): (60.0, 44.0), (4,): (75.0, 55.0)}

    def measured(home: Path, places: Places, **_: int) -> sharing.Run:
        assert all(core in CORES for cores in places for core in cores)
        job, points = seconds[tuple(len(cores) for cores in places)]
        report = SimpleNamespace(provenance=SimpleNamespace(seconds={"points": points}), tokens=3801)
        return sharing.Run(job, cast(Any, report), tuple(Share(by="", points=6, seconds=30.0) for _ in places))

    monkeypatch.setattr(sharing, "physical_cores", lambda: CORES)
    monkeypatch.setattr(sharing, "_run", measured)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    rows = {(row.case, row.metric): row.value for row in sharing.bench_two_workers(tmp_path)}
    jobs = {case: value for (case, metric), value in rows.items() if metric == "job_seconds"}
    assert jobs == {"one_worker": 100, "two_workers": 60, "one_worker_all_cores": 75}
    assert rows["two_workers", "job_ratio"] == pytest.approx(60 / 100)
    assert rows["two_workers", "points_ratio"] == pytest.approx(44 / 80)
    assert rows["two_workers", "job_ratio_all_cores"] == pytest.approx(60 / 75)
    assert rows["two_workers", "points_ratio_all_cores"] == pytest.approx(44 / 55)
    assert rows["two_workers", "threads_per_worker"] == 2
    assert rows["one_worker_all_cores", "threads_per_worker"] == 4
