"""What a mitigate job leaves where the disk takes no more."""

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from workers.diagnosis.mitigate.export import export


def failing(number: int, folder: Path) -> None:
    def write(*_: Any) -> None:
        raise OSError(number, "it cannot be written")

    nothing: Any = SimpleNamespace(documents=())
    tested: Any = SimpleNamespace(
        raw=SimpleNamespace(values=SimpleNamespace(to_parquet=write)),
        part=SimpleNamespace(where=None),
        recommended=None,
    )
    context: Any = SimpleNamespace(output=folder)
    report: Any = SimpleNamespace(helped=False)
    sets: Any = SimpleNamespace(test=nothing)
    export(report, tested, sets, nothing, nothing, nothing, context)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_with_what_another_job_would_have_to_do_again(number: int, tmp_path: Path) -> None:
    with pytest.raises(HemostatError) as caught:
        failing(number, tmp_path)
    assert caught.value.code is ErrorCode.DISK_FULL
    assert "make room below HEMOSTAT_HOME" in caught.value.hint
    # What an ended job measured goes with it: another one begins anew, but for checkpoints that are there.
    assert "what it measured is not" in caught.value.hint


def test_another_fault_of_the_disk_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot be written"):
        failing(errno.EIO, tmp_path)
