"""Options of `hemostat attribute` that are text."""

import pytest

from app.commands.shapes import parse_layers
from app.contracts.errors import ErrorCode, HemostatError


@pytest.mark.parametrize(
    ("text", "expected"), [("3", [3]), ("0+2", [0, 2]), ("4-6", [4, 5, 6]), ("0+4-5", [0, 4, 5]), ("7-7", [7])]
)
def test_layers_are_listed(text, expected):
    assert parse_layers(text) == expected


@pytest.mark.parametrize("text", ["", "x", "1-", "-1", "6-4", "1++2", "²", "0-99999999999", "0-10000", "1" * 5000])
def test_what_is_no_list_of_layers_is_refused(text):
    with pytest.raises(HemostatError) as refused:
        parse_layers(text)
    assert (refused.value.code, refused.value.pointer) == (ErrorCode.INVALID_REQUEST, "/layers")
    assert len(refused.value.detail) < 200


def test_a_range_that_runs_backwards_is_told_as_one():
    with pytest.raises(HemostatError, match="'5-2', a range that runs backwards") as refused:
        parse_layers("0+5-2")
    assert refused.value.hint == "write 2-5"
