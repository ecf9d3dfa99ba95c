import subprocess

from prometheus_client.parser import text_string_to_metric_families

from app.contracts.job import JobStatus
from app.jobs.store import Statistics
from app.telemetry.metrics import Telemetry
from tests.support.tools import tool


def exposition(telemetry):
    families = text_string_to_metric_families(telemetry.render().decode())
    return {
        sample.name + "".join(f",{name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def busy():
    telemetry = Telemetry()
    telemetry.queue.statistics = Statistics(
        {status: number for number, status in enumerate(JobStatus)}, 12.5, {("compare", JobStatus.FAILED): 3}
    )
    telemetry.queue.workers = 2
    telemetry.requests.labels("/v1/diagnosis/jobs", "GET", "200").inc()
    telemetry.latency.labels("/v1/diagnosis/jobs", "GET").observe(0.1)
    return telemetry


def test_promtool_has_nothing_to_say():
    done = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=busy().render(), capture_output=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_the_queue_is_shown_as_it_was_read():
    shown = exposition(busy())
    assert shown["hemostat_redis_up"] == 1
    assert shown["hemostat_jobs,status=queued"] == list(JobStatus).index(JobStatus.QUEUED)
    assert shown["hemostat_job_queue_depth"] == shown["hemostat_jobs,status=queued"]
    assert shown["hemostat_job_queue_oldest_age_seconds"] == 12.5
    assert shown["hemostat_jobs_finished_total,kind=compare,outcome=failed"] == 3
    assert shown["hemostat_jobs_finished_total,kind=compare,outcome=succeeded"] == 0
    assert shown["hemostat_workers"] == 2


def test_what_could_not_be_read_is_absent_rather_than_stale():
    telemetry = busy()
    telemetry.queue.statistics = None
    shown = exposition(telemetry)
    assert shown["hemostat_redis_up"] == 0
    assert not [name for name in shown if name.startswith(("hemostat_jobs,", "hemostat_job_", "hemostat_workers"))]


def test_every_metric_of_ours_has_the_prefix_and_the_process_is_measured():
    families = list(text_string_to_metric_families(busy().render().decode()))
    names = {family.name for family in families}
    assert "process_resident_memory_bytes" in names
    ours = {name for name in names if not name.startswith(("process_", "python_"))}
    assert ours
    assert all(name.startswith("hemostat_") for name in ours)
