from pathlib import Path

import pytest

from app.contracts.deployment import DeploymentState, DriftState, Replica
from app.settings import Settings
from tests.unit.workers.calibration.online.making import NOW, ONE, TWO, deployment, scored
from workers.calibration.online import state as states
from workers.calibration.online.controller import Action
from workers.calibration.online.monitor import Monitor
from workers.calibration.online.threshold import Expected

KNOWN = Expected(kl_high=0.1, raw_mean=0.2)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, shadow_refit_after_tokens=500, shadow_refit_fresh=0, shadow_stale_s=60)


def actions(book: Monitor) -> list[Action]:
    return [todo.step.action for todo in book.state.todo]


def feed(book: Monitor, count: int, served: float, **fields: object) -> None:
    for number in range(count):
        book.observe(scored(served, at=NOW + number, **fields), NOW + number)  # type: ignore[arg-type]


def alarmed(settings: Settings) -> Monitor:
    book = Monitor(settings, deployment(), Expected(), None, NOW)
    for _ in range(200):
        feed(book, 1, 0.5)
        if book.drift() is DriftState.ALARM:
            return book
    raise AssertionError("no alarm")


def settle(book: Monitor) -> None:
    for todo in book.state.todo:
        book.carried_out(todo, NOW)


def test_the_evidence_that_is_told_to_be_needed_is_where_the_alarm_is_raised(settings: Settings) -> None:
    book = Monitor(settings, deployment(), Expected(), None, NOW)
    assert book.status(NOW).e_value_needed == pytest.approx(400)
    evidence = [book.e_value]
    while book.drift() is not DriftState.ALARM:
        feed(book, 1, 0.2)
        evidence.append(book.e_value)
    assert max(evidence[:-1]) < 400 <= evidence[-1]
    feed(book, 20, 0.5)
    assert actions(book) == [Action.ALARM]
    status = book.status(NOW)
    assert (status.drift, status.threshold, status.alarms) == (DriftState.ALARM, 0.1, 1)
    book.meet(deployment(active_version=ONE), KNOWN, NOW)  # the next episode
    assert book.status(NOW).e_value_needed == pytest.approx(1200)
    book.meet(deployment(active_version=ONE, alpha=0.05), KNOWN, NOW)
    assert book.status(NOW).e_value_needed == pytest.approx(480)
    without = Monitor(settings, deployment(drift_threshold=None), Expected(), None, NOW)
    assert without.status(NOW).e_value_needed is None


def test_a_test_that_an_earlier_version_began_with_all_of_alpha_goes_on_with_the_share_of_one_limit(
    settings: Settings,
) -> None:
    """Threshold and alpha are as before; what the process finds when it starts is another rule."""
    book = Monitor(settings, deployment(), Expected(), None, NOW)
    drift = book.state.loop.drift
    rule = drift.rule.model_copy(update={"alpha": 0.01})
    loop = book.state.loop.model_copy(update={"drift": drift.model_copy(update={"rule": rule})})
    earlier = book.state.model_copy(update={"loop": loop})
    found = Monitor(settings, deployment(), Expected(), earlier, NOW)
    assert any("begins again" in told for told in found.meet(deployment(), Expected(), NOW))
    assert found.status(NOW).e_value_needed == pytest.approx(1200)
    assert found.meet(deployment(), Expected(), NOW) == []


def test_without_a_threshold_it_learns_and_a_test_on_documents_gives_one(settings: Settings) -> None:
    book = Monitor(settings, deployment(drift_threshold=None), Expected(), None, NOW)
    feed(book, 2000, 5.0)
    assert book.drift() is DriftState.LEARNING
    assert book.status(NOW).reason == "no drift threshold is known"
    assert book.quiet_limit is None
    feed(book, 40, 5.0)
    assert book.drift() is DriftState.OK  # the quiet limit needs no test on documents
    assert book.quiet_limit == book.status(NOW).quiet_limit
    assert 5.0 < book.quiet_limit < 10.0
    told = book.meet(deployment(drift_threshold=None), KNOWN, NOW)
    assert book.state.threshold == pytest.approx(0.15)
    assert any("0.15" in line for line in told)
    assert book.meet(deployment(drift_threshold=None), KNOWN, NOW) == []


