import pytest

from tests.support.copies import copier


@pytest.fixture
def copy(tiny, tmp_path):
    """A tiny checkpoint of one's own, to be broken."""
    return copier(tiny, tmp_path)
