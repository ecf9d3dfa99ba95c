import errno
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from app.contracts.errors import ErrorCode, HemostatError
from tests.support.copies import edit_json
from tests.support.disk import files_of_at_most
from tests.support.stopping import Stop, StoppedError
from workers.surgery.store import RECORD, CheckpointStore, raising_disk_full


def key(number):
    return f"{number:064x}"


def writes(size, calls=None):
    def build(folder):
        if calls is not None:
            calls.append(folder)
        (folder / "model.safetensors").write_bytes(b"x" * size)
        (folder / "config.json").write_text("{}")

    return build


def leftovers(store):
    return sorted(path.name for path in store.root.iterdir() if path.name.startswith(".staging"))


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path / "store", 10_000)


def test_an_entry_is_made_once(store):
    calls = []
    with store.get_or_build(key(1), writes(100, calls)) as first:
        assert first.built
        assert first.path == store.root / key(1)
        assert sorted(file.name for file in first.path.iterdir()) == ["config.json", RECORD, "model.safetensors"]
        assert first.bytes == 102
    with store.get_or_build(key(1), writes(100, calls)) as second:
        assert not second.built
    with store.get(key(1)) or pytest.fail() as third:
        assert third.path == first.path
    assert len(calls) == 1
    assert not calls[0].exists()
    assert leftovers(store) == []


def test_nothing_is_seen_before_a_build_is_complete(store):
    seen = []

    def build(folder):
        writes(10)(folder)
        seen.append(store.get(key(1)))
        seen.append((store.root / key(1)).exists())

    store.get_or_build(key(1), build).release()
    assert seen == [None, False]


def test_nothing_stays_of_a_build_that_fails(store):
    def build(folder):
        writes(10)(folder)
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        store.get_or_build(key(1), build)
    assert [path.name for path in store.root.rglob("*")] == [".locks"]
    store.get_or_build(key(1), writes(10)).release()
    assert store.keys == (key(1),)


# ---- eviction


def use(store, number, size=3_000):
    store.get_or_build(key(number), writes(size)).release()


def test_the_least_recently_used_goes_first(store):
    for number in (1, 2, 3):
        use(store, number)
    use(store, 1)
    assert store.keys == (key(2), key(3), key(1))
    use(store, 4)
    assert store.keys == (key(3), key(1), key(4))
    assert store.bytes <= store.budget_bytes


def test_what_is_pinned_stays(store):
    pinned = store.get_or_build(key(1), writes(3_000))
    for number in (2, 3, 4, 5):
        use(store, number)
    assert key(1) in store.keys
    assert (pinned.path / "model.safetensors").stat().st_size == 3_000
    pinned.release()
    pinned.release()
    use(store, 6, 9_000)
    assert store.keys == (key(6),)


def test_room_is_made_before_a_build(store):
    for number in (1, 2, 3):
        use(store, number)
    during = []

    def build(folder):
        during.append(store.keys)
        writes(6_000)(folder)

    store.get_or_build(key(4), build, expected_bytes=6_500).release()
    assert during == [(key(3),)]
    assert store.keys == (key(3), key(4))


def test_what_was_used_last_stays_however_large_until_the_next_is_made(store):
    """A model that is larger than the budget would else be made again for each job."""
    use(store, 1)
    use(store, 2, 50_000)
    assert store.keys == (key(2),)
    assert not store.get_or_build(key(2), writes(50_000)).built
    store.evict()
    assert store.keys == (key(2),)
    store.get_or_build(key(3), writes(1_000), expected_bytes=1_000).release()
    assert store.keys == (key(3),)


# ---- damage


DAMAGE = {
    "truncate": lambda folder: (folder / "model.safetensors").write_bytes(b"x"),
    "remove": lambda folder: (folder / "config.json").unlink(),
    "record": lambda folder: (folder / RECORD).unlink(),
    "garbage": lambda folder: (folder / RECORD).write_text("["),
    "foreign": lambda folder: edit_json(folder / RECORD, key=key(2)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_made_again(store, damage):
    use(store, 1)
    DAMAGE[damage](store.root / key(1))
    assert store.get(key(1)) is None
    with store.get_or_build(key(1), writes(3_000)) as entry:
        assert entry.built
        assert (entry.path / "model.safetensors").stat().st_size == 3_000


# ---- full disks


def test_a_full_disk_is_told_and_leaves_nothing(store):
    def build(folder):
        writes(10)(folder)
        with Path("/dev/full").open("wb") as full:
            full.write(b"x" * 100_000)

    with pytest.raises(HemostatError) as caught:
        store.get_or_build(key(1), build)
    assert caught.value.code is ErrorCode.DISK_FULL
    assert caught.value.hint
    assert [path.name for path in store.root.rglob("*")] == [".locks"]


def test_what_cannot_fit_is_refused_before_it_is_made(store):
    calls = []
    with pytest.raises(HemostatError) as caught:
        store.get_or_build(key(1), writes(10, calls), expected_bytes=10**18)
    assert caught.value.code is ErrorCode.DISK_FULL
    assert calls == []


def test_room_on_the_disk_is_made_of_what_nobody_uses_and_only_if_it_is_enough(store, monkeypatch):
    disk = 10_000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=disk - store.bytes))
    pinned = store.get_or_build(key(1), writes(3_000))
    for number in (2, 3):
        use(store, number)
    before = store.keys
    with pytest.raises(HemostatError) as caught:
        store.get_or_build(key(4), writes(10), expected_bytes=2_000, scratch_bytes=6_000)
    assert "0.0 GiB free" in caught.value.detail
    assert store.keys == before
    store.get_or_build(key(4), writes(2_000), expected_bytes=1_000, scratch_bytes=2_900).release()
    assert store.keys == (key(1), key(3), key(4)), "working files are of the disk, not of the budget"
    pinned.release()


def test_other_errors_of_the_system_stay_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError), raising_disk_full(tmp_path):
        (tmp_path / "none").read_text()
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        with pytest.raises(HemostatError), raising_disk_full(tmp_path):
            raise OSError(code, "full")


def test_a_full_disk_is_told_in_the_library_s_words_too(tmp_path):
    tensors = {"t": torch.zeros(10_000)}
    with pytest.raises(HemostatError) as caught, raising_disk_full(tmp_path), files_of_at_most(5_000):
        save_file(tensors, tmp_path / "full.safetensors")
    assert caught.value.code is ErrorCode.DISK_FULL
    (tmp_path / "damaged.safetensors").write_bytes(b"0" * 100)
    with pytest.raises(SafetensorError), raising_disk_full(tmp_path):
        load_file(tmp_path / "damaged.safetensors")


# ---- together with others


def test_two_at_once_build_once(store):
    calls = []

    def slow(folder):
        writes(10, calls)(folder)
        time.sleep(0.2)

    found = []

    def ask():
        with CheckpointStore(store.root, 10_000).get_or_build(key(1), slow) as entry:
            found.append(entry.built)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert sorted(found) == [False, False, False, True]


def test_who_waits_can_be_cancelled(store):
    started, finish = threading.Event(), threading.Event()

    def slow(folder):
        writes(10)(folder)
        started.set()
        finish.wait(60)

    thread = threading.Thread(target=lambda: store.get_or_build(key(1), slow).release())
    thread.start()
    assert started.wait(60)

    try:
        with pytest.raises(StoppedError):
            store.get_or_build(key(1), writes(10), check_cancelled=Stop(1))
    finally:
        finish.set()
        thread.join()
    assert store.keys == (key(1),)
