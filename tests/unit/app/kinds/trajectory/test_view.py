"""What a trajectory report decides and counts: amplification, where texts part, at which kinds of token."""

import copy

import pytest

from app.kinds.trajectory import tables
from app.kinds.trajectory.classes import (
    breaking,
    kl_by_kind,
    kl_sentence,
    parting_sentence,
)
from app.kinds.trajectory.report import TrajectoryReport
from app.kinds.trajectory.view import blocks
from app.kinds.trajectory.words import median_of, sentence
from app.reports import format as fmt
from app.reports.blocks import Figures, Section
from app.reports.render import render
from tests.support.trajectory_reports import trajectory_variants

VARIANTS = trajectory_variants()


def of(data):
    return TrajectoryReport.model_validate(VARIANTS[data] if isinstance(data, str) else data)


def column(table, label):
    """Texts and small print of a column."""
    place = [one.label for one in table.columns].index(label)
    return [(row[place].text.lstrip("+"), row[place].note) for row in table.rows]


def told(means, *, percent=False):
    found = [fmt.estimate(one.mean, one.ci, percent=percent) for one in means]
    return [(one.value, one.interval or "") for one in found]


def amplified(**fields):
    """The first cell with other amplification."""
    data = copy.deepcopy(VARIANTS["one"])
    for name, value in fields.items():
        data["cells"][0]["amplification"][name] = value
    return data


def test_the_two_means_beside_a_factor_divide_to_it():
    """Texts end at different tokens: means of whole texts are over other positions than the factor."""
    data = amplified(
        kl={"value": 0.75, "ci": [0.4, 1.2]},
        kl_reference_text={"mean": 0.48, "ci": [0.4, 0.6]},
        kl_candidate_text={"mean": 0.36, "ci": [0.3, 0.5]},
    )
    for name in ("kl_reference_text", "kl_candidate_text"):
        data["cells"][0][name] |= {"mean": 0.9, "ci": [0.8, 1.0]}
    report = of(data)
    assert [cell.text for cell in tables.amplification(report).rows[0][1:4]] == ["0.48", "0.36", "0.75"]
    assert "0.75 times" in sentence(report)
    assert "0.360 against 0.480" in sentence(report)
    (figures,) = (one for one in section(report, "free").blocks if isinstance(one, Figures))
    assert figures.items[2].value == "0.36"


def test_a_factor_without_an_interval_says_so_and_texts_that_are_the_same_have_no_factor():
    bare = {"value": 1.05, "ci": None}
    report = of(amplified(kl=bare, conclusion="open"))
    assert "Too few texts part" in sentence(report)
    assert tables.amplification(report).rows[0][3].note == "no interval"
    data = amplified(kl=bare, conclusion="open")
    data["cells"][0]["first_divergence"]["diverged"]["mean"] = 0.0
    assert "times" not in sentence(of(data))
    data = amplified(kl=bare | {"value": None}, conclusion="open")
    assert "there is no factor" in sentence(of(data))
    assert tables.largest(of(data)).rows[0][0].text.startswith("greedy"), "what no ratio measures is not left out"


def test_every_severity_that_the_interval_touches_is_named():
    for classes, named in (
        (["collapse"], "is collapse."),
        (["severe", "collapse"], "is severe or collapse."),
        (["none", "mild", "moderate"], "is anything from none to moderate."),
    ):
        data = copy.deepcopy(VARIANTS["one"])
        data["decision"]["classes"] = classes
        assert sentence(of(data)).endswith(named)


def test_the_largest_factors_are_first():
    for name, most in (("one", 6), ("four", 3)):
        report = of(name)
        values = sorted((cell.amplification.kl.value or 0.0 for cell in report.cells), reverse=True)[:most]
        assert [float(text) for text, _ in column(tables.largest(report), "KL factor")] == pytest.approx(
            values, abs=0.006
        )


def test_a_median_beyond_the_end_is_above_the_last_token():
    median = median_of(of("same").cells[0])
    assert (median.text, median.note) == ("> 128", "[> 128, > 128]")


def test_without_stored_text_no_text_is_shown():
    assert of("no-text").samples == ()
    assert "The river had been high" not in render(VARIANTS["no-text"])


def section(report, name):
    (found,) = (one for one in blocks(report) if isinstance(one, Section) and one.id == name)
    return found


# Kinds of token


def changed(**by_class):
    """The first cell's classes of a side with other fields, by their names."""
    data = copy.deepcopy(VARIANTS["one"])
    sides = data["token_classes"]["by_candidate"][0]
    for side, fields in by_class.items():
        for one in sides[side]["classes"] if side == "first_divergence" else sides[side]:
            one.update({"p_value": None} | fields.get(one["name"], {}))
    return of(data)


def test_every_class_of_the_first_decoder_has_a_row_the_largest_first():
    report = of("one")
    by_class = report.token_classes.by_candidate[0]
    parts, kl = breaking(report), kl_by_kind(report)
    assert len(parts.rows) == len(by_class.first_divergence.classes)
    assert parts.rows[-1][0].text == kl.rows[-1][0].text == "In no class"
    named = [one for one in by_class.candidate_text if one.name != "none"]
    named.sort(key=lambda one: -(one.kl.mean or 0.0))
    assert column(kl, "On its own text, nats")[:-1] == told(one.kl for one in named)


def test_only_what_is_shown_is_named():
    gap = {"mean": 0.5, "ci": [0.1, 0.9], "clusters": "documents"}
    report = changed(
        first_divergence={
            "punctuation": {"p_value": 0.01, "share_by_place": 0.0},
            "names": {"p_value": 0.03, "share_by_place": 1.0},
            "rare": {"p_value": 0.06, "share_by_place": 0.0},
        },
        reference_text={"numbers": {"p_value": 0.2, "difference": gap}},
        candidate_text={"numbers": {"p_value": 0.02, "difference": gap}},
    )
    assert "more often at punctuation, less often at names than" in parting_sentence(report)
    ours, theirs = kl_sentence(report).split(". ")
    assert "not shown to differ" in ours
    assert "larger at numbers, against all" in theirs
    unjudged = kl_sentence(changed(reference_text={}, candidate_text={"numbers": {"p_value": 1.0}}))
    assert "no kind of token can be judged" in unjudged.split(". ")[0]
    assert "not shown to differ" in unjudged.split(". ")[1]
