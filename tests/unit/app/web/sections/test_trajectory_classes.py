"""The kinds of generated token on the page: what is shown, the order of rows, and what is only told of some reports."""

from typing import Any

import pytest

from app.kinds.trajectory.report import TrajectoryReport
from app.reports.blocks import Table
from app.web import format as fmt
from app.web.report import render
from app.web.sections.trajectory_classes import distances_by_kind, kinds, sentences
from tests.support.trajectory_reports import trajectory_variants

VARIANTS = trajectory_variants()
Json = dict[str, Any]


def of(name: str) -> TrajectoryReport:
    return TrajectoryReport.model_validate(VARIANTS[name])


def changed(name: str, **by_class: dict[str, Json]) -> TrajectoryReport:
    """The first cell's classes of a side with other fields, by their names."""
    report: Json = VARIANTS[name]
    cell = report["cells"][0]
    sides = dict(cell["by_class"])
    for side, fields in by_class.items():
        rows = sides[side]["classes"] if side == "first_divergence" else sides[side]
        rows = [one | {"p_value": None} | fields.get(one["name"], {}) for one in rows]
        sides[side] = sides[side] | {"classes": rows} if side == "first_divergence" else rows
    first = cell | {"by_class": sides}
    return TrajectoryReport.model_validate(report | {"cells": [first, *report["cells"][1:]]})


def column(table: Table, label: str) -> list[str]:
    (place,) = [number for number, one in enumerate(table.columns) if one.label == label]
    return [row[place].text for row in table.rows]


def test_every_class_of_the_first_decoder_has_a_row_in_both_tables() -> None:
    report = of("one")
    found, by_class = kinds(report), report.cells[0].by_class
    assert len(found.breaking.rows) == len(by_class.first_divergence.classes)
    assert len(found.kl.rows) == len(by_class.candidate_text)
    assert column(found.breaking, "Kind")[-1] == column(found.kl, "Kind")[-1] == "In no class"
    own = [one.kl.mean or 0 for one in by_class.candidate_text if one.name != "none"]
    shown = [fmt.estimate(mean, None).value for mean in sorted(own, reverse=True)]
    ours = column(found.kl, "On its own text, nats")[:-1]
    assert [float(text) for text in ours] == pytest.approx([float(text) for text in shown], rel=0.1)


def test_candidates_are_told_apart_by_their_letters() -> None:
    found = kinds(of("four"))
    names = column(found.breaking, "Kind")
    assert {name[:4] for name in names} == {"A · ", "B · ", "C · ", "D · "}


def test_what_is_shown_is_said_and_nothing_else() -> None:
    more = {"p_value": 0.01, "share_by_place": 0.0}
    less = {"p_value": 0.03, "share_by_place": 1.0}
    gap = {"mean": 0.5, "ci": [0.1, 0.9], "clusters": "documents"}
    report = changed(
        "one",
        first_divergence={"punctuation": more, "names": less, "rare": {"p_value": 0.06, "share_by_place": 0.0}},
        reference_text={"numbers": {"p_value": 0.2, "difference": gap}},
        candidate_text={"numbers": {"p_value": 0.02, "difference": gap}},
    )
    parting, kl = sentences(report)
    assert parting == (
        "With greedy, texts after 32 of 32 prompts part at a token of the reference’s, more often at punctuation, less "
        "often at names, than the places alone would have it."
    )
    assert kl == (
        "On the reference’s text KL is not shown to differ between kinds. "
        "On the candidate’s own text KL is larger at numbers, each against all other tokens."
    )
    none = changed("one", first_divergence={})
    assert "32 of 32 prompts part at a token of the reference’s, not shown to do so more" in sentences(none)[0]


def parted(count: int) -> TrajectoryReport:
    report: Json = VARIANTS["one"]
    cell = report["cells"][0]
    first = cell["by_class"]["first_divergence"] | {"parted": count}
    return TrajectoryReport.model_validate(
        report | {"cells": [cell | {"by_class": cell["by_class"] | {"first_divergence": first}}, *report["cells"][1:]]}
    )


def test_of_texts_too_few_for_any_p_value_nothing_is_said_to_be_looked_for() -> None:
    """Of four places the least two-sided p value is 2/24, of five 2/120."""
    few = "part at a token of the reference’s, too few to tell one kind of token from another."
    assert sentences(parted(1))[0] == f"With greedy, texts after 1 of 32 prompts {few}"
    assert sentences(parted(4))[0].endswith(few)
    assert "not shown to do so more" in sentences(parted(5))[0]
    _, kl = sentences(changed("one", reference_text={}, candidate_text={"numbers": {"p_value": 1.0}}))
    assert kl == (
        "On the reference’s text no kind of token can be judged: it, or all others, stands after one prompt at most. "
        "On the candidate’s own text KL is not shown to differ between kinds."
    )


def test_the_sentences_say_which_of_several_candidates_they_are_of() -> None:
    parting, kl = sentences(of("four"))
    assert parting.startswith("With greedy, candidate A, texts after 32 of 32 prompts")
    assert kl.startswith("On the reference’s text KL of candidate A is ")
    assert ". On candidate A’s own text KL is " in kl


def test_texts_that_never_part_are_said_to_be_the_same() -> None:
    parting, kl = sentences(of("same"))
    assert parting == "With greedy, no texts part at a token of the reference’s."
    assert kl.count("not shown to differ between kinds") == 2


def test_every_decoder_has_a_row_a_kind_a_column() -> None:
    report = of("one")
    found = kinds(report)
    for table in found.others:
        assert len(table.rows) == len(report.cells)
        assert table.columns[-1].label == "In no class"
    number = report.cells[3].by_class.candidate_text[0]
    assert found.others[3].rows[3][1].text == fmt.estimate(number.kl.mean, number.kl.ci).value


def test_distances_after_a_cut_are_told_by_kind() -> None:
    report = of("one")
    tables = distances_by_kind(report)
    assert [len(table.rows) for table in tables] == [len(report.distances)] * 4
    page = render(VARIANTS["one"])
    assert all(table.caption in page for table in tables)
    assert distances_by_kind(of("no-text")) == ()


@pytest.mark.parametrize("name", VARIANTS)
def test_the_page_says_what_each_class_is_and_what_is_not_known(name: str) -> None:
    page = render(VARIANTS[name])
    report = of(name)
    assert report.token_classes.rule in page
    assert report.token_classes.classes[0].definition in page
    assert "Not in these texts: JSON structure" in page
