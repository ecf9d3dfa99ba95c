import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.job import JobStatus, job_error
from app.jobs import examples, results
from app.jobs.record import read_record
from app.settings import Settings

JOB_ID = examples.JOB_ID


def record(status=JobStatus.SUCCEEDED, **fields):
    base = {
        "id": JOB_ID,
        "kind": "compare",
        "status": status.value,
        "reference": '{"model": "m"}',
        "candidate": '{"model": "m"}',
        "metadata": "{}",
        "text": "shipped",
        "created_at": "1.5",
        "updated_at": "2.5",
        "queued_at": "1.5",
        "attempt": "2",
        "tries": "1",
        "events": "5",
    }
    if status is JobStatus.SUCCEEDED:
        base |= {"report": "attempt-2/report.json", "artifacts": '["tokens.npz"]', "severity": "mild"}
    return read_record(base | fields)


@pytest.fixture
def settings(tmp_path):
    made = Settings(home=tmp_path)
    folder = made.job_dir(JOB_ID) / "attempt-2"
    folder.mkdir(parents=True)
    (folder / "report.json").write_bytes(b'{"schema": "hemostat.report/1"}')
    (folder / "tokens.npz").write_bytes(b"values")
    (folder / "secret.txt").write_bytes(b"not in the record")
    return made


def test_the_report_is_read_as_it_was_written(settings):
    assert results.read_report(record(), settings) == b'{"schema": "hemostat.report/1"}'


def test_only_what_the_record_names_is_an_artifact(settings):
    assert [a.name for a in results.artifacts(record(), settings)] == ["tokens.npz"]
    assert results.artifact(record(), settings, "tokens.npz").path.read_bytes() == b"values"
    for name in ("secret.txt", "report.json", "../attempt-2/tokens.npz", "", ".", "tokens.npz\0"):
        with pytest.raises(HemostatError) as caught:
            results.artifact(record(), settings, name)
        assert caught.value.code is ErrorCode.ARTIFACT_NOT_FOUND


def test_a_link_is_no_artifact(settings, tmp_path):
    (tmp_path / "outside").write_text("secret")
    link = settings.job_dir(JOB_ID) / "attempt-2" / "tokens.npz"
    link.unlink()
    link.symlink_to(tmp_path / "outside")
    with pytest.raises(HemostatError) as caught:
        results.artifact(record(), settings, "tokens.npz")
    assert caught.value.code is ErrorCode.ARTIFACT_NOT_FOUND


def test_a_report_whose_file_is_gone_says_so(settings):
    (settings.job_dir(JOB_ID) / "attempt-2" / "report.json").unlink()
    with pytest.raises(HemostatError) as caught:
        results.read_report(record(), settings)
    assert caught.value.code is ErrorCode.ARTIFACT_NOT_FOUND


@pytest.mark.parametrize("status", [s for s in JobStatus if s is not JobStatus.SUCCEEDED])
def test_there_is_no_report_before_success_and_the_answer_says_why(status):
    error = job_error(ErrorCode.ENGINE_OUT_OF_MEMORY, "It took 9 GiB.", "Use a smaller window.")
    fields = {"error": error.model_dump_json()} if status is JobStatus.FAILED else {}
    with pytest.raises(HemostatError) as caught:
        results.require_report(record(status, **fields))
    assert caught.value.code is ErrorCode.JOB_NOT_FINISHED
    if status is JobStatus.FAILED:
        assert "engine_out_of_memory" in caught.value.detail
        assert "It took 9 GiB." in caught.value.detail
        assert caught.value.hint == "Use a smaller window."
    else:
        assert status.value in caught.value.detail
    waiting = status in {JobStatus.QUEUED, JobStatus.RUNNING, JobStatus.CANCELLING}
    assert (caught.value.retry_after_s is not None) == waiting
