"""Token classes, and the features of rows."""

import math

import pytest
import torch

from workers.calibrators.features import CLASSES, PLAIN, class_of, class_table, features


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (" the", "word"),
        ("\nIf", "word"),
        ("ing", "part of a word"),
        ("É", "part of a word"),
        ("汉", "part of a word"),
        (" 12", "number"),
        ("7", "number"),
        (",", "punctuation"),
        (" +=", "punctuation"),
        ("\n\n", "white space"),
        (" ", "white space"),
        ("", "other"),
        ("\ufffd", "other"),
    ],
)
def test_class_of_a_token(text: str, name: str) -> None:
    assert CLASSES[class_of(text)] == name


def test_control_tokens_have_a_class_of_their_own() -> None:
    table = class_table([" the", "<|end|>"], frozenset({1}))
    assert table.dtype == torch.int8
    assert [CLASSES[index] for index in table.tolist()] == ["word", "special"]


def test_features_of_rows() -> None:
    table = torch.tensor([1, 4], dtype=torch.int8)
    made = features(
        torch.tensor([0.5, 2.0, 1.0]), torch.tensor([1, 7, 100]), torch.tensor([1, 0, 99]), table, len(CLASSES)
    )
    assert made.shape == (3, PLAIN + len(CLASSES))
    assert made[:, 0].tolist() == [1, 1, 1]
    torch.testing.assert_close(made[:, 1], torch.tensor([math.log(2) / 8, math.log(8) / 8, math.log(101) / 8]))
    assert made[:, 2].tolist() == [0.5, 2.0, 1.0]
    # A token beyond the table is of no known class.
    assert made[:, PLAIN:].argmax(1).tolist() == [4, 1, 0]
    assert made[:, PLAIN:].sum(1).tolist() == [1, 1, 1]
