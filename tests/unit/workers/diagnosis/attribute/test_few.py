"""What is warned of where a text has too few documents, or windows."""

import pytest

from workers.diagnosis.attribute.few import too_few


@pytest.mark.parametrize(
    ("windows", "documents", "told"),
    [
        (6, 6, []),
        (8, 5, ["Parts were swapped on 500 tokens of 5 documents, fewer than six: their intervals are clustered by"]),
        (2, 2, ["Parts were swapped on 500 tokens of 2 documents, in 2 windows: fewer than six of either, so that no"]),
        (1, 1, ["Parts were swapped on 500 tokens of 1 document, in 1 window: fewer than six of either, so that no"]),
    ],
)
def test_what_few_documents_and_few_windows_mean_is_told(windows: int, documents: int, told: list[str]) -> None:
    found = too_few(500, windows, documents, swapped=True)
    assert len(found) == len(told)
    assert all(one.startswith(start) for one, start in zip(found, told, strict=True))


def test_of_gaps_nothing_was_swapped() -> None:
    (told,) = too_few(1, 1, 1, swapped=False)
    assert told.startswith("Gaps were measured on 1 token of 1 document, in 1 window")
    assert "swapped" not in told
