from tests.bench.chaos import differences, essence

REPORT = {
    "job": "diag_1",
    "kl": {"mean": 0.5, "ci": [0.4, 0.6]},
    "points": [{"by": "w1", "seconds_making": 1.0, "kl": 0.1}],
    "provenance": {"started_at": 1.0, "resumed_windows": 0, "seed": 3},
}


def test_ids_times_and_attempts_are_no_difference() -> None:
    other = REPORT | {
        "job": "diag_2",
        "points": [{"by": "w2", "seconds_making": 2.0, "kl": 0.1}],
        "provenance": {"started_at": 9.0, "resumed_windows": 7, "seed": 3},
    }
    assert differences(essence(REPORT), essence(other)) == []


def test_any_other_difference_is_told_by_its_place() -> None:
    other = REPORT | {"kl": {"mean": 0.5, "ci": [0.4, 0.61]}, "points": [], "severity": "mild"}
    assert differences(essence(REPORT), essence(other)) == ["/kl/ci/1", "/points", "/severity"]
