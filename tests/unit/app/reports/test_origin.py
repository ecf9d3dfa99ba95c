"""Where a report's numbers come from, in words."""

from typing import Any

import pytest

from app.reports.origin import origin, scored_text
from app.reports.reading import parse
from tests.support.calibration_reports import calibrate_report
from tests.support.reports import compare_report


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"source": "shipped", "documents": 8}, "shipped:8"),
        ({"source": "shipped", "corpus": "classes"}, "classes"),
        ({"source": "hub", "dataset": "a/b", "split": "train"}, "hub:a/b, split train"),
        ({"source": "inline"}, "inline"),  # a report is shared without its documents
    ],
)
def test_a_text_is_named_as_lists_of_jobs_name_it(source: dict[str, Any], said: str) -> None:
    report = parse(compare_report(text=source))
    assert scored_text(report) == said
    assert origin(report).head[0].value == said


@pytest.mark.parametrize(
    ("file_bytes", "told"),
    [
        (None, "65.0 MiB (68,200,000 bytes)"),  # not counted
        (68_200_000, "65.0 MiB (68,200,000 bytes)"),
        (68_230_600, "65.0 MiB (68,200,000 bytes)"),  # the tensors, and the headers of their files
        (269_060_552, "65.0 MiB (68,200,000 bytes); served from weight files of 257 MiB (269,060,552 bytes)"),
    ],
)
def test_what_the_weight_files_take_is_told_where_the_size_is_another(file_bytes: int | None, told: str) -> None:
    report = compare_report()
    report["provenance"]["candidate"] |= {"bytes": 68_200_000, "file_bytes": file_bytes}
    (size,) = (row for row in origin(parse(report)).models.rows if row[0].text == "Size")
    assert size[2].text == told


@pytest.mark.parametrize(
    ("sparsity", "asked", "told"),
    [
        (None, None, "–"),  # nothing was changed
        (0.1325, None, "13.2 % of the changed weights"),  # small weights that were rounded to 0
        (0.5123, 0.5, "51.2 % of the changed weights; 50.0 % asked for"),
    ],
)
def test_zeros_are_told_beside_those_that_pruning_asked_for(
    sparsity: float | None, asked: float | None, told: str
) -> None:
    report = compare_report()
    report["provenance"]["candidate"] |= {"sparsity": sparsity, "nominal_sparsity": asked}
    (zeros,) = (row for row in origin(parse(report)).models.rows if row[0].text == "Zeros")
    assert [cell.text for cell in zeros[1:]] == ["–", told]


def test_where_the_class_is_of_another_text_both_are_named() -> None:
    report = calibrate_report()
    report["request"] |= {"text": {"source": "shipped", "corpus": "calibration"}, "test_text": None}
    assert scored_text(parse(report)) == "calibration → shipped"
