"""Memory is looked at once a point."""

import numpy as np

from tests.bench.resident import Resident, peak

HELD = 256  # MiB


def test_only_whole_points_are_looked_at_and_each_once() -> None:
    resident = Resident(points=3)
    for done in (0, 40, 100, 199):
        resident.note(done, 300)
    before = dict(resident.after)
    assert list(before) == [0, 1]
    buffer = np.ones(HELD << 20, np.uint8)
    for done in (100, 200, 250, 300):
        resident.note(done, 300)
    assert {point: resident.after[point] for point in before} == before
    assert list(resident.after) == [0, 1, 2, 3]
    # wide: the system may take other pages of this process away, or give some back, in between
    assert 0.5 * HELD < resident.after[2] - resident.after[1] < 2 * HELD
    assert peak() > 0.9 * resident.after[2]
    assert buffer[-1] == 1
