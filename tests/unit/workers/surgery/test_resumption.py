import pytest
import torch

from workers.surgery import resumption
from workers.surgery.resumption import Resumption


@pytest.fixture
def at_once(monkeypatch):
    """Every offer is taken."""
    monkeypatch.setattr(resumption, "EVERY_S", 0.0)
    monkeypatch.setattr(resumption, "_REST", 0)


@pytest.mark.usefixtures("at_once")
def test_what_was_kept_last_is_found_by_its_key_alone(tmp_path):
    adam = torch.optim.Adam([torch.nn.Parameter(torch.ones(3))])
    first = Resumption(tmp_path / "new" / "folder", "a")
    assert first.load() is None
    first.offer(lambda: {"steps": 1})
    first.offer(lambda: {"steps": 2, "t": (torch.arange(3.0), None), "found": [0.5], "adam": adam.state_dict()})
    found = Resumption(tmp_path / "new" / "folder", "a").load()
    assert (found["steps"], found["found"]) == (2, [0.5])
    assert torch.equal(found["t"][0], torch.arange(3.0))
    adam.load_state_dict(found["adam"])
    assert Resumption(tmp_path / "new" / "folder", "b").load() is None
    assert list((tmp_path / "new" / "folder").iterdir()) == [tmp_path / "new" / "folder" / "a.pt"]
    first.drop()
    assert list((tmp_path / "new" / "folder").iterdir()) == []
    first.drop()


def test_it_is_not_kept_more_often_than_every_minute(tmp_path):
    kept = Resumption(tmp_path, "a")
    kept.offer(lambda: {"steps": 1})
    assert kept.load() is None
    kept._begin_at -= resumption.EVERY_S
    kept.offer(lambda: {"steps": 2})
    kept.offer(lambda: {"steps": 3})
    assert kept.load() == {"steps": 2}


@pytest.mark.usefixtures("at_once")
def test_without_a_folder_nothing_is_kept():
    kept = Resumption()
    kept.offer(lambda: {"steps": 1})
    assert kept.load() is None
    kept.drop()


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("broken", [b"", b"PK\x03\x04 no archive", b"\x80\x02}q\x00X"])
def test_a_state_that_cannot_be_read_is_none(tmp_path, broken):
    (tmp_path / "a.pt").write_bytes(broken)
    assert Resumption(tmp_path, "a").load() is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("at_once")
def test_a_cut_state_is_none(tmp_path):
    kept = Resumption(tmp_path, "a")
    kept.offer(lambda: {"t": torch.ones(1000)})
    whole = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(whole[: len(whole) // 2])
    assert kept.load() is None


@pytest.mark.usefixtures("at_once")
def test_a_state_that_is_large_for_the_disk_is_not_kept(tmp_path, monkeypatch):
    kept = Resumption(tmp_path, "a")
    kept.offer(lambda: {"steps": 1, "t": torch.ones(10)})
    monkeypatch.setattr(resumption, "SHARE_OF_FREE", 1e-15)
    kept.offer(lambda: {"steps": 2, "nested": [({"t": torch.ones(10)},)]})
    assert (kept.load() or {})["steps"] == 1
    kept.offer(lambda: {"steps": 3})
    assert (kept.load() or {})["steps"] == 3


@pytest.mark.usefixtures("at_once")
def test_a_disk_that_refuses_ends_no_training(tmp_path):
    (tmp_path / "file").write_text("a file where the folder should be")
    kept = Resumption(tmp_path / "file", "a")
    kept.offer(lambda: {"steps": 1})
    assert kept.load() is None
