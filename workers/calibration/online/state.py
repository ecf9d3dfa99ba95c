"""What the shadow process remembers across restarts: one small JSON file, replaced whole. Numbers and versions only."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from app.contracts.base import Contract
from app.contracts.deployment import Version
from app.files import write_atomically
from workers.calibration.online.controller import LoopMemory, Step
from workers.calibration.online.window import WindowMemory

logger = logging.getLogger(__name__)

FILE = "shadow.json"
# proven: better than the active version; broken_off: without a verdict.
TrialOutcome = Literal["proven", "rejected", "inconclusive", "broken_off"]


class Todo(Contract):
    """A decision that waits until it was carried out: it outlives an outage of Redis and a restart."""

    step: Step
    active: Version = Field(description="the version that was active when it was decided")
    at: float


class Silence(Contract):
    """Without an observation for too long, nothing is known. Times in Unix seconds."""

    since: float = Field(description="the last observation, or the start of watching")
    observed_at: float | None = None
    stale: bool = False

    def ended(self, at: float) -> Silence:
        """After an observation. A clock that went back changes nothing."""
        since = max(self.since, at)
        return Silence(since=since, observed_at=since)

    def at(self, now: float, after_s: float) -> Silence:
        """Between observations: stale after `after_s` seconds, until the next one."""
        return self.model_copy(update={"stale": self.stale or now - self.since > after_s})


class ShadowState(Contract):
    """All of it. `threshold` and `alpha` are those that the drift test runs with."""

    layout: Literal["hemostat.shadow/1"] = "hemostat.shadow/1"
    deployment: str
    weights: tuple[str, str] | None = Field(default=None, description="fingerprints of reference and candidate")
    loop: LoopMemory
    threshold: float | None = None
    given: bool = Field(default=False, description="whether the deployment itself says the threshold")
    alpha: float
    window: WindowMemory = WindowMemory()
    silence: Silence
    scored_tokens: int = 0
    tokens_at_refit: int = 0
    refits: int = Field(default=0, description="refits that were begun; the seed of the next one")
    alarms: int = 0
    trials: dict[TrialOutcome, int] = Field(default_factory=dict, description="trials that ended")
    todo: tuple[Todo, ...] = ()


def save(folder: Path, state: ShadowState) -> None:
    """Writes the state so that a reader finds the old or the new one, whole."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / FILE, state.model_dump_json().encode(), mode=0o600)


def load(folder: Path, deployment: str) -> tuple[ShadowState | None, str]:
    """The state that an earlier process left, and why there is none where one was found and is of no use."""
    try:
        text = (folder / FILE).read_bytes()
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        return None, f"the state of the shadow process cannot be read ({error.strerror})"
    try:
        state = ShadowState.model_validate_json(text)
    except ValidationError:
        return None, "the state of the shadow process is damaged, or of another version"
    if state.deployment != deployment:
        return None, "the state of the shadow process is of another deployment"
    return state, ""
