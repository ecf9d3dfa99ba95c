from app.gateway.core import Gateway
from app.gateway.directory import Directory
from app.main import create_app
from app.settings import Settings
from tests.unit.app.gateway.test_directory import Store
from tests.unit.app.gateway.test_replicas import deployment


async def test_a_deployment_that_is_gone_leaves_no_series_and_no_queue(tmp_path):
    app = create_app(Settings(home=tmp_path))
    gateway = Gateway.of(app.state.hemostat)
    old, busy, same = (deployment(name=name, id=f"dep_{name}") for name in ("old", "busy", "same"))
    store = Store(old, busy, same)
    gateway.directory = Directory(store)
    await gateway.directory.all()

    def shown(name):
        return f'deployment="{name}"' in app.state.hemostat.telemetry.render().decode()

    for one in (old, busy, same):
        gateway.line(one)
        gateway.account(one, "/v1/completions", 200)
    again = deployment(name="same", id="dep_again")
    store.held = [again]
    await gateway.directory.all()
    async with gateway.line(busy).place():
        gateway.line(again)
        assert [shown(name) for name in ("old", "busy", "same")] == [False, True, True]
        assert set(gateway.lines) == {"dep_busy", "dep_again"}
    new = deployment(name="new", id="dep_new")
    store.held = [again, new]
    await gateway.directory.all()
    gateway.line(new)
    assert [shown(name) for name in ("busy", "same", "new")] == [False, True, True]
    await gateway.close()
    await app.state.hemostat.redis.aclose()
