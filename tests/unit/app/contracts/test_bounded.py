"""What JSON would become is counted in its bytes, as a parser would count it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.contracts import bounded
from app.contracts.bounded import MAX_DEPTH, JsonError, counted, parse

TEXT = st.text(alphabet='ab"\\/[]{},:\n\0é😀', max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


def marks(value):
    """Brackets, braces, colons and quotes, of a value that was parsed."""
    if isinstance(value, str):
        return 2
    if isinstance(value, list):
        return 2 + sum(map(marks, value))
    return 2 + sum(3 + marks(inner) for inner in value.values()) if isinstance(value, dict) else 0


def names(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return (len(value) if isinstance(value, dict) else 0) + sum(map(names, inner))


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1 << 18])
@given(VALUES, st.booleans())
def test_values_are_counted_across_pieces_and_escapes(piece, value, ascii_only):
    raw = json.dumps(value, ensure_ascii=ascii_only).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bounded, "_PIECE", piece)
        assert parse(raw, marks(value)) == (value, names(value))
        if marks(value):
            with pytest.raises(JsonError, match="too many values"):
                parse(raw, marks(value) - 1)


def test_a_name_that_comes_twice_is_counted_twice():
    assert parse(b'{"a": 1, "a": 2}', 100) == ({"a": 2}, 2)


def test_depth_is_bounded():
    assert counted(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, 1000) == 0
    with pytest.raises(JsonError, match="nested deeper"):
        counted(b"[" * (MAX_DEPTH + 1), 1000)
    counted(b'["' + b"[" * 5000 + b'"]', 10)  # a text


@pytest.mark.parametrize("raw", [b"[" + b"0," * 1_000_001 + b"0]", b"]" * 1001, b'"' * 1001, b"{}" * 501])
def test_what_is_no_json_is_bounded_as_well(raw):
    with pytest.raises(JsonError, match="too many values"):
        counted(raw, 1000)


@pytest.mark.parametrize("raw", [b"", b"{", b"{} {}", b"\xff", b'"\\ud800"', b"1" * 5000, '"a"'.encode("utf-16")])
def test_what_is_no_json_is_refused(raw):
    with pytest.raises(JsonError):
        parse(raw, 1000)
