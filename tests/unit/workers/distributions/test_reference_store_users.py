"""States go with the last job that used them: after a crash, beside another process, and while they are read."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from app.jobs.states import drop_states, users
from app.locks import try_lock
from tests.support.reference_stores import HUGE, assert_holds, fill, lose
from workers.distributions.reference_store import ReferenceStore


def test_states_go_with_the_last_job_that_wrote_or_read_them(store: ReferenceStore) -> None:
    first, second = (ReferenceStore(store.root, HUGE, user=job) for job in ("first", "second"))
    fill(first, "shared")
    fill(first, "own")
    lose(first, "half", 2)
    stored = second.open("shared")
    assert_holds(stored)
    stored.close()
    drop_states(store.root, "first")
    assert [store.folder(key).exists() for key in ("shared", "own", "half")] == [True, False, False]
    assert_holds(store.open("shared"))
    drop_states(store.root, "second")
    assert not store.folder("shared").exists()
    drop_states(store.root, "unknown")


def test_states_are_found_again_by_who_removes_them_after_a_crash(
    store: ReferenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = ReferenceStore(store.root, HUGE, user="job")
    fill(user, "one")
    fill(user, "other")

    class Killed(BaseException):
        """What comes after a kill does not happen."""

    def killed(*_: object, **__: object) -> None:
        raise Killed

    for name in ("remove_states", "shutil.rmtree"):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(f"app.jobs.states.{name}", killed)
            drop_states(store.root, "job")
    drop_states(store.root, "job")
    assert not any(store.folder(key).exists() for key in ("one", "other"))
    assert not any((store.root / ".users").iterdir())


def test_what_two_jobs_used_that_are_deleted_at_one_time_is_removed_by_a_later_call(
    store: ReferenceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = ("first", "second")
    for job in jobs:
        fill(ReferenceStore(store.root, HUGE, user=job), "key")
    both, unlink = threading.Barrier(2, timeout=0.5), Path.unlink

    def meet(path: Path, missing_ok: bool = False) -> None:
        if path.parent.name in jobs:
            with contextlib.suppress(threading.BrokenBarrierError):
                both.wait()
        unlink(path, missing_ok)

    with monkeypatch.context() as patch, ThreadPoolExecutor() as pool:
        patch.setattr(Path, "unlink", meet)
        list(pool.map(partial(drop_states, store.root), jobs))
    for job in jobs:
        drop_states(store.root, job)
    assert not store.folder("key").exists()


def test_nobody_waits_for_a_process_that_hangs_while_it_removes_states(store: ReferenceStore) -> None:
    fill(ReferenceStore(store.root, HUGE, user="job"), "key")
    hangs = try_lock(store.root / ".locks" / ".users", exclusive=True)
    drop_states(store.root, "job")
    assert store.folder("key").exists()
    hangs.release()
    drop_states(store.root, "job")
    assert not store.folder("key").exists()


def test_states_that_are_read_at_this_moment_stay_until_a_later_call(store: ReferenceStore) -> None:
    fill(ReferenceStore(store.root, HUGE, user="job"), "key")
    reader = store.open("key")
    drop_states(store.root, "job")
    assert_holds(reader)
    assert store.folder("key").exists()
    reader.close()
    drop_states(store.root, "job")
    assert not store.folder("key").exists()
    assert users(store.root) == []
