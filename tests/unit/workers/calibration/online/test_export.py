"""What the books say is what a scrape shows."""

from pathlib import Path

import pytest

from app.settings import Settings
from tests.unit.workers.calibration.online.making import NOW, ONE, deployment, scored
from workers.calibration.online.export import export_monitor
from workers.calibration.online.monitor import Monitor
from workers.calibration.online.promotion import PairedTrial
from workers.calibration.online.threshold import Expected
from workers.telemetry_shadow import LIMITS, TRIALS, ShadowTelemetry


@pytest.fixture
def book(tmp_path: Path) -> Monitor:
    """One whose active version has been seen, and whose trial of another has begun."""
    made = Monitor(Settings(home=tmp_path), deployment(), Expected(), None, NOW)
    for _ in range(10):
        made.observe(scored(0.05), NOW)
    assert made.try_version(ONE, NOW).allowed
    return made


def trials(telemetry: ShadowTelemetry) -> dict[str, float]:
    """Outcomes that were counted."""
    values = {outcome: telemetry.value("shadow_trials", outcome=outcome) for outcome in TRIALS}
    return {outcome: value for outcome, value in values.items() if value}


def test_a_trial_is_counted_once_by_its_outcome_when_it_has_ended(book: Monitor) -> None:
    telemetry = ShadowTelemetry("demo")
    export_monitor(telemetry, book)
    assert trials(telemetry) == {}
    assert telemetry.value("shadow_trial_requests") == 0
    book.observe(scored(0.05, trial=float("inf"), trial_version=ONE), NOW)
    export_monitor(telemetry, book)
    export_monitor(telemetry, book)
    assert trials(telemetry) == {"rejected": 1}
    assert telemetry.value("shadow_trial_requests") is None


def test_a_trial_that_shows_no_difference_is_inconclusive(book: Monitor) -> None:
    for _ in range(PairedTrial.model_fields["most"].default):
        book.observe(scored(0.05, trial=0.05, trial_version=ONE), NOW)
    assert book.state.trials == {"inconclusive": 1}


def test_other_weights_break_a_trial_off(book: Monitor) -> None:
    book.weights(("a", "b"))
    assert book.state.trials == {}
    book.weights(("a", "c"))
    assert book.state.trials == {"broken_off": 1}


def active(telemetry: ShadowTelemetry) -> list[float | None]:
    """Whether the alarm of the drift limit holds, and that of the quiet one."""
    return [telemetry.value("drift_alarm_active", limit=limit) for limit in LIMITS]


@pytest.mark.parametrize(("threshold", "holds"), [(None, [0, 1]), (5.0, [0, 1]), (0.2, [1, 1])])
def test_each_limit_says_whether_its_own_alarm_holds(
    threshold: float | None, holds: list[float], tmp_path: Path
) -> None:
    """Traffic rises from 0.1 to 1.0 nats; where no drift limit is known, nothing is above it."""
    book = Monitor(Settings(home=tmp_path), deployment(drift_threshold=threshold), Expected(), None, NOW)
    telemetry = ShadowTelemetry("demo")
    for value, count, expected in ((0.1, 2500, [0, 0]), (1.0, 60, holds)):
        for _ in range(count):
            book.observe(scored(value), NOW)
        export_monitor(telemetry, book)
        assert active(telemetry) == expected
    book.tick(NOW + 1e6)  # nothing is known of what is served now
    export_monitor(telemetry, book)
    assert active(telemetry) == [0, 0]
