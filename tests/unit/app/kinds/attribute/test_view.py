"""What an attribution report decides and counts: which part is to blame, its numbers, and what fits it."""

import re

import pytest

from app.kinds.attribute import parts
from app.kinds.attribute.parts import charts, figures, nowhere_finite_note, sites_note
from app.kinds.attribute.report import AttributeReport
from app.kinds.attribute.view import blocks
from app.kinds.attribute.words import cause_text, first_sites, heading
from app.reports.blocks import Figures, Next, Section, Table
from app.reports.render import render
from tests.support import internals_blocks
from tests.support.attribute_reports import TREATMENT, attribute_report, attribute_variants, first, site
from tests.support.html import tree
from tests.support.terminal import printed

VARIANTS = attribute_variants()


def read(report):
    return AttributeReport.model_validate(VARIANTS[report] if isinstance(report, str) else report)


def figures_of(report):
    (found,) = figures(report)
    assert isinstance(found, Figures)
    return found.items


def sections(report):
    return {block.id: block for block in blocks(report) if isinstance(block, Section)}


def table_of(section):
    return next(block for block in section.blocks if isinstance(block, Table))


def of_causes(*causes):
    sites = [first(f"layers.{n}.mlp.down_proj", 0.2 - 0.1 * n, cause) for n, cause in enumerate(causes)]
    return read(attribute_report(sites=sites))


def test_every_part_is_on_the_page_and_the_worst_leads_it():
    page = render(VARIANTS["full"])
    assert heading(read("full")) == "Worst: layers.1.mlp.down_proj"
    for one in read("full").sites:
        assert one.name in page
    assert len(table_of(sections(read("full"))["sites"]).rows) == 20
    assert "<summary>12 more parts</summary>" in page


def test_a_negligible_part_is_not_called_the_worst():
    assert heading(of_causes("negligible", "size")) == "Worst: layers.1.mlp.down_proj"
    assert heading(of_causes("size", "negligible")) == "Worst: layers.0.mlp.down_proj"
    none = of_causes("negligible", "negligible")
    assert heading(none) == heading(read("nothing-differs")) == "No part to blame"
    assert (figures_of(none)[0].label, figures_of(none)[0].note) == ("Most of any part", "layers.0.mlp.down_proj")


def test_a_part_whose_damage_is_not_shown_is_not_blamed():
    sites = [first("layers.0.mlp.down_proj", 0.2, "unclear", shown=False), first("layers.1.mlp.down_proj", 0.1, "size")]
    report = read(attribute_report(sites=sites))
    assert heading(report) == "Worst: layers.1.mlp.down_proj"
    assert [cause_text(one) for one in report.sites] == ["no damage shown", "mere size"]
    alone = attribute_report(sites=sites[:1])
    assert heading(read(alone)) == "No part is shown to do damage"
    assert "no damage shown" in printed(alone)


def test_only_a_part_that_was_looked_into_is_unclear():
    sites = [
        first("layers.0.mlp.down_proj", 0.3, "unclear", unclear="left_open", shown=True),
        first("layers.1.mlp.down_proj", 0.2, "unclear", unclear="no_damage_shown", shown=False),
        site("layers.2", 0.1, kind="layer", layer=2, unclear="not_looked_into"),
    ]
    report = read(attribute_report(sites=sites))
    assert [cause_text(one) for one in report.sites] == ["unclear", "no damage shown", "not looked into"]
    full = read("full")
    assert [one.name for one in first_sites(full)] == ["layers.1.mlp.down_proj", "layers.1.self_attn.heads.0"]
    assert cause_text(full.sites[5]) == "not looked into"


def test_a_bar_has_the_digits_of_the_table():
    unsure = site("layers.29", 0.0605, kind="layer", layer=29, ci=[0.0, 0.27], share=0.133, share_ci=[0.1, 0.166])
    report = read(attribute_report(sites=[unsure]))
    row = table_of(sections(report)["sites"]).rows[0]
    assert (row[2].text, row[4].text) == ("0.06", "13.3")
    (chart,) = charts(report)
    assert "0.06 · 13.3 %" in chart.svg
    assert "0.0605" not in chart.svg


def test_a_control_that_is_not_zero_is_counted():
    assert "exactly 0 for 2 parts" in sites_note(read("full"))
    assert "NOT 0 for 1 part." in sites_note(read("broken"))


def test_the_note_counts_parts_and_tokens():
    report = read("full")
    note = sites_note(report)
    assert f"first 2 of {report.search.measured} measured parts" in note
    for tokens in (report.subset.control_positions, report.subset.twin_positions):
        assert f"{tokens:,} tokens" in note
    gaps = read(VARIANTS["other-depth"] | {"internals": internals_blocks.dense().model_dump(mode="json")})
    assert "on 768 tokens of 12 documents. The whole candidate loses 1.10" in sites_note(gaps)


