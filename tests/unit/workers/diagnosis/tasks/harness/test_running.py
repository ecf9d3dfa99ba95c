"""Tasks by the harness' own definitions: what they ask and how answers are scored, against cases made by hand."""

from typing import Any

import numpy as np
import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.requests.tasks import HarnessTask
from app.models.tasks.harness import HarnessRows
from workers.diagnosis.tasks.harness.running import Harnessed, prepare, run

Row = dict[str, Any]
HELLASWAG = [
    {
        "activity_label": "Roof shingle removal",
        "ctx_a": f"A man is sitting on {number} roofs.",
        "ctx_b": "he",
        "endings": ["is using wrap.", "starts [substeps] pulling up roofing  on a roof."],
        "label": str(number % 2),
    }
    for number in range(4)
]
WINOGRANDE = [
    {"sentence": "Ann was faster than Bea so _ won the race.", "option1": "Ann", "option2": "Bea", "answer": "1"},
    {"sentence": "Ann was slower than Bea so _ won the race.", "option1": "Ann", "option2": "Bea", "answer": "2"},
]
SUMS = [{"question": f"{number} and {number}?", "answer": f"It is\n#### {2 * number}"} for number in range(1, 6)]
SHOWN = [{"question": f"{number} and 1?", "answer": f"It is\n#### {number + 1}"} for number in range(20, 30)]
SECRET = "A man is sitting"


def task(name: str, **fields: Any) -> HarnessTask:
    return HarnessTask.model_validate({"source": "harness", "task": name, "path": "items.jsonl"} | fields)


def prepared(name: str, rows: list[Row], examples: list[Row] | None = None, **fields: Any) -> Harnessed:
    if examples:
        fields["examples"] = "examples.jsonl"
    return prepare(task(name, **fields), HarnessRows(rows, examples or ()), seed=3, pointer="/tasks/0")


def test_multiple_choice_is_asked_as_defined_and_scored_by_characters_too() -> None:
    asked = prepared("hellaswag", HELLASWAG)
    assert asked.metric == "acc"
    first = asked.items[0]
    prompt = "Roof shingle removal: A man is sitting on 0 roofs. He"
    long = "starts pulling up roofing on a roof."
    assert first.asked == ((prompt, " is using wrap."), (prompt, f" {long}"))
    assert (first.id, first.prompt, first.gold) == ("1", prompt, 0)
    # As a whole the short one wins; a character, −13/14 < −30/36.
    assert (len("is using wrap."), len(long)) == (14, 36)
    scored = asked.choices_scored([np.asarray([-13.0, -30.0])] * 4)
    assert scored.right["acc"].tolist() == [True, False, True, False]
    assert scored.right["acc_norm"].tolist() == [False, True, False, True]


def test_a_likelihood_that_is_no_number_is_never_chosen() -> None:
    asked = prepared("hellaswag", HELLASWAG)
    nothing, one = np.asarray([np.nan, np.nan]), np.asarray([np.nan, -900.0])
    scored = asked.choices_scored([nothing, nothing, one, one])
    assert scored.right["acc"].tolist() == [False, False, False, True]


def test_choices_in_the_middle_of_a_sentence_are_put_before_what_is_scored() -> None:
    asked = prepared("winogrande", WINOGRANDE)
    after = " won the race."
    assert asked.items[1].asked == (
        ("Ann was slower than Bea so Ann", after),
        ("Ann was slower than Bea so Bea", after),
    )
    assert (asked.items[1].prompt, asked.items[1].gold) == ("Ann was slower than Bea so ", 1)
    scored = asked.choices_scored([np.asarray([-1.0, -2.0])] * 2)
    assert scored.right["acc"].tolist() == [True, False]


def test_generated_answers_go_through_each_filter_of_the_definition() -> None:
    asked = prepared("gsm8k", SUMS, shots=0, max_tokens=40)
    assert (asked.stops, asked.max_tokens) == (("Question:", "</s>", "<|im_end|>"), 40)
    assert asked.items[0].context == "Question: 1 and 1?\nAnswer:"
    assert asked.metric == "exact_match,strict-match"
    scored = asked.texts_scored(["#### 2", "It is 4", "#### 7", "none", "#### 10 or 11"])
    assert scored.right["exact_match,strict-match"].tolist() == [True, False, False, False, True]
    assert scored.right["exact_match,flexible-extract"].tolist() == [True, True, False, False, False]
    assert scored.said["exact_match,strict-match"] == ("2", None, "7", None, "10")
    assert scored.said["exact_match,flexible-extract"] == ("2", "4", "7", None, "11")
    assert prepared("gsm8k", SUMS, shots=0, filter="flexible-extract").metric == "exact_match,flexible-extract"


