"""The view of a mitigate report: what its page and terminal say."""

import copy
import io
import re
import shlex

import pytest
from rich.console import Console

from app.kinds.mitigate.report import FrontPoint, MitigateReport
from app.web import format as fmt
from app.web.charts_front import Dot, front_chart
from app.web.report import render
from app.web.sections.front import front, heading, healthy, outcome
from app.web.sections.onwards import commands
from app.web.sections.trials import described, protocol
from app.web.terminal import render_terminal
from tests.support.html import tree
from tests.support.mitigate_reports import mitigate_variants

VARIANTS = mitigate_variants()


def view(name):
    return front(MitigateReport.model_validate(VARIANTS[name]))


def test_the_recommended_recipe_stands_first_with_what_it_costs():
    found = view("helped")
    assert found.heading == "Treated"
    assert "21.4 % more bytes" in found.outcome
    assert '"repair.lowrank"' in found.recipe
    assert [figure.label for figure in found.figures] == ["KL removed", "KL", "Size", "Tokens/s"]
    assert (found.figures[0].value, found.figures[0].interval) == ("77.9", "[75.8, 80.0]")


def test_a_report_from_before_shares_had_intervals_tells_the_share_of_the_means():
    report = VARIANTS["helped"] | {"removed": None}
    share = report["saved"]["mean"] / report["raw"]["divergence"]["kl"]["mean"]
    figure = front(MitigateReport.model_validate(report)).figures[0]
    assert float(figure.value) == pytest.approx(100 * share, abs=0.6)
    assert figure.interval == "no interval"


def test_speed_has_the_spread_of_its_passes_where_the_report_holds_it():
    report = VARIANTS["helped"]
    point = next(point for point in report["front"] if point["recommended"])
    low, high = (f"{round(one):,}" for one in point["tokens_per_second_range"])
    assert view("helped").figures[3].interval == f"passes {low} to {high}"
    assert view("helped").points.rows[0][-1].note.startswith("passes 1,380 to 1,430")
    older = report | {"front": [one | {"tokens_per_second_range": None} for one in report["front"]]}
    assert front(MitigateReport.model_validate(older)).figures[3].interval == ""


def test_where_nothing_helps_it_says_so():
    report = MitigateReport.model_validate(VARIANTS["nothing"])
    assert heading(report) == "Nothing recommended"
    assert outcome(report).startswith("Leave the candidate")
    assert view("nothing").recipe == ""
    assert "Nothing helps" in render(VARIANTS["nothing"])


def test_every_point_of_the_front_is_a_row_and_a_dot():
    found = view("helped")
    assert len(found.points.rows) == 4
    assert found.points.rows[-1][1].strong
    assert found.chart is not None
    assert found.chart.count("<circle") == 8, "each point with its KL and its tokens/s"
    assert "candidate" in found.chart
    assert view("nothing").chart is None, "one point is no front"


def test_the_scale_of_what_is_left_names_whose_it_is():
    for name, whose in (("helped", "what is recommended"), ("nothing", "the candidate")):
        assert f"Excess KL over the noise floor of {whose}, with" in render(VARIANTS[name])


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("width", [80, 120])
def test_every_report_prints_in_a_terminal(name, width):
    stream = io.StringIO()
    render_terminal(VARIANTS[name], Console(file=stream, width=width))
    assert ("TREATED" if VARIANTS[name]["helped"] else "NOTHING RECOMMENDED") in stream.getvalue()


@pytest.mark.parametrize("name", VARIANTS)
def test_every_report_renders(name):
    page = render(VARIANTS[name])
    assert "<script" not in page
    assert 'id="front"' in page


def test_treatments_and_the_budget_are_told_in_words():
    report = MitigateReport.model_validate(VARIANTS["helped"])
    assert described(report.front[0]) == "the candidate as it is"
    assert described(report.front[2]) == "repair.lowrank rank 16"
    assert "122,500,000 bytes (the default: a quarter more), 10.0 % more time a token" in protocol(report)


def test_a_budget_far_away_is_not_drawn():
    dots = [Dot("candidate", "", 100, 0.3, None, 10.0, "candidate"), Dot("2", "", 110, 0.1, (0.05, 0.2), None, "front")]
    assert "budget" in front_chart(dots, budget=115, note="n")
    assert "budget" not in front_chart(dots, budget=10_000, note="n")
    assert "whisker" in front_chart(dots, budget=None, note="n")


@pytest.mark.parametrize("width", [80, 140])
def test_the_terminal_tells_units_and_intervals(width):
    out = io.StringIO()
    render_terminal(VARIANTS["helped"], Console(file=out, width=width))
    text = " ".join(out.getvalue().split())
    assert "KL, nats 95 % interval" in text
    for point in VARIANTS["helped"]["front"]:
        low, high = point["kl"]["ci"]
        assert f"[{low:.3f}, {high:.3f}]" in text
    low, high = VARIANTS["helped"]["saved"]["ci"]
    assert f"[{low:.2f}" in text
    assert "nats a token there (95 %, paired by position)" in text


def test_every_kl_of_the_front_has_its_unit_and_interval():
    page = render(VARIANTS["helped"])
    for point in VARIANTS["helped"]["front"]:
        for name in ("kl", "choose_kl"):
            low, high = point[name]["ci"]
            assert f"[{low:.3f}, {high:.3f}]" in page or f"[{low:.2f}, {high:.2f}]" in page, (name, low, high)
    assert "KL to choose by, nats" in page


