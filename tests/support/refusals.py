"""What a test expects of a refusal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from app.contracts.errors import ErrorCode, HemostatError


@contextmanager
def refused(
    code: ErrorCode, pointer: str | None = None, *, match: str | None = None
) -> Iterator[pytest.ExceptionInfo[HemostatError]]:
    """The block raises a HemostatError of this code; its pointer and its detail are looked at if they are given."""
    with pytest.raises(HemostatError, match=match) as caught:
        yield caught
    assert caught.value.code is code
    if pointer is not None:
        assert caught.value.pointer == pointer


def refusal_of(call: Callable[..., Any], *arguments: Any, **options: Any) -> HemostatError:
    """The error with which a call is refused."""
    with pytest.raises(HemostatError) as caught:
        call(*arguments, **options)
    return caught.value
