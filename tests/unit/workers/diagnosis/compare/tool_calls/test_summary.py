"""The block from answers by hand, against scipy's intervals."""

import json

import pytest
from scipy import stats

from app.contracts.text import Tool
from workers.diagnosis.compare.tool_calls.prompts import Prompt
from workers.diagnosis.compare.tool_calls.summary import paired, proportion, summarize

TOOL = Tool(name="add", parameters={"type": "object", "properties": {"a": {"type": "number"}}, "required": ["a"]})
OTHER = Tool(name="sub")


def prompt(number, expected="add"):
    return Prompt(f"d{number}", (1, 2), (TOOL, OTHER), expected)


def call(name="add", **arguments):
    return json.dumps({"name": name, "arguments": arguments})


GOOD, BAD, WRONG, NONE = call(a=1), call(b=1), call("sub"), "no"


def test_the_block_counts_what_was_written():
    prompts = [prompt(number) for number in range(5)] + [prompt(5, None)]
    reference = [GOOD, GOOD, GOOD, NONE, WRONG, WRONG]
    candidate = [GOOD, BAD, NONE, GOOD, WRONG, NONE]
    found = summarize(prompts, reference, candidate, cut_off=(0, 1), max_tokens=9, form="written", store_text=True)
    assert (found.parsable.reference.count, found.parsable.candidate.count) == (5, 4)
    assert (found.valid.reference.count, found.valid.candidate.count) == (5, 3)
    assert (found.valid.lost, found.valid.gained) == (3, 1)
    assert found.right_tool.reference.of == 5
    assert (found.right_tool.reference.count, found.right_tool.candidate.count) == (3, 2)
    assert found.valid.p_value == pytest.approx(stats.binomtest(1, 4).pvalue)
    # d1 parses and is not valid, d2 and d5 hold no call, d3 is the reference's loss; the worst loss stands first.
    assert [one.document for one in found.examples] == ["d2", "d1", "d5", "d3"]
    assert [one.lost for one in found.examples] == ["parsable", "valid", "parsable", "parsable"]
    assert [one.by for one in found.examples] == ["reference", "reference", "reference", "candidate"]
    assert found.examples[1].reason == "arguments break the schema's required"
    assert found.examples[0].candidate == "no"


def test_without_a_call_no_tool_is_right_and_text_is_kept_only_if_it_may_be():
    options = {"cut_off": (0, 0), "max_tokens": 9, "form": "template"}
    found = summarize([prompt(0)], [GOOD], [NONE], store_text=False, **options)
    assert (found.examples[0].reference, found.examples[0].candidate) == (None, None)
    found = summarize([prompt(0, None)], [NONE], [NONE], store_text=True, **options)
    assert found.right_tool is None


@pytest.mark.parametrize(("count", "of"), [(0, 24), (7, 24), (24, 24)])
def test_shares_have_wilson_s_interval(count, of):
    oracle = stats.binomtest(count, of).proportion_ci(method="wilson")
    assert proportion(count, of).ci == pytest.approx((oracle.low, oracle.high))


def test_equal_answers_still_have_an_interval():
    found = paired([True] * 10, [True] * 10)
    assert found.difference == 0
    assert found.ci[0] < 0 < found.ci[1]
    assert found.p_value == 1
