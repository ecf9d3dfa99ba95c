"""A worker's share of a GPU; the house of this file has no other deployment."""

import asyncio

from app.deployments.devices import own_host
from app.deployments.report import HostReport
from app.deployments.store import DeploymentStore
from tests.integration.workers.process.conftest import House
from tests.integration.workers.process.test_yielding import deployment
from tests.support.handlers import read_trace
from tests.support.patient import connect_patiently


def announce(house: House, host: HostReport) -> None:
    async def act() -> None:
        client = connect_patiently(house.settings)
        try:
            await DeploymentStore(client, house.settings).announce(host)
        finally:
            await client.aclose()

    asyncio.run(act())


def test_a_worker_takes_its_share_of_a_gpu_if_an_agent_serves_there_and_else_all_of_it(house: House) -> None:
    house.worker(share_diagnosis=0.3)
    here = own_host("an agent")
    elsewhere = here.model_copy(update={"agent": "another", "host": "elsewhere", "machine": "another"})

    def count() -> None:
        house.owner.wait(house.owner.submit(do="count", steps="1"))

    count()
    deployment(house, "beside", None)
    count()
    announce(house, elsewhere)
    count()
    announce(house, elsewhere.model_copy(update={"names": ("none",)}))
    announce(house, here)
    count()
    shares = [line["share"] for line in read_trace(house.settings) if line["what"] == "share"]
    assert shares == [1.0, 1.0, 1.0, 0.3]
