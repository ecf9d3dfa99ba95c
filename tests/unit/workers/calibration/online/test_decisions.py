import json
from pathlib import Path

import pytest

from app.settings import Settings
from tests.unit.workers.calibration.online.making import NOW, ONE, deployment, scored
from workers.calibration.online import decisions, replay
from workers.calibration.online.book import Monitor
from workers.calibration.online.threshold import Expected


def written(folder: Path, *, trial: float | None = None, at: float = NOW) -> Path:
    """The file of a real alarm, or of the promotion of a version of so much divergence."""
    book = Monitor(Settings(home=folder), deployment(drift_threshold=None if trial else 0.1), Expected(), None, NOW)
    served = 0.05 if trial else 0.4
    if trial:
        for _ in range(10):
            book.observe(scored(served), NOW)
        assert book.try_version(ONE, NOW).allowed
    while not book.state.todo:
        book.observe(scored(served, trial=trial, trial_version=ONE if trial else None), NOW)
    todo = book.state.todo[0]
    return folder / "decisions" / decisions.write(folder, "dep_1", todo.step, todo.active, at)


@pytest.mark.parametrize("trial", [None, 0.02])
def test_a_decision_is_made_again_from_its_record(
    tmp_path: Path, trial: float | None, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, trial=trial)
    assert replay.main([str(file)]) == 0
    shown = capsys.readouterr().out
    assert "the same comes out" in shown
    assert file.stem.partition("-")[2] in shown
    found = decisions.again(decisions.Decision.model_validate_json(file.read_bytes()))
    assert found.same
    assert found.decided == found.replayed


@pytest.mark.parametrize("where", ["inputs", "decision"])
def test_a_record_that_was_touched_is_seen(tmp_path: Path, where: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(tmp_path)
    content = json.loads(file.read_text())
    if where == "inputs":
        content["record"]["inputs"][3][0] *= 1.01
    else:
        content["record"]["decision"]["e_value"] *= 2
    file.write_text(json.dumps(content))
    assert replay.main([str(file)]) == 1
    assert "something else comes out" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "{}", "nonsense"])
def test_a_file_that_is_no_record_is_refused(tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.json"
    file.write_text(content)
    assert replay.main([str(file)]) == 2
    assert replay.main([str(tmp_path / "nowhere.json")]) == 2
    assert "x.json" in capsys.readouterr().err


def test_old_records_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "KEEP", 3)
    files = [written(tmp_path, at=NOW + number) for number in range(5)]
    assert sorted((tmp_path / "decisions").iterdir()) == sorted(files[2:])
