"""The kinds of token on a page and in a terminal."""

import copy
import io

import pytest
from rich.console import Console

from app.contracts.report import BandedSlice, Mean
from app.kinds.compare.report import CompareReport
from app.web import format as fmt
from app.web.report import render
from app.web.sections.classes import NONE, adjusted_over, band_label, classes, sentence
from app.web.terminal import render_terminal
from tests.support.html import tree
from tests.support.reports import compare_report

REPORT = compare_report()


def parsed(report: dict[str, object]) -> CompareReport:
    return CompareReport.model_validate(report)


def test_classes_stand_the_most_damaged_first_with_their_difference() -> None:
    section = tree(render(REPORT)).one(id_="classes")
    table = section.one("table")
    names = [row.one("th").text.strip() for row in table.one("tbody").all("tr")]
    assert names[0].startswith("Tool names")
    assert names[-1].startswith("Punctuation")
    assert "p < 0.001" in section.text
    assert "p = 0.012" in section.text
    assert "Not in this text: Code, Other languages." in section.text
    assert "Occurrences of the predicted token's id" in section.text
    folded = [table for fold in section.all("details") for table in fold.all("table")]
    assert len(list(section.all("table"))) == 2 + len(folded)


def test_every_metric_of_a_class_is_a_fold_away_and_the_open_table_stays_narrow() -> None:
    section = tree(render(REPORT)).one(id_="classes")
    opened = section.one("table")
    assert len(list(opened.one("thead").all("th"))) <= 9
    folds = [fold for fold in section.all("details") if list(fold.all("table"))]
    assert [fold.one("summary").text.strip() for fold in folds] == ["Every other metric by kind and by frequency"]
    lost, ranked, *_ = folds[0].all("table")
    one = next(one for one in REPORT["token_classes"]["classes"] if one["name"] == "tool_name")
    for table, values in (
        (lost, [one["reverse_kl"], one["js"], one["tv"], one["divergence"]["kl"]["p99"], one["delta_p"]]),
        (ranked, [one["agreement"]["expected_rank"], one["entropy"]["reference"], one["entropy"]["candidate"]]),
    ):
        row = table.one("tbody").one("tr").text
        assert row.strip().startswith("Tool names")
        for value in values:
            shown = fmt.estimate(value["mean"], value["ci"]).value if isinstance(value, dict) else fmt.number(value)
            assert shown in row


def test_a_report_from_before_classes_had_every_metric_has_no_fold_for_them() -> None:
    old = copy.deepcopy(REPORT)
    blocks = ("divergence", "delta_p", "perplexity", "agreement", "entropy")
    parts = [*old["token_classes"]["classes"], *old["token_classes"]["by_frequency"]]
    for part in [*parts, *old["by_position"], *old["by_confidence"]]:
        for block in blocks:
            del part[block]
    for domain in old["domains"].values():
        for block in ("delta_p", "agreement", "entropy"):
            del domain[block]
    page = render(old)
    assert "Every other metric" not in page
    assert len(list(tree(page).one(id_="classes").all("table"))) == 2
    printed = io.StringIO()
    render_terminal(old, Console(file=printed, width=120))
    assert "By kind of token" in printed.getvalue()
    assert "By kind of token, means" not in printed.getvalue()


def test_the_sentence_names_what_chance_does_not_explain() -> None:
    found = parsed(REPORT).token_classes
    assert found is not None
    assert sentence(found.classes) == (
        "More is lost in tool names. Less is lost in punctuation, each against all other tokens."
    )
    three = (*found.classes, found.classes[1].model_copy(update={"title": "Code", "p_value": 0.001}))
    assert " and " in sentence(three)
    unsure = tuple(one.model_copy(update={"p_value": 0.2}) for one in found.classes)
    assert sentence(unsure).startswith("No kind of token is shown")
    json_one = found.classes[0].model_copy(update={"p_value": 0.01, "title": "JSON structure"})
    assert "in JSON structure" in sentence((json_one,))


def test_shares_are_of_the_whole_text_since_classes_overlap() -> None:
    report = parsed(REPORT)
    assert report.token_classes is not None
    found = classes(report)
    assert found is not None
    numbers = next(row for row in found.kinds.rows if row[0].text == "Numbers")
    share = next(one.share for one in report.token_classes.classes if one.name == "numbers")
    assert f"{100 * share:.2g}" in [cell.text for cell in numbers]
    one = next(one for one in report.token_classes.classes if one.name == "numbers")
    of_kl = fmt.estimate(one.share_of_kl, one.share_of_kl_ci, percent=True)
    assert (of_kl.value, of_kl.interval) in [(cell.text, cell.note) for cell in numbers]


def test_a_class_of_one_document_has_no_interval_and_says_so() -> None:
    report = parsed(REPORT)
    assert report.token_classes is not None
    first, *others = report.token_classes.classes
    assert first.difference is not None
    alone = first.model_copy(update={"difference": Mean(mean=first.difference.mean, ci=None), "p_value": None})
    found = classes(
        report.model_copy(
            update={"token_classes": report.token_classes.model_copy(update={"classes": (alone, *others)})}
        )
    )
    assert found is not None
    assert "in one document" in next(row for row in found.kinds.rows if row[0].text == alone.title)[-1].note
    assert adjusted_over((alone, *others)) == (
        "p values are adjusted over 2 classes (Holm). None for numbers: either side stands in at most one document (or "
        "window)."
    )
    assert adjusted_over((alone,)).startswith("None for numbers")


def test_an_older_report_has_no_section() -> None:
    old = copy.deepcopy(REPORT)
    del old["token_classes"]
    assert classes(parsed(old)) is None
    page = render(old)
    assert "#classes" not in page
    assert 'id="classes"' not in page


def test_what_is_in_no_class_has_a_row_without_a_difference() -> None:
    report = copy.deepcopy(REPORT)
    band = report["by_confidence"][0]
    report["token_classes"]["none"] = {key: value for key, value in band.items() if key not in {"low", "high", "share"}}
    found = classes(parsed(report))
    assert found is not None
    assert found.kinds.rows[-1][0].text == NONE
    assert found.kinds.rows[-1][-1].text == "–"


@pytest.mark.parametrize(
    ("low", "high", "label"), [(1, 2, "once"), (2, 4, "2 to 3"), (3, 4, "3"), (256, 1025, "256 to 1,024")]
)
def test_bands_read_as_occurrences(low: float, high: float, label: str) -> None:
    band = BandedSlice.model_construct(low=low, high=high)
    assert band_label(band).replace("\u00a0", " ") == label


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_has_the_table(width: int) -> None:
    printed = io.StringIO()
    render_terminal(REPORT, Console(file=printed, width=width))
    assert "By kind of token" in printed.getvalue()
    assert "adjusted over 3" in " ".join(printed.getvalue().split())
    assert max(map(len, printed.getvalue().splitlines())) <= width
    rank = REPORT["token_classes"]["classes"][0]["agreement"]["expected_rank"]["mean"]
    lines = printed.getvalue().partition("By kind of token, means")[2].splitlines()
    # More metrics need room: a narrow terminal keeps to the one table.
    assert any(fmt.number(rank) in line.split() for line in lines) == (width == 120)
