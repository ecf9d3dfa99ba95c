"""JSON from strangers: what it would become is counted in its bytes, before anything is built of it."""

from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Final

from pydantic_core import from_json

MAX_DEPTH: Final = 64
MAX_COMMAS: Final = 1_000_000
_PIECE: Final = 1 << 18
_TEXT: Final = bytes(set(range(256)) - set(b'"[]{},:'))
_LEVEL: Final = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


class JsonError(ValueError):
    """Bytes that are no JSON, or JSON beyond a limit; the text says why."""


def parse(raw: bytes, most: int) -> tuple[Any, int]:
    """(value, names of all its objects, repeated ones counted each time). Numbers may be NaN or infinite.

    Raises JsonError, also for what `counted` refuses.
    """
    names = counted(raw, most)
    try:
        return from_json(raw), names
    except ValueError as error:
        raise JsonError(str(error)) from None


def counted(raw: bytes, most: int) -> int:
    """How many names the objects have, repeated ones counted each time.

    `most` bounds brackets, braces, colons and quotes together, those within strings not counted: a list costs two, a
    short text two, a field of an object three. Raises JsonError beyond it, beyond 64 levels and a million commas.
    """
    names = commas = marks = level = 0
    for piece in _structure(raw):
        names += piece.count(b":")
        commas += piece.count(b",")
        marks += len(piece) - piece.count(b",")
        if marks > most or commas > MAX_COMMAS:
            raise JsonError("it has too many values")
        steps = map(_LEVEL.__getitem__, piece.translate(None, b'",:'))
        levels = list(accumulate(steps, initial=level))
        level = levels[-1]
        if max(levels) > MAX_DEPTH:
            raise JsonError(f"it is nested deeper than {MAX_DEPTH} levels")
    return names


def _structure(raw: bytes) -> Iterator[bytes]:
    """The characters `"[]{},:` of each piece, without those in strings."""
    inside, carried = 0, b""
    for start in range(0, len(raw), _PIECE):
        piece = (carried + raw[start : start + _PIECE]).replace(b"\\\\", b"")
        carried = b"\\" if piece.endswith(b"\\") else b""
        parts = piece.removesuffix(b"\\").replace(b'\\"', b"").translate(None, _TEXT).split(b'"')
        yield b"".join(parts[inside::2]) + b'"' * (len(parts) - 1)
        inside ^= len(parts) % 2 == 0
