import json
from pathlib import Path

import pytest

from app.settings import Settings
from tests.unit.workers.calibration.online.making import NOW, ONE, deployment, scored
from workers.calibration.online import decisions, replay
from workers.calibration.online.book import Monitor
from workers.calibration.online.threshold import Expected


def alarm(settings: Settings, folder: Path) -> Path:
    """A file of a real alarm."""
    book = Monitor(settings, deployment(), Expected(), None, NOW)
    while not book.state.todo:
        book.observe(scored(0.4), NOW)
    todo = book.state.todo[0]
    return folder / "decisions" / decisions.write(folder, "dep_1", todo.step, todo.active, todo.at)


def promotion(settings: Settings, folder: Path) -> Path:
    book = Monitor(settings, deployment(drift_threshold=None), Expected(), None, NOW)
    for _ in range(10):
        book.observe(scored(0.05), NOW)
    assert book.try_version(ONE, NOW).allowed
    while not book.state.todo:
        book.observe(scored(0.05, trial=0.02, trial_version=ONE), NOW)
    todo = book.state.todo[0]
    return folder / "decisions" / decisions.write(folder, "dep_1", todo.step, todo.active, todo.at)


@pytest.mark.parametrize("make", [alarm, promotion])
def test_a_decision_is_made_again_from_its_record(
    tmp_path: Path, make: object, capsys: pytest.CaptureFixture[str]
) -> None:
    file = make(Settings(home=tmp_path), tmp_path)  # type: ignore[operator]
    assert replay.main([str(file)]) == 0
    shown = capsys.readouterr().out
    assert "the same comes out" in shown
    assert f"{file.stem.partition('-')[2]}" in shown
    found = decisions.again(decisions.Decision.model_validate_json(file.read_bytes()))
    assert found.same
    assert found.decided == found.replayed


@pytest.mark.parametrize("where", ["inputs", "decision"])
def test_a_record_that_was_touched_is_seen(tmp_path: Path, where: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = alarm(Settings(home=tmp_path), tmp_path)
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
    file = alarm(Settings(home=tmp_path), tmp_path)
    decision = decisions.Decision.model_validate_json(file.read_bytes())
    monkeypatch.setattr(decisions, "KEEP", 3)
    book = Monitor(Settings(home=tmp_path), deployment(), Expected(), None, NOW)
    while not book.state.todo:
        book.observe(scored(0.4), NOW)
    for number in range(5):
        decisions.write(tmp_path, "dep_1", book.state.todo[0].step, decision.active, NOW + 1 + number)
    kept = sorted(path.name for path in (tmp_path / "decisions").iterdir())
    assert len(kept) == 3
    assert file.name not in kept
