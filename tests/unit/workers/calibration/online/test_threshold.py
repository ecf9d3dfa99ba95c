from pathlib import Path

import pytest

from app.contracts.profile import Profile
from app.settings import Settings
from tests.support.calibration_reports import cell
from tests.support.profiles import low_rank, record
from workers.calibration.online.threshold import expected
from workers.calibration.profiles import ProfileStore

WEIGHTS = ("a" * 64, "b" * 64)  # those of `record`


def put(store: ProfileStore, seed: int, *, kl_high: float | None, candidate: str = WEIGHTS[1], **fit: str) -> Profile:
    row = {"calibrator": "lowrank", "chosen": True, "own": cell(0.3, 0.1, 10, 2), "domains": {}, "choose_kl": 0.1}
    told = {"frozen": "x", "opened_at": 0.0, "tolerance": 0.005, "passed": True}
    table = {"table": [row | {"microseconds_per_token": 1.0, "bytes": 8}]}
    test = None if kl_high is None else told | table | {"kl_high": kl_high, "raw_kl_high": 2 * kl_high}
    model = {"model": "m", "weights_fingerprint": candidate}
    return store.put(low_rank(seed), record(candidate=model, seed=seed, test=test, **fit))


@pytest.fixture
def store(tmp_path: Path) -> ProfileStore:
    return ProfileStore(Settings(home=tmp_path))


def test_a_tested_version_gives_half_again_its_upper_limit(store: ProfileStore) -> None:
    found = expected(store, put(store, 0, kl_high=0.2).version, weights=WEIGHTS)
    assert found.threshold == pytest.approx(0.3)
    assert found.raw_mean == 0.3


def test_a_refit_is_held_to_the_test_that_it_descends_from(store: ProfileStore) -> None:
    first = put(store, 0, kl_high=0.2)
    second = put(store, 1, kl_high=None, parent=first.version)
    third = put(store, 2, kl_high=None, parent=second.version)
    assert expected(store, third.version, weights=WEIGHTS).threshold == pytest.approx(0.3)


def test_identity_is_held_to_what_the_raw_model_showed_in_a_test_of_the_same_weights(store: ProfileStore) -> None:
    assert expected(store, "identity", weights=WEIGHTS).threshold is None
    put(store, 0, kl_high=0.2, candidate="other")
    assert expected(store, "identity", weights=WEIGHTS).threshold is None
    put(store, 1, kl_high=0.1)
    assert expected(store, "identity", weights=WEIGHTS).threshold == pytest.approx(0.3)


def test_nothing_is_known_of_what_was_never_tested_or_is_gone(store: ProfileStore) -> None:
    assert expected(store, put(store, 0, kl_high=None, parent="identity").version, weights=WEIGHTS).threshold is None
    orphan = put(store, 1, kl_high=None, parent="cal-" + "0" * 16)
    assert expected(store, orphan.version, weights=WEIGHTS).threshold is None
    assert expected(store, "cal-" + "f" * 16, weights=WEIGHTS).threshold is None
