"""The page of differences: every number of the answer is on it, which side is better, and what does not fit is said."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.contracts.diff_report import DiffReport
from app.contracts.report import Mean
from app.web import format as fmt
from app.web.difference import render_difference
from app.web.sections.difference import difference, p_value, ties
from tests.support.html import tree
from tests.support.token_files import DOCUMENTS, LENGTH, side_of, values, write_job
from workers.diagnosis.diff.answer import Side, compare_reports

RNG = np.random.default_rng(3)
HARD = RNG.lognormal(-1, 0.8, DOCUMENTS).repeat(LENGTH) * RNG.lognormal(0, 0.4, DOCUMENTS * LENGTH)


FLAGS = {"json_structure": np.arange(HARD.size) % 3 == 0, "tool_name": np.arange(HARD.size) < 4 * LENGTH}


def side(folder: Path, scale: float, classes: Mapping[str, Any] | None = None, **provenance: object) -> Side:
    name = folder.name
    candidate = {"model": name}
    write_job(folder, values(scale * HARD), job=f"diag_{name}", candidate=candidate, classes=classes, **provenance)
    return side_of(folder)


@pytest.fixture
def two(tmp_path: Path) -> DiffReport:
    return compare_reports([side(tmp_path / "one", 1.0), side(tmp_path / "two", 0.8)])


@pytest.fixture
def many(tmp_path: Path) -> DiffReport:
    return compare_reports([side(tmp_path / f"c{index}", 1.0 + 0.1 * index) for index in range(11)])


def test_every_measure_of_a_pair_is_told_with_its_interval_and_both_p(two: DiffReport) -> None:
    text = " ".join(tree(render_difference(two)).text.split())
    for row in two.pairs[0].differences:
        value = fmt.estimate(row.difference.mean, row.difference.ci)
        assert value.value in text
        assert str(value.interval) in text
    assert "b is better" in text
    assert "Holm’s correction" in text
    assert "1,200 tokens of 30 documents, paired" in text


def test_the_differences_by_token_class_have_a_table_for_each_pair(tmp_path: Path) -> None:
    sides = [side(tmp_path / name, scale, FLAGS) for name, scale in (("one", 1.0), ("two", 0.8), ("three", 0.9))]
    for given in (sides[:2], sides):
        found = compare_reports(given)
        section = tree(render_difference(found)).one(id_="pairs")
        tables = [one for one in section.all("table") if "by token class" in one.one("caption").text]
        assert len(tables) == len(found.pairs)
        for table, pair in zip(tables, found.pairs, strict=True):
            assert table.one("caption").text == f"{pair.later} − {pair.earlier} by token class, KL(p‖q), nats"
            for line, row in zip(table.one("tbody").all("tr"), pair.token_classes, strict=True):
                value = fmt.estimate(row.difference.mean, row.difference.ci)
                cells = [cell.text.strip() for cell in (line.one("th"), *line.all("td"))]
                sign = "+" if (row.difference.mean or 0) > 0 else ""
                assert cells == [
                    row.title,
                    fmt.count(row.tokens),
                    f"{sign}{value.value}",
                    value.interval,
                    p_value(row.p),
                    p_value(row.p_adjusted),
                    f"{pair.later} is {row.verdict}" if row.title == "JSON structure" else "cannot be judged",
                ]
        assert section.text.count("A token may be of several classes.") == 1


def test_where_classes_are_not_told_the_page_says_why(tmp_path: Path, two: DiffReport) -> None:
    found = compare_reports([side(tmp_path / "new", 1.0, FLAGS), side(tmp_path / "old", 0.8)])
    section = tree(render_difference(found)).one(id_="pairs")
    assert "by token class are not told: the values by token of b have no class columns" in section.text
    assert not any("by token class" in one.text for one in section.all("caption"))
    without = two.model_copy(update={"token_classes_note": ""})
    assert "Token classes" not in tree(render_difference(without)).text


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0.04997, "< 0.050"),
        (0.05, "0.050"),
        (0.0503, "0.050"),
        (0.0494, "0.049"),
        (0.0009, "< 0.001"),
        (0.001, "0.001"),
    ],
)
def test_a_p_below_the_level_is_not_rounded_to_it(value: float, told: str) -> None:
    assert p_value(value) == told


def test_the_side_of_zero_on_which_a_candidate_is_better_depends_on_the_measure(tmp_path: Path) -> None:
    sides = [side(tmp_path / "one", 1.0), side(tmp_path / "two", 0.8)]
    loss, agreement = [tree(render_difference(compare_reports(sides, by=by))) for by in ("kl", "top1_agreement")]
    texts = [[one.text for one in root.all("text")] for root in (loss, agreement)]
    assert {"◂ b is better", "a is better ▸"} <= set(texts[0])
    assert {"◂ a is better", "b is better ▸"} <= set(texts[1])


def test_a_severity_that_is_not_decided_has_a_question_mark(two: DiffReport) -> None:
    first, second = two.ranking
    told = two.model_copy(update={"ranking": (first, second.model_copy(update={"classes": ("mild", "moderate")}))})
    rows = difference(told).ranking.rows
    assert [row[-1].text for row in rows] == [first.severity, "mild or moderate?"]


def test_ranks_stand_in_their_order(many: DiffReport) -> None:
    table = next(tree(render_difference(many)).one(id_="ranking").all("table"))
    letters = [row.one("th").text.strip() for row in table.one("tbody").all("tr")]
    assert letters == [row.letter for row in many.ranking] == list("abcdefghijk")


def test_ties_are_told_apart_by_what_is_known(tmp_path: Path) -> None:
    first = side(tmp_path / "one", 1.0)
    noisy = HARD * np.random.default_rng(9).lognormal(0, 0.3, DOCUMENTS).repeat(LENGTH)
    write_job(tmp_path / "near", values(noisy), job="diag_near", candidate={"model": "near"})
    found = compare_reports([first, side(tmp_path / "same", 1.0), side_of(tmp_path / "near")])
    assert ties(found) == (
        "a and c, b and c: no difference is shown, which does not say that they are equal. The interval says how far "
        "they may differ. a and b: equal at every position."
    )
    assert ties(found) in " ".join(tree(render_difference(found)).text.split())


def test_a_tie_in_another_measure_than_the_one_that_ranks_is_none(two: DiffReport) -> None:
    (pair,) = two.pairs
    rows = tuple(
        row if row.measure == two.by else row.model_copy(update={"verdict": "equal"}) for row in pair.differences
    )
    assert ties(two.model_copy(update={"pairs": (pair.model_copy(update={"differences": rows}),)})) == ""


def test_of_very_many_pairs_the_chart_has_those_with_the_best(many: DiffReport) -> None:
    root = tree(render_difference(many)).one(id_="every")
    assert "The best candidate against each other one" in root.text
    labels = {one.text for one in root.all("text", class_="strong")}
    assert labels == {f"{letter} − a" for letter in "bcdefghijk"}


def test_every_row_against_the_best_is_the_other_one_minus_it_wherever_it_stands(many: DiffReport) -> None:
    """The best is d: a, b and c stand before it in the report, e to k behind it; each of them loses more."""
    names = dict(zip("abcdefghijk", "dabcefghijk", strict=True))
    turned = {"better": "worse", "worse": "better"}
    pairs = []
    for pair in many.pairs:
        one, other = names[pair.earlier], names[pair.later]
        rows = pair.differences
        if one > other:
            one, other = other, one
            rows = tuple(
                row.model_copy(
                    update={
                        "difference": Mean(mean=-(row.difference.mean or 0.0), ci=_negative(row.difference.ci)),
                        "verdict": turned.get(row.verdict, row.verdict),
                    }
                )
                for row in rows
            )
        pairs.append(pair.model_copy(update={"earlier": one, "later": other, "differences": rows}))
    ranking = tuple(row.model_copy(update={"letter": names[row.letter]}) for row in many.ranking)
    renamed = many.model_copy(update={"pairs": tuple(pairs), "ranking": ranking})
    charts = [tree(str(difference(one).chart)) for one in (many, renamed)]
    labels, numbers = [
        [[one.text for one in chart.all("text", class_=kind)] for chart in charts] for kind in ("strong", "end")
    ]
    assert sorted(labels[1]) == [f"{letter} − d" for letter in "abcefghijk"]
    assert all(number.startswith("+") for number in numbers[1][: len(labels[1])])
    assert sorted(numbers[0]) == sorted(numbers[1])


def _negative(ci: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if ci is None else (-ci[1], -ci[0])


def test_what_is_not_comparable_says_so_first_and_why(tmp_path: Path) -> None:
    sides = [side(tmp_path / "one", 1.0), side(tmp_path / "two", 0.8, dtype="float32")]
    root = tree(render_difference(compare_reports(sides, anyway=True)))
    assert root.one("h1").text.startswith("Not comparable, compared anyway")
    alert = next(root.all(class_="alert")).text
    assert "dtype differ" in alert
    assert "float32" in root.one(id_="ranking").text
    assert "--anyway" in root.one("pre").text


def test_the_measures_lead_to_themselves_where_the_page_is_served(two: DiffReport) -> None:
    root = tree(render_difference(two, reports="/r/{job}", again="/d"))
    links = [one.attributes["href"] for one in root.all("a")]
    assert "/r/diag_one" in links
    assert "/d?job=diag_one&job=diag_two&by=tv" in links
    assert not any("by=kl" in str(link) for link in links)


def test_the_seed_is_kept_where_it_is_not_the_usual_one(two: DiffReport) -> None:
    root = tree(render_difference(two, seed=5, reports="/r/{job}", again="/d"))
    links = [str(one.attributes["href"]) for one in root.all("a")]
    assert "/d?job=diag_one&job=diag_two&by=tv&seed=5" in links
    assert root.one("pre").text == "hemostat diff diag_one diag_two --by kl --seed 5"
    assert "--seed" not in tree(render_difference(two)).one("pre").text
