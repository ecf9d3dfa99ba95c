"""Texts on disk: kept one by one, found again, and never mixed with another plan's."""

from workers.decoding.model import Continuation
from workers.diagnosis.trajectory.texts import Texts

TEXT = Continuation((3, 1, 4), ended=True)


def test_what_was_kept_is_found_again(tmp_path):
    Texts.open(tmp_path / "t", "plan").keep(2, TEXT)
    assert Texts.open(tmp_path / "t", "plan").found(4) == {2: TEXT}


def test_texts_of_another_plan_go(tmp_path):
    Texts.open(tmp_path / "t", "plan").keep(2, TEXT)
    assert Texts.open(tmp_path / "t", "other").found(4) == {}
    assert Texts.open(tmp_path / "t", "plan").found(4) == {}


def test_a_damaged_file_counts_as_absent(tmp_path):
    texts = Texts.open(tmp_path / "t", "plan")
    texts.keep(0, TEXT)
    texts.keep(1, TEXT)
    (tmp_path / "t" / "000000.json").write_text('{"tokens": [1,')
    assert texts.found(2) == {1: TEXT}
