"""Paths that a request names, held below a folder of the operator's."""

from contextlib import suppress
from pathlib import Path, PurePosixPath

from app.contracts.errors import ErrorCode, HemostatError


def below(root: Path, relative: str, *, pointer: str = "") -> Path:
    """The real path of `relative` below `root` ("." is the root itself), links resolved; it need not exist.

    A link may stand anywhere below the root as long as it leads to a place below the root. Raises
    `HemostatError(PATH_FORBIDDEN)`, with `pointer`, for an empty or absolute path, `..`, NUL, a backslash, and
    text that no file name can hold. A link that leads outside is refused too. The answer shows nothing about what
    exists outside.
    """
    parts = PurePosixPath(relative).parts
    if not relative or "\0" in relative or "\\" in relative or relative.startswith(("/", "~")) or ".." in parts:
        raise _forbidden(relative, pointer)
    real_root = root.resolve()
    try:
        path = real_root.joinpath(*parts).resolve()
        with suppress(FileNotFoundError, NotADirectoryError):
            path.lstat()
    except (OSError, RuntimeError, ValueError):  # a loop of links, a name too long, a lone surrogate
        raise _forbidden(relative, pointer) from None
    if path != real_root and real_root not in path.parents:
        raise _forbidden(relative, pointer)
    return path


def _forbidden(relative: str, pointer: str) -> HemostatError:
    return HemostatError(
        ErrorCode.PATH_FORBIDDEN,
        f"the path {relative!r} leads out of the allowed folder",
        hint="give a path relative to that folder, without '..' and without links out of it",
        pointer=pointer,
    )
