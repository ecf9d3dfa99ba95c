"""Definitions of the harness by name, and what they print."""

import pytest

from app.contracts.errors import HemostatError
from tests.support.harness_tasks import HELLASWAG, WINOGRANDE, prepared


def test_the_version_of_the_definition_is_told() -> None:
    told = prepared("hellaswag", HELLASWAG).definition
    assert (told.task, told.version, told.task_version, told.shots) == ("hellaswag", "0.4.13", "1.0", 0)


def test_what_a_definition_prints_or_looks_up_is_not_told(capfd: pytest.CaptureFixture[str]) -> None:
    sentence = {"sentence": "Ann _ Bea.", "option1": "Ann", "option2": "Bea", "answer": "Reykjavik"}
    with pytest.raises(HemostatError) as refused:
        prepared("winogrande", [WINOGRANDE[0], sentence])
    assert "Reykjavik" not in f"{refused.value} {refused.value.hint}"
    out, err = capfd.readouterr()
    assert "Reykjavik" not in out + err
    assert "it/s" not in err
