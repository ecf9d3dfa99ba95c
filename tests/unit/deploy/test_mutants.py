"""The faults that `make mutants` plants: those of the list fit today's code, and the operators change what they say."""

import ast
import random

import pytest

from deploy.mutants import ROOT, by_hand, by_seed, drawn, faulty


def test_each_fault_of_the_list_fits_the_code_and_names_tests_that_exist() -> None:
    faults = list(by_hand())
    assert faults
    assert all((ROOT / test).exists() for fault in faults for test in fault.tests)


def test_a_drawn_fault_is_another_program_that_python_reads() -> None:
    for fault in by_seed(seed=3, count=30):
        assert ast.dump(ast.parse(fault.changed)) != ast.dump(ast.parse((ROOT / fault.file).read_text()))


def test_the_same_seed_draws_the_same_faults() -> None:
    one, other = ([fault.name for fault in by_seed(seed=seed, count=8)] for seed in (5, 5))
    assert one == other


@pytest.mark.parametrize(
    ("sound", "broken"),
    [
        ("a < b", "a <= b"),
        ("a - b", "a + b"),
        ("a and b", "a or b"),
        ("min(a, b)", "max(a, b)"),
        ("7", "8"),
        ("True", None),
        ("f(a)", None),
    ],
)
def test_an_operator_makes_one_fault(sound: str, broken: str | None) -> None:
    made = faulty(ast.parse(sound, mode="eval").body)
    assert (None if made is None else ast.unparse(made)) == broken


def test_one_place_of_a_module_is_changed() -> None:
    file = "app/verdicts.py"
    fault = drawn(file, (), random.Random(1))
    before = ast.unparse(ast.parse((ROOT / file).read_text())).splitlines()
    differing = [line for line in fault.changed.splitlines() if line not in before]
    assert len(differing) == 1
