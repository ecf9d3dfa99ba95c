"""Definitions of the harness by name, and what they print."""

import pytest

from app.contracts.errors import HemostatError
from tests.support.harness_tasks import HELLASWAG, SECRET, WINOGRANDE, prepared


def test_a_group_is_told_its_tasks_and_not_the_groups_in_it() -> None:
    with pytest.raises(HemostatError, match="it is a group of tasks") as refused:
        prepared("mmlu", HELLASWAG)
    assert refused.value.hint.startswith("ask for its tasks one by one; valid: mmlu_abstract_algebra, mmlu_anatomy, ")
    assert refused.value.hint.endswith("(57 in all)")


def test_a_name_that_is_misspelt_is_told_its_neighbours() -> None:
    with pytest.raises(HemostatError) as refused:
        prepared("pica", [{}, {}])
    assert refused.value.hint is not None
    assert "piqa" in refused.value.hint
    assert len(refused.value.hint) < 100


def test_the_version_of_the_definition_is_told() -> None:
    told = prepared("hellaswag", HELLASWAG).definition
    assert (told.task, told.version, told.task_version, told.shots) == ("hellaswag", "0.4.13", "1.0", 0)


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