def test_a_threshold_that_is_unset_while_the_process_is_down_goes_and_a_learnt_one_stays(settings: Settings) -> None:
    unset = deployment(drift_threshold=None)
    for first, expected, left in ((deployment(), Expected(), None), (unset, KNOWN, 0.15)):
        before = Monitor(settings, first, expected, None, NOW)
        before.meet(first, expected, NOW)
        book = Monitor(settings, unset, Expected(), before.state, NOW)
        book.meet(unset, Expected(), NOW)
        assert book.state.threshold == (left and pytest.approx(left))


def test_only_requests_of_the_active_version_are_evidence_but_all_are_seen(settings: Settings) -> None:
    book = Monitor(settings, deployment(), Expected(), None, NOW)
    feed(book, 100, 5.0, version=ONE)
    assert book.drift() is DriftState.LEARNING
    divergence = book.divergence()
    assert divergence.requests == 100
    feed(book, 10, 0.05)
    divergence = book.divergence()
    assert (divergence.requests, divergence.calibrated.mean) == (10, pytest.approx(0.05))


def test_what_a_version_did_that_was_rolled_back_is_not_told_of_the_one_that_is_served_now(settings: Settings) -> None:
    bad = deployment(active_version=ONE, activated_at=NOW - 1)
    book = Monitor(settings, bad, KNOWN, None, NOW)
    feed(book, 50, 0.5, version=ONE, raw=0.1)
    harm = book.divergence()
    assert harm.saved.high < 0
    book.meet(deployment(rollbacks=1, activated_at=NOW + 60), KNOWN, NOW + 60)
    assert book.divergence() is None
    book.observe(scored(0.5, version=ONE, raw=0.1, at=NOW + 59), NOW + 61)  # it had been served before
    book.observe(scored(0.1, at=NOW + 62), NOW + 62)
    assert book.divergence() is None
    book.observe(scored(0.1, at=NOW + 63), NOW + 63)
    found = book.divergence()
    assert (found.requests, found.saved.high) == (2, 0)


def test_what_is_served_in_the_active_versions_stead_is_what_is_told(settings: Settings) -> None:
    ready = deployment(active_version=ONE, running=(replica("ready", ONE),))
    book = Monitor(settings, ready, KNOWN, None, NOW)
    feed(book, 50, 0.05, version=ONE)
    book.meet(deployment(active_version=ONE, running=(replica(),)), KNOWN, NOW)
    feed(book, 6, 0.5)
    found = book.divergence()
    assert (found.requests, found.calibrated.mean) == (6, pytest.approx(0.5))


def test_numbers_grow_too_old_without_traffic_too(settings: Settings) -> None:
    book = Monitor(settings, deployment(), Expected(), None, NOW)
    feed(book, 50, 0.5)
    book.tick(NOW + settings.shadow_window_age_s - 1)
    assert book.divergence() is not None
    book.tick(NOW + settings.shadow_window_age_s + 60)
    assert book.divergence() is None


def test_an_alarm_and_enough_new_tokens_ask_for_a_refit(settings: Settings) -> None:
    book = alarmed(settings)
    assert book.refit_wanted() is None  # the alarm is told first
    settle(book)
    assert book.refit_wanted() == "drift alarm"
    calm = Monitor(settings, deployment(), Expected(), None, NOW)
    feed(calm, 49, 0.05)
    assert calm.refit_wanted() is None
    feed(calm, 1, 0.05)
    assert calm.refit_wanted() == "500 newly scored tokens"
    assert calm.refit_began() == 1
    assert calm.refit_wanted() is None
    feed(calm, 50, 0.05)
    assert calm.refit_began() == 2


