from pathlib import Path

from app.settings import Settings
from workers.process.context import output_folder, scratch_folder
from workers.process.runner import Drain, clean_job


def fill(settings: Settings) -> list[Path]:
    folders = [scratch_folder(settings, "job"), *(output_folder(settings, "job", attempt) for attempt in (1, 2, 10))]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "file").touch()
    return folders


def test_an_ended_job_keeps_the_attempt_that_succeeded(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    fill(settings)
    clean_job(settings, "job", keep=2)
    assert [entry.name for entry in settings.job_dir("job").iterdir()] == ["attempt-2"]
    assert (output_folder(settings, "job", 2) / "file").exists()


def test_a_job_without_result_leaves_nothing(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    fill(settings)
    clean_job(settings, "job", keep=None)
    assert not settings.job_dir("job").exists()
    clean_job(settings, "job", keep=None)


async def test_the_second_signal_hurries() -> None:
    drain = Drain()
    drain.begin()
    assert drain.begun.is_set()
    assert not drain.hurry.is_set()
    drain.begin()
    assert drain.hurry.is_set()
