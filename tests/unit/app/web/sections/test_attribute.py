"""The page and the terminal of an attribution: what they show, and that nothing is lost or made up."""

import io
import re

import pytest
from rich.console import Console

from app.contracts.report import Mean
from app.kinds.attribute.report import AttributeReport, Pair
from app.web.report import render
from app.web.sections.attribute import attribution
from app.web.sections.attribute_words import additivity_note, cause_text, first_sites, heading, sites_note, whole_damage
from app.web.sections.internals import inside_lines
from app.web.terminal import render_terminal
from tests.support import internals_blocks
from tests.support.attribute_reports import attribute_report, attribute_variants, first, site

VARIANTS = attribute_variants()


def read(name: str) -> AttributeReport:
    return AttributeReport.model_validate(VARIANTS[name])


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_drawn(name: str) -> None:
    page = render(VARIANTS[name])
    assert page.count("<svg") == page.count("</svg>")
    assert VARIANTS[name]["verdict"] in page


def test_the_worst_part_and_every_part_stand_on_the_page() -> None:
    page = render(VARIANTS["full"])
    assert "Worst: layers.1.mlp.down_proj" in page
    for one in read("full").sites:
        assert one.name in page
    assert re.search(r"<summary>12 more parts</summary>", page)


def test_a_negligible_part_does_not_head_the_page_as_the_worst() -> None:
    def report(*causes: str) -> AttributeReport:
        named = zip(("layers.0.mlp.down_proj", "layers.1.mlp.down_proj"), causes, strict=True)
        sites = [first(name, 0.2 - 0.1 * number, cause) for number, (name, cause) in enumerate(named)]
        return AttributeReport.model_validate(attribute_report(sites=sites))

    assert heading(report("negligible", "size")) == "Worst: layers.1.mlp.down_proj"
    assert heading(report("size", "negligible")) == "Worst: layers.0.mlp.down_proj"
    none = report("negligible", "negligible")
    assert heading(none) == "No part to blame"
    alone = attribution(none).figures[0]
    assert (alone.label, alone.note) == ("Most of any part", "layers.0.mlp.down_proj")


def test_a_part_whose_damage_is_not_shown_is_said_to_be_so() -> None:
    sites = [first("layers.0.mlp.down_proj", 0.2, "unclear", shown=False), first("layers.1.mlp.down_proj", 0.1, "size")]
    report = AttributeReport.model_validate(attribute_report(sites=sites))
    assert heading(report) == "Worst: layers.1.mlp.down_proj"
    assert [cause_text(one) for one in report.sites] == ["no damage shown", "mere size"]
    assert "<bdi>no damage shown</bdi>" in render(attribute_report(sites=sites))
    alone = attribute_report(sites=sites[:1])
    assert heading(AttributeReport.model_validate(alone)) == "No part is shown to do damage"
    stream = io.StringIO()
    render_terminal(alone, Console(file=stream, width=120, no_color=True))
    assert "no damage shown" in stream.getvalue()


def test_the_share_of_a_part_that_saw_the_first_tokens_alone_says_so() -> None:
    for tokens, unit in (
        (3900, "% of the whole damage"),
        (1950, "% of the whole damage on the first 1,950 of 3,900 tokens"),
    ):
        sites = [first("layers.0.mlp.down_proj", 0.2, "size") | {"tokens": tokens}]
        report = attribute_report(sites=sites)
        assert attribution(AttributeReport.model_validate(report)).figures[1].unit == unit
        assert unit in render(report)


def test_the_order_of_the_parts_is_told_as_it_is() -> None:
    def note(*tokens: int) -> str:
        sites = [first(f"layers.{n}.mlp.down_proj", 0.2, "size") | {"tokens": seen} for n, seen in enumerate(tokens)]
        report = attribute_report(sites=sites)
        told = sites_note(AttributeReport.model_validate(report))
        stream = io.StringIO()
        render_terminal(report, Console(file=stream, width=120, no_color=True))
        flat = " ".join(stream.getvalue().split())
        order = re.search(r"holds its modules\. (.*?), and each number", told)
        assert order is not None
        assert order[1] in render(report)
        assert order[1] in flat
        return order[1]

    assert note(3900, 3900) == "Rows are in the order of nats before rounding"
    assert note(3900, 1950).startswith(
        "Parts that were measured on more tokens come first (what was dropped in halving"
    )


