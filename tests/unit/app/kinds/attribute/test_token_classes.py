"""The kinds of token that parts hurt."""

from app.kinds.attribute.report import AttributeReport
from app.kinds.attribute.token_classes import class_sentence, token_classes
from app.reports.blocks import Fold, Note, Section, Table
from tests.support.attribute_reports import attribute_report, attribute_variants, by_kind, first, site, subset_classes

VARIANTS = attribute_variants()


def read(report):
    return AttributeReport.model_validate(report)


def section(report):
    (found,) = token_classes(read(report))
    assert isinstance(found, Section)
    return found


def kinds(report):
    return next(block for block in section(report).blocks if isinstance(block, Table))


def note(report):
    return next(block.text for block in section(report).blocks if isinstance(block, Note) and block.kind == "note")


def further(report):
    folds = [block for block in section(report).blocks if isinstance(block, Fold)]
    return [one for fold in folds for one in fold.blocks if isinstance(one, Table)]


def test_each_part_has_the_numbers_of_the_report_by_kind():
    table = kinds(VARIANTS["full"])
    assert [column.label for column in table.columns] == [
        "Kind",
        "Whole candidate, nats",
        "layers.1.mlp.down_proj, nats",
        "layers.1.self_attn.heads.0, nats",
        "layers.6, nats",
    ]
    every, numbers, json_structure, _, none = table.rows
    assert (every[0].text, every[0].note) == ("All tokens", "3,900 tokens, 100 %")
    assert (every[2].text, every[3].text) == ("0.180", "0.0500")
    assert (numbers[0].text, numbers[0].note) == ("Numbers", "240 tokens, 6.15 %")
    # 3.1 times 0.18 on 240 of 3,900 tokens
    assert numbers[2].text == "0.56"
    assert numbers[2].note.endswith("19.1 % of it")
    assert [cell.strong for cell in numbers[1:]] == [False, True, False, False]
    assert [cell.strong for cell in json_structure[1:]] == [False, False, True, False]
    assert none[0].text == "In no class"


def test_further_parts_and_what_restoring_gains_have_tables_of_their_own():
    tables = further(VARIANTS["full"])
    assert [len(one.columns) - 1 for one in tables] == [4, 4, 2]
    gained = tables[-1]
    names = ["layers.1.mlp.down_proj, nats", "layers.1.self_attn.heads.0, nats"]
    assert [column.label for column in gained.columns[1:]] == names
    assert gained.rows[1][1].text == "0.45"


def test_the_note_counts_parts_and_differences():
    for text in ("all 32 parts", "11 of these parts", "over 6 differences", "Chat template, Tool names"):
        assert text in note(VARIANTS["full"])
    assert "the first 12 of 32 parts" in note(VARIANTS["full"] | {"token_classes": subset_classes(12, 6)})


def test_a_part_that_saw_the_first_tokens_alone_names_them():
    seen = site("layers.0", 0.1, kind="layer", layer=0, tokens=1950, classes=by_kind(0.1, {}))
    table = kinds(attribute_report(sites=[first("layers.1", 0.2, classes=by_kind(0.2, {})), seen]))
    assert table.rows[0][3].note.endswith(", on the first 1,950 tokens")
    assert "first" not in table.rows[0][2].note


def test_only_differences_beyond_chance_are_named():
    told = class_sentence(read(VARIANTS["full"]))
    assert "layers.1.mlp.down_proj costs more on numbers; " in told
    assert "layers.1.self_attn.heads.0 costs more on JSON structure and less on punctuation." in told

    def of(p_value):
        classes = [one | {"p_value": p_value if "p_value" in one else None} for one in by_kind(0.2, {}, judged=True)]
        return class_sentence(read(attribute_report(sites=[first("layers.1", 0.2, classes=classes)])))

    assert of(0.2).startswith("No part is shown")
    assert of(None).startswith("Too few documents")
    untried = attribute_report(sites=[site("layers.0", 0.1, kind="layer", layer=0, classes=by_kind(0.1, {}))])
    assert class_sentence(read(untried)) == ""


def test_gaps_have_kinds_of_token_too():
    table = kinds(VARIANTS["other-depth"])
    assert [column.label for column in table.columns[1:]] == ["Whole candidate, nats", "dropped layers 7, 8, nats"]
    assert table.rows[1][2].text == "0.60"
    assert further(VARIANTS["other-depth"]) == []
    assert "scored or not" in note(VARIANTS["other-depth"])
