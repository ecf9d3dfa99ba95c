import fcntl
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

from app.security import audit
from app.security.audit import audit_file, record


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_line_is_added_to_what_is_there_and_read_by_its_owner_alone(tmp_path):
    for number in range(3):
        record(tmp_path, owner="ann", object=str(number))
    file = audit_file(tmp_path)
    assert [line["object"] for line in lines(file)] == ["0", "1", "2"]
    assert all(line["at"].endswith("Z") for line in lines(file))
    assert (stat.S_IMODE(file.stat().st_mode), stat.S_IMODE(file.parent.stat().st_mode)) == (0o600, 0o700)


def test_files_are_bounded_in_size_and_number_and_lose_no_line_before(tmp_path, monkeypatch):
    monkeypatch.setattr(audit, "MAX_BYTES", 500)
    for number in range(12):
        record(tmp_path, object=f"{number:03} {'x' * 100}")
    file = audit_file(tmp_path)
    older = [Path(f"{file}.{number}") for number in (4, 3, 2, 1) if Path(f"{file}.{number}").exists()]
    assert [line["object"][:3] for part in [*older, file] for line in lines(part)] == [f"{n:03}" for n in range(12)]
    for number in range(300):
        record(tmp_path, object=f"{number:03} {'x' * 100}")
    assert len(list(file.parent.iterdir())) == 1 + audit.KEPT
    assert all(part.stat().st_size <= 500 for part in file.parent.iterdir())
    assert lines(file)[-1]["object"].startswith("299")


def test_processes_write_beside_each_other(tmp_path):
    program = (
        "import sys; from pathlib import Path; from app.security import audit; audit.MAX_BYTES = 4000\n"
        "for number in range(40): audit.record(Path(sys.argv[1]), owner=sys.argv[2], object=str(number))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path), name]) for name in "abc"]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    found = [line for part in audit_file(tmp_path).parent.iterdir() for line in lines(part)]
    assert len(found) == 120


def test_nobody_waits_for_a_process_that_holds_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(audit, "MAX_BYTES", 100)
    record(tmp_path, object="first")
    folder = os.open(audit_file(tmp_path).parent, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    record(tmp_path, object="second")
    assert [line["object"] for line in lines(audit_file(tmp_path))] == ["first", "second"]
    os.close(folder)
    record(tmp_path, object="third")
    assert [line["object"] for line in lines(audit_file(tmp_path))] == ["third"]


def test_a_change_that_cannot_be_recorded_is_in_the_log(tmp_path, caplog):
    (tmp_path / "audit").write_text("no folder")
    record(tmp_path, owner="ann", object="o")
    assert "ann" in caplog.text
