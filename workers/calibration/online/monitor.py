"""The books of one deployment: what was seen, what it led to, what is still to be carried out. No I/O.

It joins the pure machines (`controller`, `window`) with what the deployment's record says. Only requests
that the active version served are evidence of the tests; the window counts all. Where no replica has that version
loaded, what is served in its stead is evidence of drift.
"""

from __future__ import annotations

import math
from typing import Final

from app.contracts.deployment import (
    IDENTITY,
    CalibrationMode,
    Deployment,
    DeploymentState,
    DriftState,
    ServedDivergence,
    ShadowStatus,
    Version,
)
from app.settings import Settings
from workers.calibration.online.controller import Action, Limit, Loop, Observed, Step
from workers.calibration.online.hysteresis import Hysteresis, Permission
from workers.calibration.online.promotion import TrialVerdict
from workers.calibration.online.rescore import Scored, Versions
from workers.calibration.online.state import ShadowState, Silence, Todo, TrialOutcome
from workers.calibration.online.threshold import Expected
from workers.calibration.online.window import RecentWindow, WindowMemory

# Requests of the active version from which on the served divergence speaks of it alone.
FEWEST = 6
# Silence is stale after so many usual gaps between requests, or after `LONGEST_SILENCE_S`, however rare traffic is.
GAPS = 3.0
LONGEST_SILENCE_S = 6 * 3600.0
_OUTCOMES: Final[dict[TrialVerdict, TrialOutcome]] = {
    TrialVerdict.PROMOTE: "proven",
    TrialVerdict.REJECT: "rejected",
    TrialVerdict.INCONCLUSIVE: "inconclusive",
}


# What is served in the active version's stead where no replica can serve it. A replica refuses a profile that was
# fitted for another checkpoint, and says that it is degraded. Put a worse checkpoint in place of the one that was
# deployed, and every request is answered without the active version; that must not hide from the drift alarm. A
# version that is still being loaded is not meant.
_SERVING = (DeploymentState.READY, DeploymentState.DEGRADED)


def stand_in(deployment: Deployment) -> Version | None:
    """The version that the gateway gives instead, by its rule: the one before, else identity. None: none is needed."""
    serving = [one for one in deployment.running if one.role == "serve" and one.state in _SERVING]
    refused = [
        one.state is DeploymentState.DEGRADED and deployment.active_version not in one.versions for one in serving
    ]
    if not serving or not all(refused):
        return None
    previous = deployment.previous_version
    return previous if previous is not None and all(previous in one.versions for one in serving) else IDENTITY


