"""The kinds of token that parts hurt, on the page and in the terminal of an attribution."""

import io
from typing import Any

from rich.console import Console

from app.kinds.attribute.report import AttributeReport
from app.web.report import render
from app.web.sections.attribute_classes import class_sentence, part_classes
from app.web.terminal import render_terminal
from tests.support.attribute_reports import attribute_report, attribute_variants, by_kind, first, site, subset_classes

VARIANTS = attribute_variants()
Json = dict[str, Any]


def read(report: Json) -> AttributeReport:
    return AttributeReport.model_validate(report)


def test_what_each_part_hurts_is_said_in_one_sentence_and_stands_in_the_table() -> None:
    report = read(VARIANTS["full"])
    told = class_sentence(report)
    assert told == (
        "layers.1.mlp.down_proj costs more on numbers; layers.1.self_attn.heads.0 costs more on JSON structure and "
        "less on punctuation: each against the part’s own mean on all other tokens."
    )
    page = render(VARIANTS["full"])
    assert told in page
    view = part_classes(report)
    assert view is not None
    assert [column.label for column in view.kinds.columns] == [
        "Kind",
        "Whole candidate, nats",
        "layers.1.mlp.down_proj, nats",
        "layers.1.self_attn.heads.0, nats",
        "layers.6, nats",
    ]
    every, numbers, json_structure, _, none = view.kinds.rows
    assert (every[0].text, every[0].note) == ("All tokens", "3,900 tokens, 100 %")
    assert (every[2].text, every[3].text) == ("0.180", "0.0500")
    assert (numbers[0].text, numbers[0].note) == ("Numbers", "240 tokens, 6.15 %")
    # 3.1 times 0.18 on 240 of 3,900 tokens
    assert numbers[2].text == "0.56"
    assert numbers[2].note.endswith("19.1 % of it")
    assert [cell.strong for cell in numbers[1:]] == [False, True, False, False]
    assert [cell.strong for cell in json_structure[1:]] == [False, False, True, False]
    assert none[0].text == "In no class"


def test_further_parts_and_what_restoring_gains_are_folded() -> None:
    view = part_classes(read(VARIANTS["full"]))
    assert view is not None
    restored = [one for one in view.further if one.caption.startswith("What restoring a part gains")]
    further = [one for one in view.further if one.caption.startswith("Further parts")]
    assert [len(one.columns) - 1 for one in further] == [4, 4]
    (gained,) = restored
    assert [column.label for column in gained.columns[1:]] == [
        "layers.1.mlp.down_proj, nats",
        "layers.1.self_attn.heads.0, nats",
    ]
    assert gained.rows[1][1].text == "0.45"
    assert "<summary>Further parts, and what restoring gains</summary>" in render(VARIANTS["full"])


def test_how_many_parts_and_differences_there_are_is_told() -> None:
    view = part_classes(read(VARIANTS["full"]))
    assert view is not None
    assert "Kinds are told of all 32 parts" in view.note
    shown = [view.kinds, *(one for one in view.further if one.caption.startswith("Further"))]
    # Kind, and the whole candidate in the first of them.
    assert sum(len(one.columns) - 1 for one in shown) - 1 == 11
    assert "11 of these parts stand here, those that were looked into first; the report’s JSON has all." in view.note
    assert "adjusted over 6 differences by Holm’s rule" in view.note
    assert "Not in this part of the text: Chat template, Tool names." in view.note
    some = VARIANTS["full"] | {"token_classes": subset_classes(12, 6)}
    view = part_classes(read(some))
    assert view is not None
    assert "Kinds are told of the first 12 of 32 parts" in view.note


def test_a_part_that_saw_the_first_tokens_alone_says_so() -> None:
    seen = site("layers.0", 0.1, kind="layer", layer=0, tokens=1950, classes=by_kind(0.1, {}))
    view = part_classes(read(attribute_report(sites=[first("layers.1", 0.2, classes=by_kind(0.2, {})), seen])))
    assert view is not None
    assert view.kinds.rows[0][3].note.endswith(", on the first 1,950 tokens")
    assert "first" not in view.kinds.rows[0][2].note


def test_where_nothing_is_shown_to_differ_that_is_said_and_where_nothing_could_that_too() -> None:
    def told(p_value: float | None) -> str:
        classes = [one | {"p_value": p_value if "p_value" in one else None} for one in by_kind(0.2, {}, judged=True)]
        return class_sentence(read(attribute_report(sites=[first("layers.1", 0.2, classes=classes)])))

    assert told(0.2).startswith("No part is shown to hurt one kind of token more or less than the others")
    assert told(None).startswith("Too few documents hold these kinds of token")
    untried = attribute_report(sites=[site("layers.0", 0.1, kind="layer", layer=0, classes=by_kind(0.1, {}))])
    assert class_sentence(read(untried)) == ""


def test_gaps_are_told_by_kind_too() -> None:
    gaps = part_classes(read(VARIANTS["other-depth"]))
    assert gaps is not None
    assert (gaps.sentence, gaps.further) == ("", ())
    assert [column.label for column in gaps.kinds.columns[1:]] == ["Whole candidate, nats", "dropped layers 7, 8, nats"]
    assert gaps.kinds.rows[1][2].text == "0.60"
    assert "Kinds are told of the one part;" in gaps.note and "scored or not" in gaps.note
    assert "stand here" not in gaps.note


def test_a_terminal_has_the_sentence() -> None:
    stream = io.StringIO()
    render_terminal(VARIANTS["full"], Console(file=stream, width=120, no_color=True))
    flat = " ".join(stream.getvalue().split())
    assert (
        "layers.1.mlp.down_proj costs more on numbers; layers.1.self_attn.heads.0 costs more on JSON structure" in flat
    )