def test_the_worst_tokens_and_the_text_around_them_stand_before_and_after():
    report = VARIANTS["helped"]
    section = tree(render(report)).one(id_="tokens")
    shown, folded = (list(body.all("tr")) for body in section.all("tbody"))
    rows = [*shown, *folded]
    assert len(rows) == len(report["worst_tokens"]) > len(shown) > 0
    for row, token in zip(rows, report["worst_tokens"], strict=True):
        assert fmt.number(token["kl"]) in row.text
        assert fmt.number(token["kl_after"]) in row.text
    drawn = list(section.all(class_="passage"))
    assert len(drawn) == 2 * len(report["passages"]) > 0
    for place, pair in enumerate(report["passages"]):
        for passage, (label, told) in zip(drawn[2 * place : 2 * place + 2], pair.items(), strict=True):
            caption = passage.one("figcaption").text
            assert caption.lower().startswith(label)
            tokens = list(passage.one(class_="text").all(class_="tok"))
            assert [token.text for token in tokens] == [token["text"] for token in told["tokens"]]
            known = [token["kl"] for token in told["tokens"] if token["kl"] is not None]
            assert float(re.search(r"worst ([\d.]+) nats", caption)[1]) == pytest.approx(max(known), rel=0.05)


def unharmed():
    report = copy.deepcopy(VARIANTS["nothing"])
    report["raw"]["divergence"]["kl"] |= {"mean": 0.0, "ci": [0.0, 0.0]}
    return report


def test_a_candidate_whose_damage_is_surely_below_mild_needs_nothing():
    data = copy.deepcopy(VARIANTS["nothing"])
    data["raw"]["divergence"]["kl"] |= {"mean": 0.004, "ci": [0.003, 0.005]}
    for classes, needs in ((["none"], False), (["none", "mild"], True)):
        data["decision"] |= {"severity": classes[-1], "classes": classes}
        report = MitigateReport.model_validate(data)
        assert healthy(report) is not needs
        assert heading(report) == ("Nothing recommended" if needs else "Nothing to treat")
        assert ("larger budget" in outcome(report)) is needs
        assert ("No damage that matters." in render(data)) is not needs


def test_the_page_tells_what_to_do_with_the_recipe():
    lines = [shlex.split(line) for line in view("helped").commands.splitlines()]
    job = VARIANTS["helped"]["job"]
    assert lines[0] == ["hemostat", "jobs", "fetch", job]
    assert [line[1] for line in lines] == ["jobs", "compare", "deploy"]
    assert all(f"@{job}/recipe.json" in line for line in lines[1:])
    assert "What to do with it" in render(VARIANTS["helped"])
    assert "What to do with it" not in render(VARIANTS["nothing"])


def test_a_recipe_whose_text_is_sampled_is_not_told_to_be_deployed_and_the_window_stays():
    data = copy.deepcopy(VARIANTS["helped"])
    data["recommended"][-1]["calibration"] = {"source": "self", "tokens": 64}
    data["provenance"]["protocol"]["window"] = 64
    data["request"]["allow_overlap"] = True
    (compare,) = commands(MitigateReport.model_validate(data), "a folder/recipe.json")
    words = shlex.split(compare)
    assert words[1] == "compare"
    assert words[-5:] == ["--recipe", "@a folder/recipe.json", "--window", "64", "--allow-overlap"]


def test_a_candidate_without_damage_is_not_told_to_get_a_larger_budget():
    report = MitigateReport.model_validate(unharmed())
    assert heading(report) == "Nothing to treat"
    assert outcome(report) == "Leave the candidate as it is: there is no damage that a treatment could take away."
    page = render(unharmed())
    assert "No damage." in page
    assert "larger budget" not in page
    stream = io.StringIO()
    render_terminal(unharmed(), Console(file=stream, width=120))
    assert "NOTHING TO TREAT" in stream.getvalue()


@pytest.mark.parametrize("allowed", [False, True])
def test_sets_are_said_to_be_apart_only_where_no_overlap_was_allowed(allowed):
    report = copy.deepcopy(VARIANTS["helped"])
    report["request"]["allow_overlap"] = allowed
    page = render(report)
    assert ("Three sets that share no document" in page) is not allowed
    assert ("Three sets of documents, which may share some" in page) is allowed


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("shipped", "The recipe below is ready for compare and deploy."),
        ("self", "ready for compare; a deployment cannot sample its calibration text from the reference."),
        ("inline", "The artifact recipe.json is ready for compare and deploy; below, its documents"),
    ],
)
def test_a_recipe_is_ready_for_what_its_calibration_text_can_be_read_for(source, told):
    report = copy.deepcopy(VARIANTS["helped"])
    report["recommended"][-1]["calibration"] = {"source": source}
    assert told in outcome(MitigateReport.model_validate(report))


@pytest.mark.parametrize("width", [80, 100, 120])
def test_treatments_have_room_in_a_terminal_of_any_width(width):
    out = io.StringIO()
    render_terminal(VARIANTS["helped"], Console(file=out, width=width))
    table = out.getvalue().partition("The front on the test documents")[2].partition("{")[0]
    assert "the candidate as it is" in table
    assert "repair.lowrank rank 16" in table


@pytest.mark.parametrize(
    ("types", "by", "told"),
    [
        (["quantize.rtn"], 2, "4 layers, 2 bits more"),
        (["quantize.dynamic", "repair.lowrank"], 1, "4 layers, 1 bit more"),
        (["prune.wanda", "quantize.kv_cache"], 1, "4 layers, less sparsity there, more in the others"),
        (["prune.gradient"], 2, "4 layers, much less sparsity there, more in the others"),
    ],
)
def test_what_the_worst_layers_get_is_told_by_what_the_recipe_does(types, by, told):
    point = copy.deepcopy(VARIANTS["helped"]["front"][0])
    point |= {"treatments": [{"name": "protect", "knobs": {"layers": 4, "by": by}}]}
    point |= {"recipe": [{"type": kind} for kind in types]}
    assert described(FrontPoint.model_validate(point)) == f"protect {told}"
