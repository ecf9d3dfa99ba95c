from pathlib import Path

from app.settings import Settings
from tests.support.job_folders import fill_job
from workers.process.context import clean_job, output_folder


def test_an_ended_job_keeps_the_attempt_that_succeeded(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    fill_job(settings, "job")
    clean_job(settings, "job", keep=2)
    assert [entry.name for entry in settings.job_dir("job").iterdir()] == ["attempt-2"]
    assert (output_folder(settings, "job", 2) / "file").exists()


def test_a_job_without_result_leaves_nothing(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    fill_job(settings, "job")
    clean_job(settings, "job", keep=None)
    assert not settings.job_dir("job").exists()
    clean_job(settings, "job", keep=None)
