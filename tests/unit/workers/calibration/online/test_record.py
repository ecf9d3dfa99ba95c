"""A record alone gives its decision again."""

import json
import random

import pytest
from pydantic import ValidationError

from app.contracts.base import Contract
from workers.calibration.online import record as module
from workers.calibration.online.drift import DriftDetector
from workers.calibration.online.promotion import PairedTrial
from workers.calibration.online.record import DecisionRecord, Recorded, Rule, replay
from workers.calibration.online.rollback import RollbackGuard

RULES: dict[str, tuple[Rule, int]] = {
    "drift": (DriftDetector.new(0.3), 1),
    "trial": (PairedTrial.new(0.3), 2),
    "guard": (RollbackGuard.new(0.3), 3),
}


def run(rule: Rule, width: int, length: int) -> tuple[Recorded, Contract]:
    rng = random.Random(0)
    machine, decision = Recorded.start(rule).update(*(0.3 for _ in range(width)))
    for _ in range(length - 1):
        machine, decision = machine.update(*(rng.expovariate(1 / 0.3) for _ in range(width)))
    return machine, decision


@pytest.mark.parametrize("name", RULES)
def test_a_record_read_from_json_gives_the_same_decision_to_the_last_bit(name: str) -> None:
    machine, decision = run(*RULES[name], length=60)
    stored = machine.record(decision).model_dump_json()
    record = DecisionRecord.model_validate_json(stored)
    assert record.machine == name
    assert len(record.inputs) == 60
    assert replay(record) == record.decision == decision.model_dump(mode="json")


def test_a_record_stays_small_on_an_endless_stream_and_still_gives_its_decision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "KEEP", 50)
    machine, decision = run(*RULES["drift"], length=175)
    record = machine.record(decision)
    assert len(record.inputs) == 25
    assert replay(record) == record.decision


def test_what_is_not_finite_is_null_in_the_record() -> None:
    machine, decision = Recorded.start(RULES["guard"][0]).update(float("nan"), 0.3, None)
    record = DecisionRecord.model_validate_json(machine.record(decision).model_dump_json())
    assert record.inputs == ((None, 0.3, None),)
    assert replay(record) == record.decision


def test_a_record_holds_numbers_and_no_text_of_a_request() -> None:
    machine, decision = run(*RULES["trial"], length=10)
    record = json.loads(machine.record(decision).model_dump_json())
    assert {type(number) for numbers in record["inputs"] for number in numbers} <= {float, int, type(None)}
    assert {key for key, value in record["decision"].items() if isinstance(value, str)} <= {"verdict", "reason"}
    with pytest.raises(ValidationError):
        DecisionRecord.model_validate({**record, "inputs": [["a prompt"]]})
    with pytest.raises(ValidationError):
        DecisionRecord.model_validate({**record, "machine": "os"})