def test_a_bar_has_the_digits_of_the_table() -> None:
    unsure = site("layers.29", 0.0605, kind="layer", layer=29, ci=[0.0, 0.27], share=0.133, share_ci=[0.1, 0.166])
    view = attribution(AttributeReport.model_validate(attribute_report(sites=[unsure])))
    row = view.sites.rows[0]
    assert view.chart is not None
    assert (row[2].text, row[4].text) == ("0.06", "13.3")
    assert "0.06 · 13.3 %" in view.chart
    assert "0.0605" not in view.chart


def test_a_control_that_is_not_zero_is_said_loudly() -> None:
    assert "exactly 0 for all 2 parts" in sites_note(read("full"))
    assert "NOT 0 for 1 part." in sites_note(read("broken"))


def test_how_many_parts_and_tokens_were_looked_into_is_said() -> None:
    report = read("full")
    assert report.search is not None and report.subset is not None
    told = sites_note(report)
    assert f"were the first 2 of {report.search.measured} measured parts" in told
    for tokens in (report.subset.control_positions, report.subset.twin_positions):
        assert f"{tokens:,} tokens" in told


def test_a_part_that_was_not_looked_into_says_so_and_is_not_called_unclear() -> None:
    report = read("full")
    by_part = {row[1].text: row[8] for row in attribution(report).sites.rows}
    aligned, other = report.sites[0], report.sites[5]
    assert (by_part[aligned.name].text, by_part[aligned.name].note) == ("aligned error", "")
    assert other.cause == "unclear"
    assert by_part[other.name].text == "not looked into"
    stream = io.StringIO()
    render_terminal(VARIANTS["full"], Console(file=stream, width=120, no_color=True))
    assert "not looked into" in stream.getvalue()
    assert "unclear" not in stream.getvalue()
    assert [one.name for one in first_sites(report)] == ["layers.1.mlp.down_proj", "layers.1.self_attn.heads.0"]


def test_unclear_is_what_has_a_treatment_alone() -> None:
    sites = [
        first("layers.0.mlp.down_proj", 0.3, "unclear", unclear="left_open", shown=True),
        first("layers.1.mlp.down_proj", 0.2, "unclear", unclear="no_damage_shown", shown=False),
        site("layers.2", 0.1, kind="layer", layer=2, unclear="not_looked_into"),
    ]
    report = AttributeReport.model_validate(attribute_report(sites=sites))
    assert [cause_text(one) for one in report.sites] == ["unclear", "no damage shown", "not looked into"]


def test_a_gap_says_on_how_much_text_it_was_measured() -> None:
    inside = internals_blocks.dense().model_dump(mode="json")
    told = VARIANTS["other-depth"] | {"internals": inside}
    page, terminal = shown(told)
    measured = "on 768 tokens of 12 documents, where the whole candidate loses"
    assert measured in " ".join(page.split())
    assert measured in terminal


def test_where_no_part_was_swapped_and_no_gap_found_none_is_called_blameless() -> None:
    bare = AttributeReport.model_validate(VARIANTS["other-depth"] | {"sites": []})
    assert heading(bare) == "No part was swapped"


def test_the_terminal_tells_what_goes_on_inside_in_a_few_lines() -> None:
    _, without = shown(VARIANTS["full"])
    assert "Inside the models" not in without
    block = internals_blocks.dense()
    _, told = shown(VARIANTS["full"] | {"internals": block.model_dump(mode="json")})
    assert "Inside the models" in told
    for line in inside_lines(block):
        assert line.split(":")[0] in told
    assert "`internals` of the report (--json)" in told


