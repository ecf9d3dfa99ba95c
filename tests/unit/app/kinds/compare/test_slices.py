"""Which parts of the text a comparison names, and how their numbers are reckoned."""

import copy

import pytest

from app.kinds.compare.report import CompareReport
from app.kinds.compare.slices import OVER_WINDOWS, class_sentence, domains, token_classes, where, worst
from app.kinds.compare.view import blocks
from app.reports import format as fmt
from app.reports.blocks import Section, Table, brief
from tests.support.reports import compare_report, variants

REPORT = compare_report()


def parsed(report):
    return CompareReport.model_validate(report)


def rows_of(shown):
    """The rows of the first table."""
    inside = [block for one in shown for block in (one.blocks if isinstance(one, Section) else [one])]
    return next(block for block in inside if isinstance(block, Table)).rows


def test_the_worst_parts_are_those_whose_interval_begins_highest():
    slices = {name: block["divergence"]["kl"] for name, block in REPORT["domains"].items()}
    slices |= {one["title"]: one["kl"] for one in REPORT["token_classes"]["classes"]}
    bands = (band for band in REPORT["by_position"] if band["tokens"])
    slices |= {f"Positions {band['low']:.0f} to {band['high'] - 1:.0f}": band["kl"] for band in bands}
    expected = sorted(slices, key=lambda name: -slices[name]["ci"][0])[:3]
    rows = rows_of(worst(parsed(REPORT)))
    assert [row[0].text.replace("\u00a0", " ") for row in rows] == expected
    mean = REPORT["divergence"]["kl"]["mean"]
    assert float(rows[0][3].text) == pytest.approx(slices[expected[0]]["mean"] / mean, rel=0.05)


def test_a_part_without_an_interval_is_named_last_and_the_whole_text_is_no_part():
    report = copy.deepcopy(REPORT)
    report["token_classes"]["classes"] = []
    name, other = list(report["domains"])[:2]
    report["by_position"] = []
    report["domains"] = {key: report["domains"][key] for key in (name, other)}
    report["domains"][name]["divergence"]["kl"] |= {"mean": 9.0, "ci": None}
    report["domains"][other]["divergence"]["kl"] |= {"mean": 5.0, "ci": (4.0, 6.0)}
    assert [row[0].text for row in rows_of(worst(parsed(report)))] == [other, name]
    report["domains"][other]["tokens"] = report["tokens"]
    assert [row[0].text for row in rows_of(worst(parsed(report)))] == [name]


def test_a_part_that_loses_no_more_than_the_mean_is_none_of_the_worst():
    report = copy.deepcopy(REPORT)
    report["divergence"]["kl"]["mean"] = 100.0
    assert worst(parsed(report)) == []


def test_the_next_step_is_named_from_moderate_damage_on():
    for name, report in variants().items():
        severe = report["severity"] in {"moderate", "severe", "collapse"}
        commands = [getattr(block, "command", "") for block in brief(blocks(parsed(report)))]
        assert any("hemostat attribute" in command for command in commands) == severe, name


def test_a_part_whose_intervals_are_over_windows_says_so():
    report = copy.deepcopy(REPORT)
    name = next(iter(report["domains"]))
    report["domains"][name]["divergence"]["kl"]["clusters"] = "windows"
    notes = {row[0].text: row[0].note for row in rows_of(where(parsed(report)))}
    assert [part for part, note in notes.items() if note == OVER_WINDOWS] == [name]


def test_the_sentence_names_what_chance_does_not_explain():
    found = parsed(REPORT).token_classes
    more, less = class_sentence(found.classes).split(". ")
    assert "tool names" in more
    assert "punctuation" in less
    unsure = tuple(one.model_copy(update={"p_value": 0.2}) for one in found.classes)
    assert not any(one.title.lower() in class_sentence(unsure) for one in unsure)
    json_one = found.classes[0].model_copy(update={"p_value": 0.01, "title": "JSON structure"})
    assert "in JSON structure" in class_sentence((json_one,))


def test_shares_are_of_the_whole_text_since_classes_overlap():
    numbers = next(row for row in rows_of(token_classes(parsed(REPORT))) if row[0].text == "Numbers")
    one = next(one for one in REPORT["token_classes"]["classes"] if one["name"] == "numbers")
    assert f"{100 * one['share']:.2g}" in [cell.text for cell in numbers]
    of_kl = fmt.estimate(one["share_of_kl"], tuple(one["share_of_kl_ci"]), percent=True)
    assert (of_kl.value, of_kl.interval) in [(cell.text, cell.note) for cell in numbers]


def test_domains_are_the_most_damaged_first():
    kls = [part.kl.mean or 0.0 for part in domains(parsed(variants()["domains"]))]
    assert len(kls) == 12
    assert kls == sorted(kls, reverse=True)
