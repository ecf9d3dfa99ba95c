import pytest

from app.contracts.deployment import IDENTITY
from app.contracts.errors import ErrorCode, HemostatError
from app.deployments.profiles import ProfileFiles, compare
from app.settings import Settings
from tests.support.profiles import Temperature, low_rank, record
from workers.calibration.profiles import ProfileStore


@pytest.fixture
def settings(tmp_path):
    return Settings(home=tmp_path)


def test_profiles_are_listed_newest_first_and_a_deleted_one_is_gone(settings):
    files = ProfileFiles(settings)
    assert files.list() == ()
    made = [ProfileStore(settings).put(low_rank(seed), record()) for seed in range(3)]
    assert files.list() == tuple(sorted(made, key=lambda profile: -profile.created_at))
    files.delete(made[1].version)
    assert {profile.version for profile in files.list()} == {made[0].version, made[2].version}
    assert {entry.name for entry in files.root.iterdir()} == {made[0].version, made[2].version}
    with pytest.raises(HemostatError) as caught:
        files.delete(made[1].version)
    assert caught.value.code is ErrorCode.PROFILE_NOT_FOUND


@pytest.mark.parametrize("version", ["cal-0123456789abcdef", "../../etc", "cal-", "", IDENTITY, "cal-" + "A" * 16])
def test_what_is_no_profile_is_not_found(settings, version):
    with pytest.raises(HemostatError) as caught:
        ProfileFiles(settings).get(version)
    assert caught.value.code is ErrorCode.PROFILE_NOT_FOUND


def test_two_profiles_are_told_apart_by_how_they_were_fitted(settings):
    store = ProfileStore(settings)
    one = store.put(low_rank(), record())
    other = store.put(Temperature(1.25), record(seed=3, settings={"steps": 100}, job="diag_x"))
    found = compare(one, other)
    told = {difference.pointer: (difference.a, difference.b) for difference in found.differences}
    assert told["/fit/seed"] == (0, 3)
    assert told["/fit/settings/steps"] == (None, 100)
    assert told["/calibrator"] == ("lowrank", "temperature")
    assert told["/parameters/temperature"] == (None, 1.25)
    assert not any(pointer.startswith(("/job", "/created_at", "/version")) for pointer in told)
    assert found.same_model
    assert found.same_test
    assert compare(one, one).differences == ()


def test_profiles_of_other_weights_or_another_test_do_not_compare(settings):
    store = ProfileStore(settings)
    one = store.put(low_rank(), record())
    weights = store.put(low_rank(), record(candidate={"model": "m", "weights_fingerprint": "9" * 64}))
    test = store.put(low_rank(), record(sets=[]))
    assert not compare(one, weights).same_model
    assert not compare(one, test).same_test