def test_models_of_another_depth_show_their_gaps_and_why():
    page = render(VARIANTS["other-depth"])
    assert "30 and 24 layers" in page and "layers 7, 8 left in" in page
    report = read("other-depth")
    assert figures_of(report)[0].label == "Worst gap alone"
    assert sections(report).keys() & {"additivity", "search"} == set()
    assert sections(read("full")).keys() >= {"additivity", "search"}
    assert heading(read(VARIANTS["other-depth"] | {"sites": []})) == "No part was swapped"


@pytest.mark.parametrize(
    ("changes", "matched", "expected"),
    [
        ({}, None, "Worst gap: dropped layers 7, 8"),
        ({}, {"mean": 0.0, "ci": None}, "Worst gap: dropped layers 7, 8"),
        ({}, {"mean": 0.4, "ci": None}, "Worst: what both models have"),
        ({"shown": False, "cause": "unclear"}, {"mean": 0.61, "ci": (0.55, 0.67)}, "Worst: what both models have"),
        ({"shown": False}, None, "No gap is shown to do damage"),
        ({"cause": "negligible", "nats": 0.0}, {"mean": 0.61, "ci": (0.0, 1.2)}, "No gap to blame"),
    ],
)
def test_the_worst_of_models_of_another_depth(changes, matched, expected):
    report = read("other-depth")
    update = {"sites": (report.sites[0].model_copy(update=changes),)}
    if matched is not None:
        block = internals_blocks.alignment() | {"matched": matched}
        update["internals"] = internals_blocks.dense(alignment=block)
    assert heading(report.model_copy(update=update)) == expected


def test_a_part_that_is_finite_nowhere_is_the_worst():
    names = ("layers.3.mlp.down_proj", "layers.3")
    broken = [{"name": name, "kind": "module", "layer": 3, "tokens": 3900} for name in names]
    body = attribute_report() | {"nowhere_finite": broken}
    report = read(body)
    assert heading(report) == "Worst: layers.3.mlp.down_proj"
    assert figures_of(report)[0].label == "Worst of the others"
    assert "layers.3.mlp.down_proj, layers.3: " in nowhere_finite_note(report)
    assert "3,900 tokens" in nowhere_finite_note(report)
    for shown in (render(body), printed(body)):
        assert "Nowhere finite" in shown
    assert "Nowhere finite" not in printed(attribute_report())


@pytest.mark.parametrize(
    ("considered", "beside", "expected"),
    [(0, 30, "Nothing that was asked for differs"), (30, 0, "No part was tried"), (0, 0, "No part to blame")],
)
def test_if_nothing_was_tried_nothing_is_counted(considered, beside, expected):
    body = attribute_report(sites=[])
    body["search"] |= {"considered": considered, "others": beside, "measured": 0}
    report = read(body | {"additivity": None, "explained": None, "treatment": None})
    assert heading(report) == expected
    assert "search" not in sections(report)
    assert figures(report) == [] == parts.parts(report)


def test_the_recipe_is_offered_as_a_command_and_a_long_one_is_fetched():
    asked = VARIANTS["full"]["request"] | {"text": {"source": "file", "path": "own.jsonl"}, "window": 256}
    report = read("full").model_copy(update={"request": asked})

    def commands(steps):
        made = report.treatment.model_copy(update={"recipe": (TREATMENT["recipe"][0],) * steps})
        found = sections(report.model_copy(update={"treatment": made}))["blame"]
        return [block.command for block in found.blocks if isinstance(block, Next)]

    (short,) = commands(1)
    assert short.startswith("hemostat compare smollm2-135m --recipe quantize.rtn:bits=4,")
    (long,) = commands(9)
    assert long.startswith(f"hemostat jobs fetch {report.job} && hemostat compare smollm2-135m")
    assert f" --recipe @{report.job}/recipe.json " in long
    for command in (short, long):
        assert "own.jsonl" in command
        assert "--window 256" in command
    assert commands(0) == []


def test_the_short_output_fits_a_terminal():
    for name, body in VARIANTS.items():
        lines = printed(body, 80).splitlines()
        assert len(lines) <= 40, name


def test_hostile_names_are_shown_and_never_obeyed():
    name = "layers.1\x1b[31m<script>\u202e"
    report = attribute_report(sites=[first(name, 0.2)])
    page = render(report | {"nowhere_finite": [{"name": name, "kind": "layer", "layer": 1, "tokens": 3}]})
    for shown in (page, printed(report, details=True)):
        assert re.search("[\x1b\u202e]", shown) is None
    assert not list(tree(page).all("script"))
