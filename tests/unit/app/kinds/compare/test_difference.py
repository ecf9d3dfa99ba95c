"""The differences of candidates as blocks: every number is there, which side is better, and what does not fit."""

import io

import numpy as np
import pytest
from rich.console import Console

from app.kinds.compare.difference import MOST_SLICES, blocks, p_value, ranking, render_difference, ties
from app.reports import format as fmt
from app.reports.blocks import Fold, Section, Table
from app.reports.terminal import print_blocks
from tests.support.html import tree
from tests.support.token_files import DOCUMENTS, LENGTH, side_of, values, write_job
from workers.diagnosis.diff.answer import compare_reports

RNG = np.random.default_rng(3)
HARD = RNG.lognormal(-1, 0.8, DOCUMENTS).repeat(LENGTH) * RNG.lognormal(0, 0.4, DOCUMENTS * LENGTH)


FLAGS = {"json_structure": np.arange(HARD.size) % 3 == 0, "tool_name": np.arange(HARD.size) < 4 * LENGTH}


def side(folder, scale, classes=None, **provenance):
    name = folder.name
    candidate = {"model": name}
    write_job(folder, values(scale * HARD), job=f"diag_{name}", candidate=candidate, classes=classes, **provenance)
    return side_of(folder)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    return compare_reports([side(folder / "one", 1.0), side(folder / "two", 0.8)])


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many")
    return compare_reports([side(folder / f"c{index}", 1.0 + 0.1 * index) for index in range(11)])


def everything(found):
    """The blocks out of sections and folds."""
    inner = [everything([*block.blocks]) if isinstance(block, Section | Fold) else [block] for block in found]
    return [block for part in inner for block in part]


def tables(report, of):
    """Those whose caption holds these words."""
    return [one for one in everything(blocks(report)) if isinstance(one, Table) and of in one.caption]


def cells(table):
    return [[f"{cell.text} {cell.note}".strip() for cell in row] for row in table.rows]


def test_every_measure_of_a_pair_has_its_interval_and_both_p(two):
    (table,) = tables(two, "in every measure")
    for line, row in zip(cells(table), two.pairs[0].differences, strict=True):
        value = str(fmt.estimate(row.difference.mean, row.difference.ci))
        assert line[1].removeprefix("+") == value
        assert line[2:] == [p_value(row.p), p_value(row.p_adjusted), "b is better"]
    assert "1,200 tokens of 30 documents, paired" in tree(render_difference(two)).text


def test_the_differences_by_token_class_have_a_table_for_each_pair(tmp_path):
    sides = [side(tmp_path / name, scale, FLAGS) for name, scale in (("one", 1.0), ("two", 0.8), ("three", 0.9))]
    for given in (sides[:2], sides):
        found = compare_reports(given)
        for table, pair in zip(tables(found, "by token class"), found.pairs, strict=True):
            assert table.caption == f"{pair.later} − {pair.earlier} by token class, KL(p‖q), nats"
            for line, row in zip(cells(table), pair.token_classes, strict=True):
                assert line[:2] == [row.title, fmt.count(row.tokens)]
                assert line[2].removeprefix("+") == str(fmt.estimate(row.difference.mean, row.difference.ci))
                judged = row.title == "JSON structure"
                assert line[5] == (f"{pair.later} is {row.verdict}" if judged else "cannot be judged")


def test_the_slices_that_differ_for_sure_are_first_with_the_largest_first(tmp_path):
    """A class in which two candidates are equal at every position is in no row; nor is one that no report has."""
    third = np.arange(HARD.size) % 3 == 0
    flags = {"json_structure": third, "numbers": ~third}
    sides = []
    for name, outside in (("a", 1.0), ("b", 0.5), ("c", 0.2)):
        kl = np.where(third, 1.0, outside) * HARD
        write_job(tmp_path / name, values(kl), job=f"diag_{name}", candidate={"model": name}, classes=flags)
        sides.append(side_of(tmp_path / name))
    found = compare_reports(sides)
    every = [row for pair in found.pairs for row in (*pair.domains, *pair.token_classes)]
    sure = [abs(row.difference.mean or 0.0) for row in every if row.verdict in {"better", "worse"}]
    (table,) = tables(found, "slices")
    assert table.caption.startswith(f"{len(sure)} of {len(every)} slices")
    assert len(table.rows) == min(len(sure), MOST_SLICES)
    shown = [float(row[2].text.replace("−", "-")) for row in table.rows]
    assert np.abs(shown) == pytest.approx(sorted(sure, reverse=True)[: len(shown)], abs=0.005)
    assert not any("JSON structure" in row[1].text for row in table.rows)


def test_a_p_below_the_level_is_not_rounded_to_it():
    told = {0.04997: "< 0.050", 0.05: "0.050", 0.0503: "0.050", 0.0494: "0.049", 0.0009: "< 0.001", 0.001: "0.001"}
    assert {value: p_value(value) for value in told} == told


def test_the_side_of_zero_on_which_a_candidate_is_better_depends_on_the_measure(tmp_path):
    sides = [side(tmp_path / "one", 1.0), side(tmp_path / "two", 0.8)]
    loss, agreement = [tree(render_difference(compare_reports(sides, by=by))) for by in ("kl", "top1_agreement")]
    texts = [[one.text for one in root.all("text")] for root in (loss, agreement)]
    assert {"◂ b is better", "a is better ▸"} <= set(texts[0])
    assert {"◂ a is better", "b is better ▸"} <= set(texts[1])


def test_the_short_output_fits_its_lines(two, many):
    for found, others in ((two, 2), (many, 11)):
        stream = io.StringIO()
        print_blocks(blocks(found), Console(file=stream, width=80), str, more="add --details")
        lines = stream.getvalue().splitlines()
        assert len(lines) <= 38 and max(map(len, lines)) <= 80
        assert sum(line[:1].isalpha() and line[1:4] == "   " for line in lines) == others, "a row per candidate"


def test_ranks_are_in_their_order_and_an_undecided_severity_has_a_question_mark(many):
    first, *others = many.ranking
    undecided = first.model_copy(update={"classes": ("mild", "moderate")})
    rows = ranking(many.model_copy(update={"ranking": (undecided, *others)})).rows
    assert [row[0].text for row in rows] == [row.letter for row in many.ranking] == list("abcdefghijk")
    assert [row[-1].text for row in rows] == ["mild or moderate?", *(row.severity for row in others)]


def test_ties_are_told_apart_by_what_is_known(tmp_path):
    first = side(tmp_path / "one", 1.0)
    noisy = HARD * np.random.default_rng(9).lognormal(0, 0.3, DOCUMENTS).repeat(LENGTH)
    write_job(tmp_path / "near", values(noisy), job="diag_near", candidate={"model": "near"})
    found = compare_reports([first, side(tmp_path / "same", 1.0), side_of(tmp_path / "near")])
    said = ties(found).split(". ")
    assert said[0].startswith("a and c, b and c: no difference is shown")
    assert said[-1] == "a and b: equal at every position."
    assert ties(found) in " ".join(tree(render_difference(found)).text.split())


def test_what_is_not_comparable_says_so_first_and_why(tmp_path):
    sides = [side(tmp_path / "one", 1.0), side(tmp_path / "two", 0.8, dtype="float32")]
    found = compare_reports(sides, anyway=True)
    root = tree(render_difference(found))
    assert found.label in next(root.all(class_="alert")).text
    (table,) = tables(found, "What differs")
    assert cells(table) == [["dtype", "bfloat16 a", "float32 b"]]
    assert "--anyway" in root.one("pre").text
