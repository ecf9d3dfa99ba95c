"""What an attribution report decides and counts: which part is to blame, its numbers, and what fits it."""

import pytest

from app.kinds.attribute import parts
from app.kinds.attribute.parts import charts, figures, sites_note
from app.kinds.attribute.report import AttributeReport
from app.kinds.attribute.view import blocks
from app.kinds.attribute.words import cause_text, first_sites, heading
from app.reports.blocks import Next, Section, Table
from tests.support.attribute_reports import TREATMENT, attribute_report, attribute_variants, first, site

VARIANTS = attribute_variants()


def read(report):
    return AttributeReport.model_validate(VARIANTS[report] if isinstance(report, str) else report)


def sections(report):
    return {block.id: block for block in blocks(report) if isinstance(block, Section)}


def table_of(section):
    return next(block for block in section.blocks if isinstance(block, Table))


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
