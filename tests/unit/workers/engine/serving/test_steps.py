import threading

import pytest

from workers.engine.serving.steps import StepClock, StepWatch, limit_s


class Clock:
    """Time that a test lets pass."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_another_thread_sees_how_long_the_running_step_has_run(clock: Clock) -> None:
    steps, entered, leave = StepClock(clock), threading.Event(), threading.Event()

    def step() -> None:
        with steps.running():
            entered.set()
            leave.wait()

    assert steps.seconds() is None
    thread = threading.Thread(target=step)
    thread.start()
    entered.wait()
    clock.now += 7
    assert steps.seconds() == 7
    leave.set()
    thread.join()
    assert steps.seconds() is None


def test_a_step_that_fails_runs_no_longer(clock: Clock) -> None:
    steps = StepClock(clock)
    with pytest.raises(ValueError, match="broken"), steps.running():
        raise ValueError("broken")
    assert steps.seconds() is None


@pytest.mark.parametrize(("step_s", "stuck"), [(None, False), (0.5, False), (9.99, False), (10.0, True), (300.0, True)])
def test_a_step_that_runs_for_the_limit_is_stuck(clock: Clock, step_s: float | None, stuck: bool) -> None:
    why = StepWatch(10, clock).look({"status": "ok", "step_s": step_s})
    assert why == (f"a step of the model has been running for {step_s:.0f} s" if stuck else None)


def test_no_answer_for_the_limit_is_stuck_and_any_answer_begins_anew(clock: Clock) -> None:
    watch, idle = StepWatch(10, clock), {"status": "ok", "step_s": None}
    seen = []
    for told in (None, None, idle, None, None, None):
        seen.append(watch.look(told))
        clock.now += 6
    assert seen == [None] * 5 + ["the engine process has not answered for 12 s"]


def test_time_in_which_nobody_looked_is_no_silence(clock: Clock) -> None:
    watch = StepWatch(10, clock)
    assert watch.look({"status": "ok", "step_s": None}) is None
    clock.now += 100
    assert watch.look(None) is None


def test_the_limit_is_vllms_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm import envs

    for value in (None, "25"):
        monkeypatch.delenv("VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS", raising=False)
        if value is not None:
            monkeypatch.setenv("VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS", value)
        assert limit_s() == envs.VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS == int(value or 300)
