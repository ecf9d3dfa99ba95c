from functools import cache

import pytest

from tests.support.copies import copier


@pytest.fixture
def copy(tiny, tmp_path):
    """A tiny checkpoint of one's own, to be broken."""
    return copier(tiny, tmp_path)


@pytest.fixture
def store(tmp_path):
    from workers.surgery.store import CheckpointStore

    return CheckpointStore(tmp_path / "store", 10**9)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A store that the tests of a module share: what one of them made, the others find."""
    from workers.surgery.store import CheckpointStore

    return CheckpointStore(tmp_path_factory.mktemp("shared"), 10**9)


@pytest.fixture(scope="session")
def outliers(tmp_path_factory):
    """`outliers(kind, **options)`: folder of a tiny checkpoint with outlier channels, made once a session."""
    from tests.support.outliers import with_outliers
    from tests.support.tiny import make_checkpoint

    return cache(
        lambda kind="llama", **options: with_outliers(
            make_checkpoint(tmp_path_factory.mktemp("outliers") / kind, kind, **options)
        )
    )
