"""A worker's share of a GPU; the house of this file has no other deployment."""

from tests.integration.workers.process.conftest import House
from tests.integration.workers.process.test_yielding import deployment
from tests.support.handlers import read_trace


def test_a_worker_takes_its_share_of_a_gpu_where_there_are_deployments_and_else_all_of_it(house: House) -> None:
    house.worker(share_diagnosis=0.3)
    house.owner.wait(house.owner.submit(do="count", steps="1"))
    deployment(house, "beside", None)
    house.owner.wait(house.owner.submit(do="count", steps="1"))
    assert [line["share"] for line in read_trace(house.settings) if line["what"] == "share"] == [1.0, 0.3]
