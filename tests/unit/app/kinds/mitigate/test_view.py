"""What a mitigate report decides and counts: what is recommended, at which cost, and what to do with it."""

import copy
import shlex

import pytest

from app.kinds.mitigate.front import points
from app.kinds.mitigate.onwards import commands, fetching
from app.kinds.mitigate.report import MitigateReport
from app.kinds.mitigate.view import blocks, heading, recommendation
from app.reports.blocks import Code, Facts, Note, Section, brief
from app.reports.charts.front import Dot, front_chart
from tests.support.mitigate_reports import mitigate_variants

VARIANTS = mitigate_variants()


def report(name, **changes):
    return MitigateReport.model_validate(copy.deepcopy(VARIANTS[name]) | changes)


def section(found, id_):
    return next(block.blocks for block in blocks(found) if isinstance(block, Section) and block.id == id_)


@pytest.mark.parametrize(
    ("answer", "needs"),
    [("no_damage", False), ("does_not_hold", True), ("nothing_helps", True)],
)
def test_only_damage_that_needs_a_treatment_is_said_to_need_a_larger_budget(answer, needs):
    found = report("nothing", answer=answer)
    assert heading(found) == ("Nothing recommended" if needs else "Nothing to treat")
    advice = next(block for block in brief(blocks(found)) if isinstance(block, Note) and block.label)
    assert advice.kind == ("bad" if needs else "good")
    assert ("larger budget" in advice.text) is needs
    assert not [block for block in section(found, "treated") if isinstance(block, Code)]


def test_what_is_beyond_the_budget_is_marked():
    data = copy.deepcopy(VARIANTS["helped"])
    data["front"][1]["within_budget"] = False
    assert points(MitigateReport.model_validate(data)).rows[1][1].note == "beyond the budget"


def test_a_budget_far_away_is_not_drawn():
    dots = [Dot("candidate", "", 100, 0.3, None, 10.0, "candidate"), Dot("2", "", 110, 0.1, (0.05, 0.2), None, "front")]
    assert "budget" in front_chart(dots, budget=115, note="n")
    assert "budget" not in front_chart(dots, budget=10_000, note="n")
    assert "whisker" in front_chart(dots, budget=None, note="n")


def test_the_page_shows_what_to_do_with_the_recipe():
    found = report("helped")
    recipe, code = (block for block in section(found, "treated") if isinstance(block, Code))
    assert '"repair.lowrank"' in recipe.text
    lines = [shlex.split(line) for line in code.text.splitlines()]
    assert lines == [shlex.split(line) for line in fetching(found)]
    assert [line[1] for line in lines] == ["jobs", "compare", "deploy"]
    assert lines[0] == ["hemostat", "jobs", "fetch", found.job]
    assert all(f"@{found.job}/recipe.json" in line for line in lines[1:])


def test_a_recipe_whose_text_is_sampled_has_no_command_to_deploy_and_the_window_stays():
    data = copy.deepcopy(VARIANTS["helped"])
    data["recommended"][-1]["calibration"] = {"source": "self", "tokens": 64}
    data["provenance"]["protocol"]["window"] = 64
    data["request"]["allow_overlap"] = True
    (compare,) = commands(MitigateReport.model_validate(data), "a folder/recipe.json")
    arguments = shlex.split(compare)
    assert arguments[1] == "compare"
    assert arguments[-5:] == ["--recipe", "@a folder/recipe.json", "--window", "64", "--allow-overlap"]


RTN = {"type": "quantize.rtn", "bits": 4}


@pytest.mark.parametrize(
    ("before", "iterations", "option"),
    [
        ([RTN], 1, "--repair"),
        ([RTN], 2, "--recipe"),
        ([RTN | {"bits": 3}], 1, "--recipe"),
        ([RTN | {"layers": [0]}, RTN | {"layers": [1], "bits": 8}], 1, "--recipe"),
    ],
)
def test_a_repair_is_served_beside_packed_weights_if_it_can_be(before, iterations, option):
    data = copy.deepcopy(VARIANTS["helped"])
    data["recommended"] = [*before, {"type": "repair.lowrank", "rank": 8, "iterations": iterations}]
    _, deploy = commands(MitigateReport.model_validate(data), "recipe.json")
    named = {"--repair": data["job"], "--recipe": "@recipe.json"}
    assert shlex.split(deploy)[-2:] == [option, named[option]]


@pytest.mark.parametrize(("source", "ready"), [("shipped", True), ("self", False), ("inline", True)])
def test_a_recipe_is_ready_for_what_its_calibration_text_can_be_read_for(source, ready):
    data = copy.deepcopy(VARIANTS["helped"])
    data["recommended"][-1]["calibration"] = {"source": source}
    said = recommendation(MitigateReport.model_validate(data))
    assert ("ready for compare and deploy" in said) is ready
    assert ("recipe.json" in said) is (source == "inline")


@pytest.mark.parametrize("allowed", [False, True])
def test_sets_are_said_to_be_apart_only_if_no_overlap_was_allowed(allowed):
    request = VARIANTS["helped"]["request"] | {"allow_overlap": allowed}
    sets = section(report("helped", request=request), "protocol")[0]
    assert isinstance(sets, Facts)
    assert ("share no document" in sets.heading) is not allowed
    assert ("may share some" in sets.heading) is allowed
