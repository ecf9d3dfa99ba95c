"""Generated tool calls on a page and in a terminal."""

from app.kinds.compare.report import CompareReport
from app.kinds.compare.tool_calls import sentence
from tests.support.reports import HOSTILE, compare_report


def share(count, of, low, high):
    return {"count": count, "of": of, "share": count / of, "ci": [low, high]}


def pair(reference, candidate, low, high, *, lost, gained, p):
    return {
        "reference": share(
            reference, 24, reference / 24 - 0.2 if reference > 5 else 0.0, min(1.0, reference / 24 + 0.1)
        ),
        "candidate": share(candidate, 24, candidate / 24 - 0.2 if candidate > 5 else 0.0, candidate / 24 + 0.1),
        "difference": (candidate - reference) / 24,
        "ci": [low, high],
        "lost": lost,
        "gained": gained,
        "p_value": p,
    }


BLOCK = {
    "prompts": 24,
    "max_tokens": 128,
    "cut_off": [0, 3],
    "form": "written",
    "parsable": pair(23, 20, -0.33, 0.03, lost=3, gained=0, p=0.25),
    "valid": pair(21, 11, -0.61, -0.19, lost=11, gained=1, p=0.006),
    "right_tool": pair(21, 11, -0.61, -0.19, lost=11, gained=1, p=0.006),
    "rule": "Greedy answers.",
    "examples": [
        {
            "document": "calls-03",
            "lost": "valid",
            "by": "reference",
            "reference": '{"name": "a", "arguments": {}}',
            "candidate": "".join(HOSTILE[:4]),
            "reason": "arguments break the schema's required",
        }
    ],
}
REPORT = compare_report() | {"tool_calls": BLOCK}


def test_the_interval_and_the_exact_test_must_both_show_a_difference():
    """Four of 24 prompts lost and none gained: the interval leaves 0 out, the test beside it does not reject."""
    four = pair(10, 6, -0.359, -0.006, lost=4, gained=0, p=0.125)
    for valid in (BLOCK["parsable"], four):
        found = CompareReport.model_validate(REPORT | {"tool_calls": BLOCK | {"valid": valid}}).tool_calls
        assert "no difference that so many prompts show" in sentence(found)


def test_where_no_model_writes_a_valid_call_nothing_is_said_to_be_the_same():
    none = pair(0, 0, -0.14, 0.14, lost=0, gained=0, p=1.0)
    block = BLOCK | {"parsable": none, "valid": none, "right_tool": none}
    report = CompareReport.model_validate(REPORT | {"tool_calls": block})
    told = sentence(report.tool_calls)
    assert told.startswith("Neither model answers any of 24 prompts with a valid call, so none can be lost")
    assert "has no place for tools" in told
    short = report.tool_calls.model_copy(update={"form": "template", "cut_off": (16, 15)})
    assert "cut off at 128 tokens" in sentence(short)
    assert "no difference" not in told