class Monitor:
    """One deployment's. `state` is what is saved; `now` is Unix time, given by the caller."""

    def __init__(
        self, settings: Settings, deployment: Deployment, expected: Expected, state: ShadowState | None, now: float
    ) -> None:
        self._settings = settings
        self.deployment = deployment
        self.expected = expected
        self._window = RecentWindow(most=settings.shadow_window, most_age_s=settings.shadow_window_age_s)
        self.rule = self._rule(deployment, _threshold(deployment, expected, None))
        if state is None:
            active, previous = deployment.active_version, deployment.previous_version
            state = ShadowState(
                deployment=deployment.id,
                loop=self.rule.start(active, previous, expected.raw_mean or self.rule.threshold),
                threshold=self.rule.threshold,
                given=deployment.drift_threshold is not None,
                alpha=deployment.alpha,
                silence=Silence(since=now),
            )
        self.state = state
        self._shown: tuple[WindowMemory, ServedDivergence | None] | None = None

    # --- what the record says

    def meet(self, deployment: Deployment, expected: Expected, now: float) -> list[str]:
        """After a look at the deployment's record: what changed there begins its tests again. Says what began again."""
        before, self.deployment, self.expected = self.deployment, deployment, expected
        # What a person had set goes when it is unset, though this process was down meanwhile; what a test had shown
        # stays, also where other weights are put.
        retained = None if self.state.given else self.state.threshold
        threshold = _threshold(deployment, expected, retained)
        self.rule = self._rule(deployment, threshold)
        loop, told = self.state.loop, []
        steps: tuple[Step, ...] = ()
        level = self._level(threshold)
        if deployment.active_version != loop.active:
            told.append(f"{deployment.active_version} came into force: the tests begin again")
            if deployment.rollbacks > before.rollbacks and loop.active != IDENTITY:
                loop = self.rule.rolled_back(loop, loop.active, now)
            loop, steps = self.rule.activated(loop, deployment.active_version, deployment.previous_version, level)
        elif deployment.alpha != self.state.alpha or not self.rule.tests(loop):
            told.append(
                "no drift threshold is known"
                if threshold is None
                else f"the drift test begins again with threshold {threshold:.4g} nats and alpha {deployment.alpha:g}"
            )
            loop, steps = self.rule.changed(loop)
        if deployment.previous_version != loop.previous:
            loop = loop.model_copy(update={"previous": deployment.previous_version})
        if loop.guard is None:
            loop = loop.model_copy(update={"guard": self.rule.guard(loop.active, level)})
        if loop.candidate is not None and (obstacle := self._obstacle()):
            told.append(f"the trial of {loop.candidate} was broken off: {obstacle}")
            loop = loop.model_copy(update={"candidate": None, "trial": None})
        if self.state.loop.candidate is not None and loop.candidate is None:
            self._trial_ended("broken_off")
        self.state = self.state.model_copy(
            update={
                "loop": loop,
                "threshold": threshold,
                "given": deployment.drift_threshold is not None,
                "alpha": deployment.alpha,
            }
        )
        self._decided(steps, now)
        return told

    def weights(self, fingerprints: tuple[str, str]) -> bool:
        """Which weights are scored from now on; whether others were before, whose window and trial are over."""
        before = self.state.weights
        changed = before is not None and before != fingerprints
        update: dict[str, object] = {"weights": fingerprints}
        if changed:
            if self.state.loop.candidate is not None:
                self._trial_ended("broken_off")
            update["window"] = WindowMemory()
            update["loop"] = self.state.loop.model_copy(update={"candidate": None, "trial": None})
        self.state = self.state.model_copy(update=update)
        return changed

    # --- what was seen

    def observe(self, scored: Scored, now: float) -> None:
        """After one scored request."""
        state, loop = self.state, self.state.loop
        steps: tuple[Step, ...] = ()
        if scored.version == loop.active:
            on_trial = loop.candidate is not None and scored.trial_version == loop.candidate
            trial = scored.trial if on_trial else None
            loop, steps = self.rule.observe(
                loop,
                Observed(
                    at=now,
                    raw=scored.raw,
                    active=_finite(scored.served),
                    previous=_finite(scored.previous),
                    candidate=_finite(trial),
                    candidate_failed=trial is not None and not math.isfinite(trial),
                ),
            )
        elif scored.version == stand_in(self.deployment):
            loop, steps = self.rule.observe_drift(loop, _finite(scored.served))
        window = state.window if scored.request is None else self._window.add(state.window, scored.request)
        self.state = state.model_copy(
            update={
                "loop": loop,
                "window": window,
                "silence": state.silence.ended(now),
                "scored_tokens": state.scored_tokens + scored.tokens,
            }
        )
        self._decided(steps, now)

    def tick(self, now: float) -> bool:
        """At any time between observations; True when it has just become stale."""
        silence = self.state.silence.at(now, self._patience_s())
        began = silence.stale and not self.state.silence.stale
        window = self._window.at(self.state.window, now)  # without traffic, too, what is too old is no news
        if len(window.requests) == len(self.state.window.requests):
            window = self.state.window
        self.state = self.state.model_copy(update={"silence": silence, "window": window})
        return began

    # --- what is to be done

    def carried_out(self, todo: Todo, now: float) -> None:
        """A decision was carried out, or is void."""
        left = list(self.state.todo)
        left.remove(todo)
        loop = self.state.loop
        if todo.step.action is Action.ROLL_BACK:
            loop = self.rule.rolled_back(loop, todo.active, now)
        self.state = self.state.model_copy(update={"todo": tuple(left), "loop": loop})

    def refit_wanted(self) -> str | None:
        """Why a refit should begin now; None: it should not."""
        loop = self.state.loop
        if self._obstacle() or loop.trial is not None or self.state.todo:
            return None
        if not self.rule.pauses.may_fit(loop.pauses, loop.scored):
            return None
        if self.rule.state(loop) is DriftState.ALARM:
            return "drift alarm"
        fresh = self.state.scored_tokens - self.state.tokens_at_refit
        return f"{fresh} newly scored tokens" if fresh >= self._settings.shadow_refit_after_tokens else None

    def refit_began(self) -> int:
        """A refit began; its seed."""
        loop = self.state.loop
        pauses = self.rule.pauses.fitted(loop.pauses, loop.scored)
        self.state = self.state.model_copy(
            update={
                "loop": loop.model_copy(update={"pauses": pauses}),
                "tokens_at_refit": self.state.scored_tokens,
                "refits": self.state.refits + 1,
            }
        )
        return self.state.refits

    def try_version(self, version: Version, now: float) -> Permission:
        """Begins the trial of a version, if it may be tried."""
        if self.state.loop.candidate is not None:
            return Permission(allowed=False, reason=f"{self.state.loop.candidate} is on trial")
        if obstacle := self._obstacle():
            return Permission(allowed=False, reason=obstacle)
        divergence = self.divergence()
        level = divergence.calibrated.mean if divergence is not None else 0.0
        level = level if level > 0 else self.state.threshold or 0.0
        if level <= 0:
            return Permission(allowed=False, reason="how far the active version is from the reference is not known yet")
        loop, permission = self.rule.try_version(self.state.loop, version, level, now)
        self.state = self.state.model_copy(update={"loop": loop})
        return permission

    # --- what is reported

    def versions(self) -> Versions:
        """What the next batch is to be scored with."""
        loop = self.state.loop
        return Versions(active=loop.active, previous=loop.previous, trial=loop.candidate)

    def divergence(self) -> ServedDivergence | None:
        """Of the recent window: of the version in force where it has served enough, else of all since it is in force.

        What another one did before says nothing of what is served now.
        """
        version, since = stand_in(self.deployment) or self.state.loop.active, self.deployment.activated_at or 0.0
        requests = self.state.window.requests
        own = tuple(request for request in requests if request.version == version)
        if len(own) < FEWEST:
            own = tuple(request for request in requests if request.version == version or request.at >= since)
        if self._shown is None or self._shown[0].requests != own:
            chosen = WindowMemory.model_construct(requests=own)
            self._shown = chosen, self._window.divergence(chosen)
        return self._shown[1]

    def drift(self) -> DriftState:
        """Staleness before everything else: no news is not good news."""
        return DriftState.STALE if self.state.silence.stale else self.rule.state(self.state.loop)

    def holding(self) -> tuple[Limit, ...]:
        """The limits whose alarm holds; none without news."""
        return () if self.state.silence.stale else self.rule.holding(self.state.loop)

    @property
    def e_value(self) -> float:
        """Evidence against no drift, 1 if there is no test."""
        drift = self.state.loop.drift
        return 1.0 if drift is None else drift.memory.evidence.value

    @property
    def e_value_needed(self) -> float | None:
        """At which an alarm is raised: above 1/α, which all episodes share. None if there is no test."""
        drift = self.state.loop.drift
        return None if drift is None else drift.rule.level(drift.memory)

    @property
    def quiet_limit(self) -> float | None:
        """Nats per token, learned from the first live requests; None: not learned yet."""
        rule = self.state.loop.quiet.rule
        return None if rule is None else rule.threshold

    @property
    def quiet_e_value(self) -> float:
        """Evidence that the mean is above the quiet limit; 1 if there is none yet."""
        return self.state.loop.quiet.drift.evidence.value

    @property
    def quiet_e_value_needed(self) -> float | None:
        """At which the quiet alarm is raised; None: there is no quiet limit yet."""
        quiet = self.state.loop.quiet
        return None if quiet.rule is None else quiet.rule.level(quiet.drift)

    @property
    def trial_seen(self) -> int | None:
        """Requests of the trial; None without one."""
        trial = self.state.loop.trial
        return None if trial is None else trial.memory.seen

    def status(self, now: float, reason: str = "") -> ShadowStatus:
        """What the deployment's owner reads."""
        state = self.drift()
        if not reason and state is DriftState.LEARNING:
            reason = "no drift threshold is known" if self.state.threshold is None else "too little was seen yet"
        if not reason and state is DriftState.ALARM:
            reason = f"above the {self.holding()[0]} limit"
        if not reason and state is DriftState.STALE:
            reason = "no request was scored for too long"
        return ShadowStatus(
            drift=state,
            reason=reason,
            threshold=self.state.threshold,
            quiet_limit=self.quiet_limit,
            e_value=self.e_value,
            e_value_needed=self.e_value_needed,
            alarms=self.state.alarms,
            divergence=self.divergence(),
            last_observation_at=self.state.silence.observed_at,
            trial=self.state.loop.candidate,
            updated_at=now,
        )

    # --- parts

    def _decided(self, steps: tuple[Step, ...], now: float) -> None:
        for step in steps:
            if step.action in (Action.PROMOTE, Action.REJECT):
                self._trial_ended(_OUTCOMES[TrialVerdict(str(step.evidence["verdict"]))])
            waiting = {todo.step.action for todo in self.state.todo}
            if step.action is Action.ROLL_BACK and Action.ROLL_BACK in waiting:
                continue
            todo = Todo(step=step, active=self.state.loop.active, at=now)
            alarms = self.state.alarms + (step.action is Action.ALARM)
            self.state = self.state.model_copy(update={"todo": (*self.state.todo, todo), "alarms": alarms})

    def _trial_ended(self, outcome: TrialOutcome) -> None:
        trials = {**self.state.trials, outcome: self.state.trials.get(outcome, 0) + 1}
        self.state = self.state.model_copy(update={"trials": trials})

    def _obstacle(self) -> str:
        """Why nothing can be tried: a trial compares with the active version on requests that this served."""
        mode = self.deployment.calibration
        if mode is not CalibrationMode.AUTO:
            return f"calibration is {mode.value}"
        if self.deployment.unmodified:
            return "the model is its own reference"
        if stand_in(self.deployment) is not None:
            return "no replica can serve the active version; roll back, or promote another"
        return ""

    def _rule(self, deployment: Deployment, threshold: float | None) -> Loop:
        pauses = Hysteresis(cooldown_s=self._settings.shadow_cooldown_s, fresh=self._settings.shadow_refit_fresh)
        return Loop(
            mode=deployment.calibration,
            threshold=threshold,
            alpha=deployment.alpha,
            pauses=pauses,
        )

    def _level(self, threshold: float | None) -> float | None:
        """The raw model's usual mean, about, as known before: of its test, else of late; None: nothing is known."""
        found = self.expected.raw_mean
        if not found and (divergence := self.divergence()) is not None:
            found = divergence.raw.mean
        return found or threshold or None

    def _patience_s(self) -> float:
        """Silence is judged by how often requests came of late."""
        least_s, requests = self._settings.shadow_stale_s, self.state.window.requests
        if len(requests) < 2:
            return least_s
        span_s = max(request.at for request in requests) - min(request.at for request in requests)
        return max(least_s, min(GAPS * span_s / (len(requests) - 1), LONGEST_SILENCE_S))


def _threshold(deployment: Deployment, expected: Expected, retained: float | None) -> float | None:
    """The deployment's own; else what the test says of the active version; else the one that was in force."""
    if deployment.drift_threshold is not None:
        return deployment.drift_threshold
    return retained if expected.threshold is None else expected.threshold


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
