import pytest

from app.contracts.deployment import IDENTITY
from app.contracts.errors import ErrorCode, HemostatError
from app.deployments.profiles import ProfileFiles
from app.settings import Settings
from tests.support.profiles import low_rank, record
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
