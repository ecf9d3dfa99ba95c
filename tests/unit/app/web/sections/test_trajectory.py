"""The view of a trajectory report: what is said, how it is named, what is escaped."""

import copy
import io

import pytest
from rich.console import Console

from app.kinds.trajectory.report import TrajectoryReport
from app.web import format as fmt
from app.web.report import render
from app.web.sections.trajectory import heading, left, note, trajectory
from app.web.sections.trajectory_words import median_of, shaping_name
from app.web.terminal import render_terminal
from tests.support.trajectory_reports import trajectory_report, trajectory_variants

VARIANTS = trajectory_variants()


def report(name):
    return TrajectoryReport.model_validate(VARIANTS[name])


@pytest.mark.parametrize("name", VARIANTS)
def test_every_situation_is_drawn_and_printed(name):
    assert "Where the texts part" in render(VARIANTS[name])
    for width in (80, 130):
        console = Console(width=width, record=True, file=None, quiet=True)
        render_terminal(VARIANTS[name], console)


def test_the_heading_is_what_the_first_decoder_says():
    assert heading(report("one")) == "Amplification not shown"
    assert heading(report("same")) == "The same text"
    assert heading(TrajectoryReport.model_validate(trajectory_report(damage=0.9))) == "Decoding amplifies the damage"


def test_a_median_beyond_the_end_says_so():
    assert median_of(report("same").cells[0]) == ("> 128", "[> 128, > 128]")


def test_candidates_have_letters_where_there_are_several():
    one, four = trajectory(report("one")), trajectory(report("four"))
    assert one.parting.rows[0][0].text == "greedy"
    assert [row[0].text for row in four.parting.rows[:5]] == [
        "greedy · A",
        "greedy · B",
        "greedy · C",
        "greedy · D",
        "beam · A",
    ]
    assert len(four.candidates.rows) == 4


def test_of_several_candidates_the_page_says_whom_headline_and_verdict_are_of():
    one, four = report("one"), report("four")
    assert "the candidate loses" in left(one) and "candidate A loses" in left(four)
    assert "of candidate A with greedy" in note(four) and "of candidate" not in note(one)
    assert trajectory(four).figures[0].unit == "× running free, greedy · A"
    assert "the first of 4 candidates" in render(VARIANTS["four"])


def test_a_shaping_is_named_by_its_own_parameter():
    named = [shaping_name(one) for one in report("one").distances]
    assert named == ["temperature 0.7", "top-p 0.95", "top-k 40", "min-p 0.1", "η 0.0003", "typical 0.95"]


def test_texts_of_models_are_escaped_and_shown_safely():
    page = render(VARIANTS["one"])
    assert "<b>until</b>" not in page
    assert "&lt;b&gt;until&lt;/b&gt;" in page
    assert "\u202e" not in page


def test_without_stored_text_no_text_is_shown():
    assert report("no-text").samples == ()
    assert "The river had been high" not in render(VARIANTS["no-text"])


def test_every_candidate_has_its_own_blocks():
    four = report("four")
    table = trajectory(four).candidates
    ratios = [row[6].text for row in table.rows]
    assert len(set(ratios)) == 4
    for run, row in zip(four.candidates, table.rows, strict=True):
        assert (
            row[5].text
            == fmt.estimate(run.blocks.top1_agreement.mean, run.blocks.top1_agreement.ci, percent=True).value
        )
    domains = trajectory(four).domains
    assert domains is not None
    assert [row[0].text for row in domains.rows] == list(four.domains)
    assert "perplexity ratio" in printed(VARIANTS["four"], 130)


def test_surprise_under_the_writer_and_its_change_stand_beside_that_under_the_reference():
    found = report("one")
    view = trajectory(found)

    def column(table, name):
        at = [one.label for one in table.columns].index(name)
        return [(row[at].text.lstrip("+"), row[at].note) for row in table.rows]

    def told(means):
        return [(text.value, text.interval) for text in (fmt.estimate(one.mean, one.ci) for one in means)]

    assert column(view.changes, "Own surprise, nats") == told([cell.change.surprise for cell in found.cells])
    assert column(view.changes, "Surprise under p, nats") == told(
        [cell.change.reference_surprise for cell in found.cells]
    )
    assert set(told([cell.text.surprise for cell in found.cells])) < set(column(view.texts, "Own surprise, nats"))


def printed(data, width):
    console = Console(width=width, record=True, file=io.StringIO())
    render_terminal(data, console)
    return console.export_text()


@pytest.mark.parametrize(
    ("used", "asked", "told"),
    [
        (False, False, "tokens, each written on"),
        (True, False, "tokens, conversations in the chat template, each written on"),
        (True, True, "tokens, in the chat template, each written on"),
    ],
)
def test_the_template_is_said_of_the_prompts_that_stand_in_it(used, asked, told):
    found = report("one")
    request = (found.request or {}) | {"chat": asked}
    assert told in note(found.model_copy(update={"chat_template": used, "request": request}))


def test_the_two_means_beside_a_factor_divide_to_it():
    made = copy.deepcopy(VARIANTS["one"])
    kl = made["cells"][0]["amplification"]
    kl["kl"] |= {"value": 0.75, "ci": [0.4, 1.2]}
    kl["kl_reference_text"] |= {"mean": 0.48, "ci": [0.4, 0.6]}
    kl["kl_candidate_text"] |= {"mean": 0.36, "ci": [0.3, 0.5]}
    for name in ("kl_reference_text", "kl_candidate_text"):
        made["cells"][0][name] |= {"mean": 0.9, "ci": [0.8, 1.0]}
    shown = trajectory(TrajectoryReport.model_validate(made))
    assert [cell.text for cell in shown.amplification.rows[0][1:4]] == ["0.48", "0.36", "0.75"]
    assert shown.figures[2].value == "0.36"
    assert "the positions that both texts have, as the factor is" in render(made)


def test_a_factor_without_an_interval_has_its_reason_on_the_page():
    made = copy.deepcopy(VARIANTS["one"])
    for cell in made["cells"]:
        for name in ("kl", "tokens"):
            cell["amplification"][name] |= {"ci": [0.5, 1.5], "above_one": False}
    assert "no interval" not in trajectory(TrajectoryReport.model_validate(made)).amplification_note
    made["cells"][0]["amplification"]["tokens"] |= {"ci": None, "above_one": None}
    shown = trajectory(TrajectoryReport.model_validate(made))
    assert "A factor has no interval where fewer than six prompts (all, of fewer; two at least) tell of it" in (
        shown.amplification_note
    )
    assert shown.amplification.rows[0][-1].note == "no interval"