def test_solved_examples_are_the_files_and_the_same_for_both_models() -> None:
    asked = prepared("gsm8k", SUMS, SHOWN, shots=2)
    assert asked.definition.shots == 2
    solved = {f"Question: {row['question']}\nAnswer: {row['answer']}" for row in SHOWN}
    for item in asked.items:
        *before, question = item.context.split("\n\n")
        assert len(before) == 2
        assert set(before) <= solved
        assert question.startswith("Question: ")
    assert len({item.context.rpartition("\n\n")[0] for item in asked.items}) > 1  # the sampler is the definition's own
    twice = [run(asked.task, asked.drawn, ["#### 2"] * len(SUMS), seed=3) for _ in range(2)]
    assert [one["arguments"] for one in twice[0]] == [one["arguments"] for one in twice[1]]
    assert twice[0][0]["arguments"][0][0] == asked.items[0].context


def test_items_are_drawn_by_the_seed_and_keep_their_numbers() -> None:
    asked = prepared("gsm8k", SUMS, shots=0, items=3)
    assert asked.drawn is not None
    assert [item.id for item in asked.items] == [str(index + 1) for index in asked.drawn]
    contexts = [f"Question: {SUMS[index]['question']}\nAnswer:" for index in asked.drawn]
    assert [item.context for item in asked.items] == contexts
    right = [f"#### {2 * (index + 1)}" for index in asked.drawn]
    assert asked.texts_scored([*right[:2], "#### 0"]).right[asked.metric].tolist() == [True, True, False]


def test_the_version_of_the_definition_is_told() -> None:
    told = prepared("hellaswag", HELLASWAG).definition
    assert (told.task, told.version, told.task_version, told.shots) == ("hellaswag", "0.4.13", "1.0", 0)


@pytest.mark.parametrize(
    ("name", "items", "fields", "pointer", "words"),
    [
        ("helaswag", HELLASWAG, {}, "task", "there is no such task"),
        ("mmlu", HELLASWAG, {}, "task", "it is a group of tasks"),
        ("wikitext", HELLASWAG, {}, "task", r"likelihood of a text \(loglikelihood_rolling\)"),
        ("lambada_openai", HELLASWAG, {}, "task", r"likelihood of a text \(loglikelihood\)"),
        ("humaneval", HELLASWAG, {}, "task", "runs what the model writes"),
        ("gsm8k_cot_self_consistency", SUMS, {}, "task", "drawn at random"),
        ("gsm8k", SUMS, {}, "examples", "5 solved examples stand before each item, and no file"),
        ("gsm8k", SUMS, {"shots": 0, "metric": "acc"}, "metric", "no metric acc of right and wrong"),
        ("gsm8k", SUMS, {"shots": 0, "filter": "none-such"}, "filter", "no filter none-such"),
        (
            "gsm8k",
            HELLASWAG,
            {"shots": 0},
            "path",
            "does not take item 1 of items.jsonl: the field question is missing",
        ),
        ("hellaswag", SUMS, {}, "path", "does not take item 1 of items.jsonl: the field"),
        ("hellaswag", [*HELLASWAG, HELLASWAG[0] | {"label": ""}], {}, "path", "does not take item 5 of items.jsonl"),
        ("hellaswag", [*HELLASWAG, HELLASWAG[0] | {"label": "7"}], {}, "path", "item 5: the answer is none of the 2"),
        (
            "gsm8k",
            [*SUMS, {"question": "6 and 6?"}],
            {"shots": 0},
            "path",
            "item 6: the field answer is missing or null",
        ),
        ("gsm8k", [*SUMS, SUMS[0] | {"answer": 2}], {"shots": 0}, "path", "the items do not become a table"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(
    name: str, items: list[Row], fields: dict[str, Any], pointer: str, words: str
) -> None:
    with pytest.raises(HemostatError, match=words) as refused:
        prepared(name, items, **fields)
    assert refused.value.code is ErrorCode.TASK_INVALID
    assert refused.value.pointer == f"/tasks/0/{pointer}"
    assert SECRET not in f"{refused.value} {refused.value.hint}"


def test_shares_of_several_right_choices_are_refused() -> None:
    row = {"question": "Q?", "mc2_targets": {"choices": ["a", "b", "c"], "labels": [1, 1, 0]}}
    with pytest.raises(HemostatError, match="acc gives other numbers than right and wrong"):
        prepared("truthfulqa_mc2", [row] * 3)


def test_a_metric_between_right_and_wrong_does_not_decide() -> None:
    date = {"day": "", "month": "", "year": ""}
    answer = {"number": "", "date": date, "spans": ["the sun", "the stars"]}
    nothing: dict[str, list[object]] = {"number": [], "date": [], "spans": []}
    rows = [
        {"query_id": str(n), "passage": "p", "question": "q", "answer": answer, "validated_answers": nothing}
        for n in range(3)
    ]
    assert prepared("drop", rows).metric == "em"
    with pytest.raises(HemostatError, match="f1 gives other numbers than right and wrong"):
        prepared("drop", rows, metric="f1")
