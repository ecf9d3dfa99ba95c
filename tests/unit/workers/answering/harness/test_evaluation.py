"""What the harness' evaluator makes of answers that were given before."""

from tests.support.harness_tasks import SHOWN, SUMS, prepared
from workers.answering.harness.evaluation import run


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
