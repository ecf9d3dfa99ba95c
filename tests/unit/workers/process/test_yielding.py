"""Turns: how long they are, and what counts as work in them."""

import pytest

from workers.process.yielding import Turn, turn_s


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 30), (2, 60), (4, 240), (5, 480), (6, 480), (500, 480)])
def test_turns_grow_to_sixteen_times_the_first(attempt: int, seconds: float) -> None:
    assert turn_s(30.0, attempt) == seconds


class Clock:
    """Seconds, as a test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_only_work_that_is_kept_counts_and_a_turn_ends_within_it() -> None:
    clock = Clock()
    turn = Turn(10.0, clock=clock)
    for phase, seconds in (("text", 100.0), ("modify", 50.0), ("reference", 6.0), ("noise_floor", 30.0), ("fit", 3.9)):
        turn.at(phase)
        clock.now += seconds
        assert not turn.over, phase
    clock.now += 0.2
    assert turn.over
    turn.at("statistics")
    assert not turn.over, "what it does now it would have to do again"
    turn.at("test")
    assert turn.over


def test_progress_within_a_phase_does_not_begin_it_anew() -> None:
    clock = Clock()
    turn = Turn(10.0, clock=clock)
    for _ in range(10):
        turn.at("candidate")
        clock.now += 1.0
    assert turn.over


def test_an_attempt_that_has_said_nothing_is_not_stopped() -> None:
    clock = Clock()
    turn = Turn(0.1, clock=clock)
    clock.now += 1e6
    assert not turn.over
