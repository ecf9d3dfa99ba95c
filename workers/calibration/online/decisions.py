"""The record of each decision, below `deployments/<id>/decisions/`: what was decided, on which numbers, by which rule.

A record holds means of requests and never a token. `replay` feeds its inputs to its rule again; what comes out must be
the decision, bit by bit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from app.contracts.base import Contract
from app.contracts.deployment import Version
from workers.calibration.online.controller import Action, Step
from workers.calibration.online.record import DecisionRecord, Scalar, replay
from workers.calibration.online.state import write_text

FOLDER = "decisions"
# Records that are kept of a deployment; the oldest go first.
KEEP = 1000


class Decision(Contract):
    """One file. `active` was the active version when it was decided; `version` is promoted, rejected or returned to."""

    layout: Literal["hemostat.decision/1"] = "hemostat.decision/1"
    deployment: str
    at: float
    action: Action
    active: Version
    version: Version | None = None
    reason: str = ""
    evidence: dict[str, Scalar] = Field(default_factory=dict)
    record: DecisionRecord | None = Field(default=None, description="null: it was no machine that decided")


class Replayed(Contract):
    """What a record's inputs lead to, and whether that is what was decided."""

    action: Action
    decided: dict[str, Scalar]
    replayed: dict[str, Scalar]
    same: bool


def write(folder: Path, deployment: str, step: Step, active: Version, at: float) -> str:
    """Writes the record of a decision, and says its file's name. The same decision written again replaces itself."""
    decision = Decision(
        deployment=deployment,
        at=at,
        action=step.action,
        active=active,
        version=step.version,
        reason=step.reason,
        evidence=step.evidence,
        record=step.record,
    )
    name = f"{int(at * 1000):013d}-{step.action.value}.json"
    write_text(folder / FOLDER / name, decision.model_dump_json(indent=1) + "\n")
    for old in sorted((folder / FOLDER).glob("*.json"))[:-KEEP]:
        old.unlink(missing_ok=True)
    return name


def again(decision: Decision) -> Replayed:
    """Makes the decision again from its inputs. ValueError where it has none."""
    if decision.record is None:
        raise ValueError("no machine made this decision")
    found = replay(decision.record)
    return Replayed(
        action=decision.action,
        decided=decision.record.decision,
        replayed=found,
        same=found == decision.record.decision and decision.evidence == decision.record.decision,
    )
