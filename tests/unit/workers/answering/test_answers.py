"""Which answer counts, and when it is right: hand-made cases of the harness's definitions."""

import math

import numpy as np
import pytest

from app.models.tasks.items import Item
from workers.answering.answers import STOPS, choose, cut, extract, matches, program, read_numbers
from workers.answering.sandbox.runner import Ending, run

# Three characters, four bytes; two of each.
ITEM = Item("i", "Q", choices=("née", "ab"), gold=0)


@pytest.mark.parametrize(
    ("logps", "metric", "right"),
    [
        ((-3.0, -2.0), "acc", False),
        ((-3.0, -2.1), "acc_norm", True),  # −1.00 and −1.05 a character
        ((-3.3, -2.1), "acc_norm", False),  # −1.10
        ((-3.3, -2.1), "acc_bytes", True),  # −0.83 a byte
        ((-2.0, -2.0), "acc", True),  # the first of equals
        ((math.nan, -9.0), "acc", False),
        ((-9.0, math.nan), "acc", True),
    ],
)
def test_choices(logps: tuple[float, float], metric: str, right: bool) -> None:
    found = choose([ITEM], [np.asarray(logps)], metric)  # type: ignore[arg-type]
    assert bool(found.right[0]) is right


def test_where_no_likelihood_is_a_number_nothing_was_said() -> None:
    found = choose([ITEM], [np.asarray([math.nan, math.nan])], "acc")
    assert (found.said, found.right.tolist()) == ((None,), [False])


@pytest.mark.parametrize(
    ("text", "strict", "flexible"),
    [
        ("He has 3 + 4 = 7. #### 7", "7", "7"),
        ("#### 1,200 and then 5", "1,200", "5"),
        ("so she pays $18.50.", "[invalid]", "$18.50."),
        ("It is -4", "[invalid]", "-4"),
        ("no number", "[invalid]", "[invalid]"),
        ("#### x", "[invalid]", "[invalid]"),
    ],
)
def test_numbers_are_found_as_the_harness_finds_them(text: str, strict: str, flexible: str) -> None:
    assert extract(text, "exact_match_strict") == strict
    assert extract(text, "exact_match_flexible") == flexible


@pytest.mark.parametrize(
    ("answer", "target", "right"),
    [
        ("18", "He sold ...\n#### 18", True),
        ("$18.", "#### 18", True),
        ("1,200", "#### 1200", True),
        ("18.0", "#### 18", False),
        ("[invalid]", "#### 18", False),
    ],
)
def test_signs_that_do_not_matter_are_left_out(answer: str, target: str, right: bool) -> None:
    assert matches(answer, target) is right


def test_an_answer_without_number_is_none() -> None:
    items = [Item("a", "Q", target="#### 4"), Item("b", "Q", target="#### 5")]
    found = read_numbers(items, ["it is 4", "who knows"], "exact_match_flexible")
    assert (found.said, found.right.tolist()) == (("4", None), [True, False])


def test_generation_ends_at_the_first_stop() -> None:
    assert cut("    return a\n\ndef other():\n  pass\n#", STOPS["humaneval"]) == "    return a\n"
    assert cut(" 4\nQuestion: 5</s>", STOPS["gsm8k"]) == " 4\n"
    assert cut("abc", ("x",)) == "abc"


def test_a_program_is_head_and_completion_and_its_test_judges_it() -> None:
    item = Item("p", "def f(x):\n", test="def check(f):\n    assert f(2) == 4\n", entry_point="f")
    assert run(*program(item, "    return 2 * x")) == Ending("passed")
    assert run(*program(item, "    return x")) == Ending("wrong")
