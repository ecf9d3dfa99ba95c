"""Tasks by the harness' own definitions: what they ask and how answers are scored, against cases made by hand."""

from typing import Any

import numpy as np
import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.models.tasks.harness import HarnessRows
from tests.support.distributions import one_sided
from tests.support.harness_tasks import ARC, HELLASWAG, MMLU, SECRET, SHOWN, SUMS, WINOGRANDE, Row, prepared
from tests.support.tiny import make_tokenizer
from workers.answering.harness.running import NotScoredError
from workers.answering.likelihood import gathered
from workers.answering.prompts import choice_prompts


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


def test_a_side_without_numbers_takes_nothing_from_the_other() -> None:
    asked = prepared("hellaswag", HELLASWAG)
    prompts = choice_prompts(
        asked.items, make_tokenizer(), None, 4096, pointer="/tasks/0", check_cancelled=lambda: None
    )
    counts = [int(np.count_nonzero(window.scored)) for window in prompts.windows]
    sound = np.concatenate([[-(10.0 if n % 2 else 1.0)] * count for n, count in enumerate(counts)])
    found = gathered(prompts, one_sided(sound.astype(np.float32)))
    right = [item.gold == 0 for item in asked.items]
    assert asked.choices_scored(found.reference).right["acc"].tolist() == right
    assert not asked.choices_scored(found.candidate).right["acc"].any()


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


def test_items_are_drawn_by_the_seed_and_keep_their_numbers() -> None:
    asked = prepared("gsm8k", SUMS, shots=0, items=3)
    drawn = [int(item.id) - 1 for item in asked.items]
    assert drawn == sorted(set(drawn))
    contexts = [f"Question: {SUMS[index]['question']}\nAnswer:" for index in drawn]
    assert [item.context for item in asked.items] == contexts
    right = [f"#### {2 * (index + 1)}" for index in drawn]
    assert asked.texts_scored([*right[:2], "#### 0"]).right[asked.metric].tolist() == [True, True, False]


def test_the_number_of_examples_is_part_of_how_answers_are_scored() -> None:
    one, many = (prepared("gsm8k", SUMS, SHOWN, shots=shots) for shots in (1, 8))
    rows_of = HarnessRows(SUMS, SHOWN)
    assert rows_of.fingerprint(one.scoring) != rows_of.fingerprint(many.scoring)


@pytest.mark.parametrize(
    ("name", "items", "fields", "pointer", "words"),
    [
        ("piqa", HELLASWAG, {"examples": "e.jsonl"}, "shots", "shows no solved examples of its own accord"),
        ("gsm8k", SUMS, {}, "examples", "5 solved examples stand before each item, and no file"),
        ("gsm8k", SUMS, {"shots": 0, "metric": "acc"}, "metric", "no metric acc of right and wrong"),
        ("gsm8k", SUMS, {"shots": 0, "filter": "none-such"}, "filter", "no filter none-such"),
        ("hellaswag", SUMS, {}, "path", r"does not take the items of items.jsonl \(KeyError\)"),
        ("hellaswag", [*HELLASWAG, HELLASWAG[0] | {"label": "7"}], {}, "path", "item 5: the answer is none of the 2"),
        ("gsm8k", [*SUMS, {"question": "6 and 6?"}], {"shots": 0}, "path", "item 6: the field answer is missing"),
        ("gsm8k", [*SUMS, SUMS[0] | {"answer": 2}], {"shots": 0}, "path", "do not become a table"),
        (
            "mmlu_anatomy",
            [*MMLU, MMLU[0] | {"choices": ["a", None, "c", "d"]}],
            {},
            "path",
            "item 5: the field choices",
        ),
        ("arc_easy", [*ARC, {**ARC[0], "choices": {"label": ["A", "B"]}}], {}, "path", "item 4: the field choices"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(
    name: str, items: list[Row], fields: dict[str, Any], pointer: str, words: str
) -> None:
    with pytest.raises(HemostatError, match=words) as refused:
        prepared(name, items, **fields)
    of_file = pointer in {"path", "examples"}
    assert refused.value.code is (ErrorCode.TASK_INVALID if of_file else ErrorCode.INVALID_REQUEST)
    assert refused.value.pointer == f"/tasks/0/{pointer}"
    assert SECRET not in f"{refused.value} {refused.value.hint}"


def test_code_of_a_definition_that_fails_on_an_answer_is_told_without_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = prepared("gsm8k", SUMS, shots=0)

    def fails(doc: Row, results: list[str]) -> Row:
        raise ValueError(results[0])

    monkeypatch.setattr(asked.built.task, "process_results", fails)
    with pytest.raises(NotScoredError, match=r"its own code fails on an answer \(ValueError\)") as refused:
        asked.texts_scored([SECRET] * len(SUMS))
    assert SECRET not in f"{refused.value} {refused.value.hint}"
