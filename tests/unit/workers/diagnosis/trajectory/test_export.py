"""What a trajectory job leaves, where the disk takes no more."""

from types import SimpleNamespace

import pytest

from app.contracts.errors import ErrorCode, HemostatError
from tests.support.disk import files_of_at_most
from workers.diagnosis.trajectory import export as exporting


def test_texts_that_the_disk_does_not_take_are_told_with_their_file_and_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_lines", lambda _: "x" * 1000)
    unread = None
    context = SimpleNamespace(output=tmp_path)
    with pytest.raises(HemostatError) as caught, files_of_at_most(100):
        exporting.export(unread, unread, context)
    assert caught.value.code is ErrorCode.DISK_FULL
    assert caught.value.detail == "the disk is full: texts.jsonl could not be written (File too large)"
    assert "make room below HEMOSTAT_HOME" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
