"""A decision's record: rule, memory before, every input since, decision; numbers only. Replaying it gives the decision.

The machines (`drift`, `promotion`, `rollback`) share one form: a rule with `start()` and `update(memory, *numbers) ->
(memory, decision)`, all of it JSON and deterministic. `Recorded` runs one and keeps its inputs. After `KEEP` inputs the
memory of that moment takes the place of the inputs before it, so that a record stays small on an endless stream.
"""

from __future__ import annotations

import math
from typing import Any, Final, cast

from pydantic import Field

from app.contracts.base import Contract
from workers.calibration.online.drift import DriftDetector, DriftMemory
from workers.calibration.online.promotion import PairedTrial, TrialMemory
from workers.calibration.online.rollback import GuardMemory, RollbackGuard

KEEP: Final = 1024

Rule = DriftDetector | PairedTrial | RollbackGuard
Memory = DriftMemory | TrialMemory | GuardMemory
Numbers = tuple[float | None, ...]
Scalar = float | int | str | bool | None

_MACHINES: Final[dict[str, tuple[type[Rule], type[Memory]]]] = {
    "drift": (DriftDetector, DriftMemory),
    "trial": (PairedTrial, TrialMemory),
    "guard": (RollbackGuard, GuardMemory),
}


class DecisionRecord(Contract):
    """What is stored of a decision; `replay` makes it again."""

    machine: str = Field(pattern="^(drift|trial|guard)$")
    rule: dict[str, Any]
    before: dict[str, Any]
    inputs: tuple[Numbers, ...] = Field(min_length=1)
    decision: dict[str, Scalar]


class Recorded(Contract):
    """A machine that runs, with what it was given."""

    rule: Rule
    before: Memory
    memory: Memory
    inputs: tuple[Numbers, ...] = ()

    @classmethod
    def start(cls, rule: Rule) -> Recorded:
        """A machine that has seen nothing."""
        memory = rule.start()
        return cls.model_construct(rule=rule, before=memory, memory=memory, inputs=())

    @classmethod
    def resume(cls, rule: Rule, memory: Memory) -> Recorded:
        """A machine that goes on from a memory."""
        return cls.model_construct(rule=rule, before=memory, memory=memory, inputs=())

    def update(self, *numbers: float | None) -> tuple[Recorded, Any]:
        """After one more input, with the machine's decision. What is not finite is None, as in JSON."""
        numbers = tuple(number if number is not None and math.isfinite(number) else None for number in numbers)
        before, inputs = (
            (self.memory, (numbers,)) if len(self.inputs) >= KEEP else (self.before, (*self.inputs, numbers))
        )
        memory, decision = cast(Any, self.rule).update(self.memory, *numbers)
        after = Recorded.model_construct(rule=self.rule, before=before, memory=memory, inputs=inputs)
        return after, decision

    def record(self, decision: Contract) -> DecisionRecord:
        """The record of the decision that the last input led to."""
        machine = next(name for name, (rule, _) in _MACHINES.items() if isinstance(self.rule, rule))
        return DecisionRecord(
            machine=machine,
            rule=self.rule.model_dump(mode="json"),
            before=self.before.model_dump(mode="json"),
            inputs=self.inputs,
            decision=evidence(decision),
        )


def evidence(decision: Contract) -> dict[str, Scalar]:
    """The numbers of a decision, as a deployment's event carries them."""
    return decision.model_dump(mode="json")


def replay(record: DecisionRecord) -> dict[str, Scalar]:
    """The decision that the record's inputs lead to; equal to `record.decision`, bit by bit, or the record is wrong."""
    rule_class, memory_class = _MACHINES[record.machine]
    rule: Any = rule_class.model_validate(record.rule)
    memory: Any = memory_class.model_validate(record.before)
    decision: Contract | None = None
    for numbers in record.inputs:
        memory, decision = rule.update(memory, *numbers)
    if decision is None:
        raise ValueError("a record without inputs")
    return evidence(decision)