def test_pairs_that_do_not_add_up_are_counted() -> None:
    report = read("full")
    assert report.additivity is not None
    (pair,) = report.additivity.pairs
    near, unsure = (pair.model_copy(update={"far": False, "near": one}) for one in (True, False))

    def told(*pairs: Pair) -> str:
        assert report.additivity is not None
        additivity = report.additivity.model_copy(update={"pairs": pairs})
        return additivity_note(report.model_copy(update={"additivity": additivity}))

    assert "The one pair of first parts is far from adding up" in told(pair)
    assert "The one pair of first parts adds up to within a tenth" in told(near)
    assert "Whether the one pair of first parts adds up is undecided" in told(unsure)
    assert "1 of 2 pairs of the first parts is far from adding up, 1 adds up to within a tenth (" in told(pair, near)
    assert "None of 3 pairs of the first parts is shown to be far from adding up: 2 add up to within a tenth, 1 is" in (
        told(near, near, unsure)
    )
    all_three = report.additivity.model_copy(update={"pairs": (pair, near, unsure)})
    marks = attribution(report.model_copy(update={"additivity": all_three})).pairs.rows
    assert [row[0].note for row in marks] == ["far from adding up", "adds up to within a tenth", "undecided"]
    unknown = unsure.model_copy(update={"ratio": Mean(mean=1.6, ci=None)})
    assert "Without an interval, whether two of the first parts add up is not told" in told(unknown)
    assert "far from adding up" not in told(unknown, unknown)


def test_a_single_part_is_not_counted_in_the_plural() -> None:
    report = AttributeReport.model_validate(attribute_report(sites=[first("layers.1.mlp.down_proj", 0.18)]))
    told = sites_note(report)
    assert "the first one of" in told
    assert "exactly 0 for it" in told


def test_models_of_another_depth_show_their_gaps_and_why() -> None:
    page = render(VARIANTS["other-depth"])
    assert "dropped layers 7, 8" in page
    assert "30 and 24 layers" in page
    assert heading(read("other-depth")) == "Worst gap: dropped layers 7, 8"
    of_gap = read("other-depth").sites[0].nats
    for kept, told in (
        (of_gap + 0.1, "Worst: what both models have"),
        (0.0, "Worst gap: dropped layers 7, 8"),
    ):
        block = internals_blocks.alignment() | {"matched": {"mean": kept, "ci": None}}
        stayed = read("other-depth").model_copy(update={"internals": internals_blocks.dense(alignment=block)})
        assert heading(stayed) == told
    # Also where no gap is shown to cost anything, or one costs nothing: an identity that was inserted.
    block = internals_blocks.alignment() | {"matched": {"mean": 0.61, "ci": (0.55, 0.67)}}
    for changes in ({"shown": False, "cause": "unclear"}, {"nats": 0.0, "ci": (0.0, 0.0), "cause": "negligible"}):
        body = read("other-depth")
        gap = body.sites[0].model_copy(update={"nats": 0.001} | changes)
        update = {"sites": (gap,), "internals": internals_blocks.dense(alignment=block)}
        assert heading(body.model_copy(update=update)) == "Worst: what both models have"
    unsure = block | {"matched": {"mean": 0.61, "ci": (0.0, 1.2)}}
    update["internals"] = internals_blocks.dense(alignment=unsure)
    assert heading(body.model_copy(update=update)) == "No gap to blame"
    assert "Worst gap alone" in page
    assert "What fits each gap" in page
    assert "layers 7, 8 left in" in page
    for section in ("additivity", "search"):  # of parts, which there are none
        assert f'id="{section}"' not in page
        assert f'href="#{section}"' not in page
        assert f'id="{section}"' in render(VARIANTS["full"])
    assert heading(read("nothing-differs")) == "No part to blame"


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_says_it_without_colour(width: int) -> None:
    stream = io.StringIO()
    render_terminal(attribute_report(), Console(file=stream, width=width, no_color=True))
    text = stream.getvalue()
    assert "WORST: layers.1.mlp.down_proj" in text
    assert "aligned" in text
    assert "quantize.gptq" in text
    assert max(map(len, text.splitlines())) <= width


def shown(report: dict[str, object]) -> tuple[str, str]:
    """The page, and the terminal's lines joined."""
    stream = io.StringIO()
    render_terminal(report, Console(file=stream, width=120, no_color=True))
    return render(report), " ".join(stream.getvalue().split())


