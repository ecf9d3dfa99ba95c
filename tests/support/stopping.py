"""A caller that wants what it has called to stop."""

from collections.abc import Callable


class StoppedError(Exception):
    """Raised by who is asked whether to stop."""


def stop_after(looks: int = 0) -> Callable[[], None]:
    """Lets so many looks pass, and stops at the next one."""
    left = iter(range(looks))

    def check() -> None:
        if next(left, None) is None:
            raise StoppedError

    return check
