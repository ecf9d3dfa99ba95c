"""Bodies that are small to send and costly to read, each of the size that is asked for."""

from collections.abc import Callable
from typing import Final

_HEAD: Final = (
    b'{"kind":"compare","reference":{"model":"tiny"},"candidate":{"model":"tiny"},"self_check":true,"window":64,"x":'
)
_WIDE: Final = "\N{GRINNING FACE}".encode()


def _repeated(before: bytes, part: bytes, after: bytes) -> Callable[[int], bytes]:
    return lambda size: before + part * ((size - len(before) - len(after)) // len(part)) + after


def _keys(size: int) -> bytes:
    return b"{" + b",".join(b'"k%d":0' % number for number in range(size // 32)) + b"}"


HOSTILE: Final[dict[str, Callable[[int], bytes]]] = {
    "empty lists": _repeated(_HEAD + b"[", b"[],", b"[]]}"),
    "nested objects": _repeated(b"", b'{"a":', b""),
    "a million keys": _keys,
    "one string": _repeated(_HEAD + b'"', b"a", b'"}'),
    "one wide string": _repeated(_HEAD + b'"' + _WIDE, b"a", b'"}'),
    "one string of escapes": _repeated(_HEAD + b'"', b"\\n", b'"}'),
    "half a surrogate pair": _repeated(_HEAD + b'"\\ud800', b"\\n", b'"}'),
    "one long name": _repeated(b'{"kind":"compare","', b"a", b'":0}'),
    "brackets that close": _repeated(b"", b"]", b""),
    "quotes": _repeated(b"", b'"', b""),
    "beyond every float": lambda size: _HEAD + b"1e999}",
    "a million digits": lambda size: b'{"kind":"compare","window":' + b"1" * 1_000_000 + b"}",
    "digits": _repeated(b'{"kind":"compare","window":', b"1", b"}"),
    "lists in arguments": lambda size: (
        b'{"kind":"compare","text":{"source":"inline","documents":[{"id":"a","messages":[{"role":"assistant","tool_calls":['
        b'{"name":"f","arguments":"{\\"a\\":[' + b"[]," * ((size - 1000) // 3) + b'[]]}"}]}]}]}}'
    ),
    "wrong types": lambda size: _HEAD + b"[" + b",".join([b'{"a":0}'] * 99_000) + b"]}",
    "unknown fields": lambda size: _HEAD + b"0," + b",".join(b'"k%d":""' % number for number in range(150_000)) + b"}",
}


def honest(size: int) -> bytes:
    """A job of inline text, of nearly `size` bytes."""
    text = b'The quick brown fox, \\"so to speak\\", jumps over the lazy dog [sic]: \\n'
    document = b'{"id":"%d","text":"' + text * (size // 16 // len(text) - 1) + b'"}'
    documents = b",".join(document % number for number in range(16))
    return _HEAD.removesuffix(b'"x":') + b'"text":{"source":"inline","documents":[' + documents + b"]}}"