def test_a_part_that_is_finite_nowhere_is_the_worst_and_told_loudly() -> None:
    names = ("layers.3.mlp.down_proj", "layers.3")
    kinds = ("module", "layer")
    told = attribute_report() | {
        "nowhere_finite": [
            {"name": name, "kind": kind, "layer": 3, "tokens": 3900} for name, kind in zip(names, kinds, strict=True)
        ]
    }
    report = AttributeReport.model_validate(told)
    assert heading(report) == "Worst: layers.3.mlp.down_proj"
    assert attribution(report).figures[0].label == "Worst of the others"
    words = "layers.3.mlp.down_proj, layers.3: alone in the reference, no logits are finite at any of 3,900 tokens"
    page, terminal = shown(told)
    assert "<b>Nowhere finite.</b>" in page
    assert words in page
    assert f"Nowhere finite: {words}" in terminal
    assert "Nowhere finite" not in "".join(shown(attribute_report()))


def test_where_nothing_was_tried_no_count_of_tried_parts_is_told() -> None:
    def untried(considered: int, beside: int) -> dict[str, object]:
        made = attribute_report(sites=[])
        search = made["search"] | {"considered": considered, "beside": beside, "measured": 0, "rungs": [], "spent": 0}
        verdict = "No norm differs, and nothing outside the layers; what does differ: 3 layers."
        return made | {"search": search, "verdict": verdict, "additivity": None, "explained": None, "treatment": None}

    for considered, beside, head in (
        (0, 30, "Nothing that was asked for differs"),
        (30, 0, "No part was tried"),
        (0, 0, "No part to blame"),
    ):
        report = untried(considered, beside)
        assert heading(AttributeReport.model_validate(report)) == head
        page, terminal = shown(report)
        assert f"<h2>{head}</h2>" in page
        for text in (page, terminal):
            assert "No norm differs, and nothing outside the layers" in text
            assert "measured part" not in text
            assert ("parts that differ were measured" in terminal) == bool(considered)


def test_what_a_sum_is_over_is_named_and_counted() -> None:
    report = read("full")
    assert report.additivity is not None

    def told(*over: str) -> str:
        additivity = report.additivity.model_copy(update={"over": over}) if report.additivity else None
        return additivity_note(report.model_copy(update={"additivity": additivity}))

    assert "times the sum of its 2 layers that differ, each swapped alone" in told("layers.0", "layers.1")
    assert "times the sum of its 1 layer that differs, norm and lm_head, each" in told("layers.0", "norm", "lm_head")


def test_the_terminal_tells_what_the_whole_candidate_loses_with_its_interval() -> None:
    report = read("full")
    page, terminal = shown(VARIANTS["full"])
    words = whole_damage(report)
    assert "[" in words
    assert words in terminal
    assert words in " ".join(page.split())


def test_charts_say_that_they_have_intervals_where_they_have_some() -> None:
    with_ = "The worst parts, each alone in the reference, with 95 % intervals"
    without = with_.replace("with 95", "without 95")
    assert with_ in shown(VARIANTS["full"])[0]
    bare = [site(f"layers.{n}", 0.2 - n / 10, kind="layer", layer=n, ci=None) for n in range(2)]
    page, _ = shown(attribute_report(sites=bare))
    assert without in page and with_ not in page
    assert "Each layer alone in the reference, without 95 % intervals" in page


def test_a_gap_whose_damage_is_not_shown_does_not_head_the_page_as_the_worst() -> None:
    gap = VARIANTS["other-depth"]["sites"][0] | {"shown": False}
    report = AttributeReport.model_validate(VARIANTS["other-depth"] | {"sites": [gap]})
    assert heading(report) == "No gap is shown to do damage"
    assert attribution(report).figures[0].label == "Most of any gap"
    mild = report.model_copy(update={"sites": (report.sites[0].model_copy(update={"cause": "negligible"}),)})
    assert heading(mild) == "No gap to blame"
    assert cause_text(mild.sites[0]) == "negligible"