def test_a_model_that_is_its_own_reference_is_never_fitted(settings: Settings) -> None:
    book = Monitor(settings, deployment(model={"model": "m"}), Expected(), None, NOW)
    feed(book, 50, 0.05)
    assert book.refit_wanted() is None
    assert book.try_version(TWO, NOW).reason == "the model is its own reference"


def test_a_better_version_is_promoted_and_a_worse_one_rejected(settings: Settings) -> None:
    for trial, action, outcome in ((0.03, Action.PROMOTE, "proven"), (float("inf"), Action.REJECT, "rejected")):
        book = Monitor(settings, deployment(), Expected(), None, NOW)
        feed(book, 10, 0.05)
        assert book.try_version(ONE, NOW).allowed
        assert book.versions().trial == ONE
        while not book.state.todo:
            feed(book, 1, 0.05, trial=trial, trial_version=ONE)
        assert actions(book) == [action]
        assert book.state.todo[0].step.version == ONE
        assert book.state.trials == {outcome: 1}
        assert book.try_version(ONE, NOW).allowed == (action is Action.PROMOTE)  # else barred for a while


def test_a_served_version_that_is_worse_is_rolled_back_once(settings: Settings) -> None:
    book = Monitor(settings, deployment(active_version=ONE), KNOWN, None, NOW)
    for _ in range(500):
        feed(book, 1, float("inf"), version=ONE, raw=0.05)
        if Action.ROLL_BACK in actions(book):
            break
    feed(book, 5, float("inf"), version=ONE, raw=0.05)
    assert actions(book).count(Action.ROLL_BACK) == 1
    todo = next(todo for todo in book.state.todo if todo.step.action is Action.ROLL_BACK)
    assert (todo.active, todo.step.version) == (ONE, "identity")
    book.carried_out(todo, NOW)
    book.meet(deployment(rollbacks=1), Expected(), NOW)
    feed(book, 10, 0.05)
    assert not book.try_version(ONE, NOW).allowed


def test_a_version_that_somebody_rolled_back_is_not_tried_again_soon(settings: Settings) -> None:
    book = Monitor(settings, deployment(active_version=ONE), KNOWN, None, NOW)
    book.meet(deployment(rollbacks=1), Expected(), NOW)
    feed(book, 10, 0.05)
    assert "barred" in book.try_version(ONE, NOW).reason
    assert book.try_version(ONE, NOW + settings.shadow_cooldown_s + 1).allowed


def test_a_trial_ends_when_its_rival_is_not_served_any_more_or_nothing_may_change(settings: Settings) -> None:
    for changed in (deployment(active_version=TWO), deployment(calibration="frozen"), deployment(calibration="off")):
        book = Monitor(settings, deployment(), Expected(), None, NOW)
        feed(book, 60, 0.05)
        assert book.try_version(ONE, NOW).allowed
        book.meet(changed, KNOWN, NOW)
        assert book.versions().trial is None
        assert book.state.trials == {"broken_off": 1}
        if changed.active_version != TWO:
            assert book.refit_wanted() is None
            assert not book.try_version(TWO, NOW).allowed


def test_silence_is_a_state_of_its_own(settings: Settings) -> None:
    book = Monitor(settings, deployment(), Expected(), None, NOW)
    feed(book, 30, 0.05)
    assert not book.tick(NOW + 29 + 59)
    assert book.tick(NOW + 29 + 61)
    assert not book.tick(NOW + 29 + 62)
    assert book.status(NOW).drift is DriftState.STALE
    book.observe(scored(0.05), NOW + 100)
    assert book.drift() is DriftState.OK


def test_a_clock_that_goes_back_makes_nothing_fresh_or_stale() -> None:
    silence = states.Silence(since=1000.0).ended(1010.0).ended(900.0)
    assert (silence.since, silence.at(950.0, 60).stale) == (1010, False)
    assert silence.at(1071.0, 60).at(1000.0, 60).stale


def test_rare_traffic_may_be_silent_longer(settings: Settings) -> None:
    book = Monitor(settings, deployment(), Expected(), None, NOW)
    for number in range(10):
        book.observe(scored(0.05, at=NOW + 100 * number), NOW + 100 * number)
    assert not book.tick(NOW + 900 + 299)
    assert book.tick(NOW + 900 + 301)


