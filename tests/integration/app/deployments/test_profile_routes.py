from typing import Any

import pytest

from app.contracts.deployment import DeploymentState, Replica, ShadowStatus
from app.contracts.profile import Profile, ProfilePage
from app.deployments.profile_routes import PATH, use_of
from tests.integration.app.conftest import Api
from tests.integration.app.deployments.conftest import request
from tests.support.profiles import Temperature, low_rank, record
from workers.calibration.profiles import ProfileStore


@pytest.fixture
def stored(api: Api) -> list[Profile]:
    store = ProfileStore(api.state.settings)
    return [store.put(low_rank(), record()), store.put(Temperature(1.5), record(seed=2))]


async def test_profiles_are_listed_and_shown(api: Api, stored: list[Profile]) -> None:
    page = ProfilePage.model_validate_json((await api.http.get(PATH)).text)
    assert {profile.version for profile in page.data} == {profile.version for profile in stored}
    one = await api.http.get(f"{PATH}/{stored[0].version}")
    assert Profile.model_validate_json(one.text) == stored[0]


@pytest.mark.parametrize("path", ["cal-0000000000000000", "nonsense"])
async def test_what_is_not_there_is_a_404(api: Api, path: str) -> None:
    answer = await api.http.get(f"{PATH}/{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "profile_not_found")


async def test_a_damaged_one_is_named_and_the_others_listed(api: Api, stored: list[Profile]) -> None:
    (api.state.settings.home / "profiles" / stored[0].version / "profile.json").write_text("{}")
    answer = await api.http.get(f"{PATH}/{stored[0].version}")
    assert (answer.status_code, answer.json()["code"]) == (422, "profile_corrupt")
    page = ProfilePage.model_validate_json((await api.http.get(PATH)).text)
    assert [profile.version for profile in page.data] == [stored[1].version]


async def test_one_that_is_served_cannot_be_deleted_and_one_that_is_not_can(api: Api, stored: list[Profile]) -> None:
    made = await api.state.deployments.create(request(calibration="frozen"))
    version = stored[0].version
    await api.state.deployments.promote(made.id, version, reason="test", manual=True)
    answer = await api.http.delete(f"{PATH}/{version}")
    assert (answer.status_code, answer.json()["code"]) == (409, "profile_in_use")
    assert made.name in answer.json()["detail"]
    # Also while it is what the deployment would go back to.
    await api.state.deployments.promote(made.id, stored[1].version, reason="test", manual=True)
    assert (await api.http.delete(f"{PATH}/{version}")).status_code == 409
    await api.state.deployments.delete(made.id)
    assert (await api.http.delete(f"{PATH}/{version}")).status_code in (204, 409)
    other = ProfileStore(api.state.settings).put(low_rank(seed=5), record())
    assert (await api.http.delete(f"{PATH}/{other.version}")).status_code == 204
    assert (await api.http.get(f"{PATH}/{other.version}")).status_code == 404
    assert (await api.http.delete(f"{PATH}/{other.version}")).status_code == 404


async def test_a_version_is_in_use_while_it_is_tried_or_loaded(api: Api) -> None:
    made = await api.state.deployments.create(request(calibration="frozen"))
    version = "cal-" + "a" * 16
    assert use_of(made, version) is None
    tried = made.model_copy(update={"shadow": ShadowStatus(trial=version)})
    assert use_of(tried, version) == "tries"
    loaded: Any = Replica(id="serve-0", state=DeploymentState.READY, versions=("identity", version))
    assert use_of(made.model_copy(update={"running": (loaded,)}), version) == "has loaded"
