"""Tasks by the harness' own definitions: what they ask and how answers are scored, against cases made by hand."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.requests.tasks import HarnessTask
from app.models.tasks.harness import HarnessRows
from workers.diagnosis.context import JobCancelled
from workers.diagnosis.tasks.harness.running import Harnessed, NotScoredError, _asks_nothing, prepare, run

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
MMLU = [
    {"question": f"Q{n}?", "subject": "anatomy", "choices": ["a", "b", "c", "d"], "answer": n % 4} for n in range(4)
]
ARC = [
    {"id": str(n), "question": f"Q{n}?", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "A"}
    for n in range(3)
]
SECRET = "A man is sitting"


def task(name: str, **fields: Any) -> HarnessTask:
    return HarnessTask.model_validate({"source": "harness", "task": name, "path": "items.jsonl"} | fields)


def prepared(name: str, rows: list[Row], examples: list[Row] | None = None, **fields: Any) -> Harnessed:
    if examples:
        fields["examples"] = "examples.jsonl"
    found = HarnessRows(rows, examples or ())
    return prepare(task(name, **fields), found, seed=3, pointer="/tasks/0", check_cancelled=lambda: None)


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
    twice = [run(asked.built.task, ["#### 2"] * len(SUMS), seed=3) for _ in range(2)]
    assert [one["arguments"] for one in twice[0]] == [one["arguments"] for one in twice[1]]
    assert twice[0][0]["arguments"][0][0] == asked.items[0].context


def test_items_are_drawn_by_the_seed_and_keep_their_numbers() -> None:
    asked = prepared("gsm8k", SUMS, shots=0, items=3)
    drawn = [int(item.id) - 1 for item in asked.items]
    assert drawn == sorted(set(drawn))
    contexts = [f"Question: {SUMS[index]['question']}\nAnswer:" for index in drawn]
    assert [item.context for item in asked.items] == contexts
    right = [f"#### {2 * (index + 1)}" for index in drawn]
    assert asked.texts_scored([*right[:2], "#### 0"]).right[asked.metric].tolist() == [True, True, False]


def test_an_item_has_the_number_of_its_row_where_a_definition_leaves_others_out() -> None:
    rows = [
        {
            "category": "law" if number < 3 else "biology",
            "question": f"Q{number}",
            "options": list("abcdefghij"),
            "answer": "A",
            "answer_index": 0,
            "question_id": number,
            "cot_content": "",
            "src": "s",
        }
        for number in range(6)
    ]
    examples = [
        rows[0] | {"category": "biology", "question": "other", "cot_content": "A: Let's think. The answer is (A)."}
    ]
    asked = prepared("mmlu_pro_biology", rows, examples, shots=1)
    assert [item.id for item in asked.items] == ["4", "5", "6"]


def test_choices_that_a_definition_shuffles_are_scored_as_they_were_asked() -> None:
    rows = [
        {
            "Question": f"Which is {number}?",
            "Correct Answer": f"right {number}",
            **{f"Incorrect Answer {wrong}": f"wrong {number} {wrong}" for wrong in (1, 2, 3)},
        }
        for number in range(30)
    ]
    asked, again = prepared("gpqa_main_zeroshot", rows), prepared("gpqa_main_zeroshot", rows)
    assert [item.asked for item in asked.items] == [item.asked for item in again.items]
    assert len({item.gold for item in asked.items}) > 1
    likely = []
    for number, item in enumerate(asked.items):
        (letter,) = [line[1] for line in item.context.splitlines() if line.endswith(f") right {number}")]
        likely.append(np.where([choice == f"({letter})" for choice in item.choices], -1.0, -9.0))
        assert item.choices[item.gold] == f"({letter})"
    for _ in range(2):
        assert asked.choices_scored(likely).right["acc"].all()


def test_what_a_coin_would_answer_is_at_chance() -> None:
    rows = [{"question": f"is it {n}", "passage": "p", "label": n % 2, "idx": n} for n in range(40)]
    asked = prepared("boolq-seq2seq", rows)
    assert asked.guess == pytest.approx(0.5)
    assert prepared("gsm8k", SUMS, shots=0).guess == 0.0


def test_the_number_of_tokens_and_of_examples_are_the_definition_s_under_any_name() -> None:
    rows = [
        {"idiom_start": f"a {n}", "accepted_completions": ["b"], "idiom": "a b", "language": "nob"} for n in range(3)
    ]
    assert prepared("noridiom_nob_p0", rows).max_tokens == 16
    one, many = (prepared("gsm8k", SUMS, SHOWN, shots=shots) for shots in (1, 8))
    rows_of = HarnessRows(SUMS, SHOWN)
    assert rows_of.fingerprint(one.scoring) != rows_of.fingerprint(many.scoring)


def test_the_same_question_among_the_examples_is_found_whatever_else_the_row_says() -> None:
    same = [row | {"id": number + 100} for number, row in enumerate(SUMS)]
    rows = [row | {"id": number} for number, row in enumerate(SUMS)]
    with pytest.raises(HemostatError, match="stands among what solved examples are taken from") as refused:
        prepared("gsm8k", rows, same, shots=3)
    assert refused.value.pointer == "/tasks/0/examples"


GPQA = [
    {"Question": f"Which {n} is it?", "Correct Answer": f"right {n}"}
    | {f"Incorrect Answer {place}": f"wrong {n} {place}" for place in (1, 2, 3)}
    for n in range(6)
]


@pytest.mark.parametrize("name", ["gpqa_main_n_shot", "gpqa_main_cot_n_shot"])
@pytest.mark.parametrize("seed", range(3))
def test_a_question_into_which_choices_are_shuffled_is_found_among_the_examples(name: str, seed: int) -> None:
    def asked(rows: list[Row], examples: list[Row]) -> Harnessed:
        found = HarnessRows(rows, examples)
        wanted = task(name, examples="examples.jsonl", shots=3)
        return prepare(wanted, found, seed=seed, pointer="", check_cancelled=lambda: None)

    with pytest.raises(HemostatError, match="stands among what solved examples are taken from"):
        asked(GPQA[:3], [row | {"Record ID": n} for n, row in enumerate(GPQA)])
    assert len(asked(GPQA[:2], GPQA[2:]).items) == 2


def test_an_item_that_stands_twice_is_found_among_the_examples_too() -> None:
    with pytest.raises(HemostatError, match="stands among what solved examples are taken from"):
        prepared("gpqa_main_n_shot", [GPQA[0], *GPQA[:2]], GPQA, shots=2)


def test_a_blank_field_that_is_not_asked_empties_no_question() -> None:
    """Its prompt is made of a list; the comment is never shown."""
    rows = [
        {"question": "", "messages": "", "story": "A cat sat.", "id": "1", "source": " "}
        | {"questions": {"input_text": ["Who sat?"], "turn_id": [1]}}
        | {"answers": {"input_text": ["the cat"], "turn_id": [1]}, "additional_answers": {}}
    ] * 3
    assert len(prepared("coqa", rows).items) == 3
    piqa = [{"goal": f"open {n}", "sol1": "turn", "sol2": "shout", "label": n % 2, "comment": ""} for n in range(3)]
    assert len(prepared("piqa", piqa).items) == 3


def test_a_prompt_made_of_a_list_is_not_taken_for_empty_because_a_comment_is_blank() -> None:
    asked = SimpleNamespace(multiple_input=False, doc_to_text=lambda doc: f"Sentence: {doc['tokens']}")
    assert not _asks_nothing(asked, {"tokens": ["a", "cat"], "comment": " "})
    assert _asks_nothing(SimpleNamespace(multiple_input=False, doc_to_text=lambda doc: f"Q: {doc['q']}"), {"q": " "})


def test_an_empty_choice_in_a_field_of_its_own_is_refused() -> None:
    rows = [
        {"instruction": f"Q{n}?", "option_a": "w", "option_b": "x", "option_c": "y", "option_d": "z", "answer": "A"}
        for n in range(3)
    ]
    with pytest.raises(HemostatError, match="item 4: choice 2 is empty"):
        prepared("m_mmlu_de", [*rows, rows[0] | {"option_b": ""}], shots=0)
    asked = {"question": "Q?", "options": ["a", "", "c"], "answer": "A", "answer_index": 0, "category": "law"}
    with pytest.raises(HemostatError, match="item 1: choice 2 is empty"):
        prepared("mmlu_pro_law", [asked | {"cot_content": "", "question_id": n} for n in range(3)], shots=0)


def test_sentences_that_begin_alike_are_not_one_question() -> None:
    rows = [
        {"sentence": f"The {what} fell because _ was big.", "option1": "Ann", "option2": "Bea", "answer": "1"}
        for what in ("box", "cup")
    ]
    other = {"sentence": "The box fell because _ was small and red.", "option1": "Ann", "option2": "Bea", "answer": "1"}
    assert len(prepared("winogrande", rows, [other, WINOGRANDE[0]], shots=1).items) == 2
    with pytest.raises(HemostatError, match="stands among what solved examples are taken from"):
        prepared("winogrande", rows, [other, rows[0] | {"answer": "2"}], shots=1)


def test_a_grade_over_several_right_answers_is_found_before_any_model_is_asked() -> None:
    def said(text: str) -> Row:
        return {"input_text": [text], "turn_id": [1], "span_start": [0], "span_end": [7], "span_text": ["The cat"]}

    row = {
        "id": "1",
        "source": "s",
        "story": "The cat sat on the mat.",
        "questions": {"input_text": ["Who sat?"], "turn_id": [1]},
        "answers": said("the cat"),
        "additional_answers": {str(n): said(text) for n, text in enumerate(("cat", "a furry cat", "tom"))},
    }
    with pytest.raises(HemostatError, match="em gives other numbers than right and wrong"):
        prepared("coqa", [row] * 3)


def test_a_group_is_told_its_tasks_and_not_the_groups_in_it() -> None:
    with pytest.raises(HemostatError, match="it is a group of tasks") as refused:
        prepared("mmlu", HELLASWAG)
    assert refused.value.hint.startswith("ask for its tasks one by one; valid: mmlu_abstract_algebra, mmlu_anatomy, ")
    assert refused.value.hint.endswith("(57 in all)")


def test_it_asks_between_items_whether_to_stop() -> None:
    asked: list[int] = []

    def check() -> None:
        asked.append(1)
        if len(asked) > 2:
            raise JobCancelled

    with pytest.raises(JobCancelled):
        prepare(task("gsm8k", shots=0), HarnessRows(SUMS, ()), seed=0, pointer="", check_cancelled=check)
    assert len(asked) == 3


def test_what_a_definition_prints_or_looks_up_is_not_told(capfd: pytest.CaptureFixture[str]) -> None:
    rows = [{"query": f"{SECRET} {n}", "answer": str(n), "choices": [], "gold": []} for n in range(3)]
    assert len(prepared("agieval_math", [*rows, rows[0] | {"answer": ""}]).items) == 4
    sentence = {"sentence": "Ann _ Bea.", "option1": "Ann", "option2": "Bea", "answer": "Reykjavik"}
    with pytest.raises(HemostatError) as refused:
        prepared("winogrande", [WINOGRANDE[0], sentence])
    assert "Reykjavik" not in f"{refused.value} {refused.value.hint}"
    out, err = capfd.readouterr()
    assert SECRET not in out + err
    assert "it/s" not in err


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
        ("blimp_adjunct_island", HELLASWAG, {}, "task", "asks nothing before its choices"),
        ("piqa", HELLASWAG, {"examples": "e.jsonl"}, "shots", "shows no solved examples of its own accord"),
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
        (
            "gsm8k",
            [*SUMS, SUMS[0] | {"answer": 2}],
            {"shots": 0},
            "path",
            "item 6: the field answer is of another type",
        ),
        (
            "mmlu_anatomy",
            [*MMLU, MMLU[0] | {"choices": ["a", None, "c", "d"]}],
            {},
            "path",
            "item 5: a list in the field",
        ),
        ("mmlu_anatomy", [*MMLU, MMLU[0] | {"choices": ["a", "", "c", "d"]}], {}, "path", "item 5: choice 2 is empty"),
        ("mmlu_anatomy", [*MMLU, MMLU[0] | {"question": " "}], {}, "path", "item 5: the question is empty"),
        (
            "arc_easy",
            [*ARC, {**ARC[0], "choices": {"label": ["A", "B"]}}],
            {},
            "path",
            "item 4: the field choices.text",
        ),
        ("gsm8k", [*SUMS, {"question": "", "answer": "#### 2"}], {"shots": 0}, "path", "item 6: the question is empty"),
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


def test_what_only_a_models_answer_shows_leaves_one_task_unscored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A definition that grades an answer in between, and one that asks something else when it is read again."""
    asked = prepared("gsm8k", SUMS, shots=0)
    other = replace(asked, items=tuple(reversed(asked.items)))
    with pytest.raises(NotScoredError, match="it asks something else each time it is read"):
        other.texts_scored(["#### 2"] * len(SUMS))
    monkeypatch.setattr(asked.built.task, "process_results", lambda *_: {"exact_match": 0.5})
    with pytest.raises(NotScoredError, match="gives other numbers than right and wrong"):
        asked.texts_scored(["#### 2"] * len(SUMS))


def test_a_name_that_is_misspelt_is_told_its_neighbours() -> None:
    with pytest.raises(HemostatError) as refused:
        prepared("pica", [{}, {}])
    assert refused.value.hint is not None
    assert "piqa" in refused.value.hint
    assert len(refused.value.hint) < 100


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