def test_other_weights_begin_the_window_anew_and_keep_the_threshold(settings: Settings) -> None:
    book = Monitor(settings, deployment(), Expected(), None, NOW)
    assert not book.weights(("a", "b"))
    feed(book, 10, 0.05)
    assert not book.weights(("a", "b"))
    assert book.divergence() is not None
    assert book.weights(("a", "c"))
    assert book.divergence() is None
    assert book.state.threshold == 0.1
    assert book.state.trials == {}  # none ran


def test_a_process_that_starts_again_goes_on_where_the_last_one_was(settings: Settings, tmp_path: Path) -> None:
    whole, first = (Monitor(settings, deployment(), Expected(), None, NOW) for _ in range(2))
    for book in (whole, first):
        feed(book, 12, 0.05)
        book.try_version(ONE, NOW)
        feed(book, 12, 0.15, trial=0.1, trial_version=ONE)
    states.save(tmp_path, first.state)
    found, problem = states.load(tmp_path, "dep_1")
    assert problem == ""
    second = Monitor(settings, deployment(), Expected(), found, NOW)
    assert second.meet(deployment(), Expected(), NOW) == []
    for book in (whole, second):
        feed(book, 400, 0.15, trial=0.1, trial_version=ONE)
    assert second.state == whole.state
    assert [todo.step for todo in second.state.todo] == [todo.step for todo in whole.state.todo] != []


def test_a_damaged_state_or_one_of_another_deployment_is_told(settings: Settings, tmp_path: Path) -> None:
    assert states.load(tmp_path, "dep_1") == (None, "")
    states.save(tmp_path, Monitor(settings, deployment(), Expected(), None, NOW).state)
    assert "another deployment" in states.load(tmp_path, "dep_2")[1]
    for content in (b"{}", b"\xff\xfe", b'{"layout": "hemostat.shadow/0"}', b""):
        (tmp_path / states.FILE).write_bytes(content)
        found, problem = states.load(tmp_path, "dep_1")
        assert found is None
        assert "damaged" in problem


def replica(state: str = "degraded", *versions: str) -> Replica:
    return Replica(id="r", state=DeploymentState(state), versions=("identity", *versions))


@pytest.mark.parametrize(
    ("replicas", "version", "alarm"),
    [
        ((replica(),), "identity", True),  # every replica refuses the active version
        ((replica("degraded", TWO),), TWO, True),
        ((replica("degraded", TWO),), "identity", False),  # somebody asked for it
        ((replica(), replica("ready", ONE)), "identity", False),
        ((replica("ready"),), "identity", False),  # it is being loaded
        ((), "identity", False),
    ],
)
def test_what_is_served_in_the_active_versions_stead_is_evidence_of_drift(
    settings: Settings, replicas: tuple[Replica, ...], version: str, *, alarm: bool
) -> None:
    served = deployment(active_version=ONE, previous_version=TWO, running=replicas)
    book = Monitor(settings, served, Expected(), None, NOW)
    feed(book, 200, 0.5, version=version)
    assert actions(book) == ([Action.ALARM] if alarm else [])


def test_while_no_replica_can_serve_the_active_version_nothing_is_tried_or_fitted(settings: Settings) -> None:
    ready = deployment(active_version=ONE, running=(replica("ready", ONE),))
    refused = deployment(active_version=ONE, running=(replica(),))
    book = Monitor(settings, ready, Expected(), None, NOW)
    feed(book, 60, 0.05, version=ONE)
    assert book.refit_wanted() is not None
    assert book.try_version(TWO, NOW).allowed
    assert any("broken off: no replica" in told for told in book.meet(refused, Expected(), NOW))
    assert book.state.loop.candidate is None
    assert book.refit_wanted() is None
    assert "no replica" in book.try_version(TWO, NOW).reason
    book.meet(ready, Expected(), NOW)
    assert book.try_version(TWO, NOW).allowed
