"""What Prometheus shows of deployments: read from Redis for each scrape, absent while Redis is away."""

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from app.contracts.deployment import CalibrationMode, Deployment, DeploymentState
from app.deployments.store import DeploymentStore

_PLAIN = ["deployment"]


class DeploymentCollector(Collector):
    """The deployments as they were last read; yields nothing while they could not be read.

    Labels are names from the store, of which an operator makes few; nothing that a client wrote.
    """

    def __init__(self) -> None:
        self.deployments: Sequence[Deployment] | None = None
        self.depths: Mapping[str, int] = {}

    async def read(self, store: DeploymentStore) -> None:
        """Reads what the next scrape shows. Where it raises (RedisError, OSError, TimeoutError) nothing is reported."""
        self.deployments = None
        found = await store.list()
        self.depths = {one.name: await store.queue_depth(one.id) for one in found}
        self.deployments = found

    def collect(self) -> Iterator[Metric]:
        """The families of this scrape."""
        if self.deployments is None:
            return
        yield from self._states(self.deployments)
        yield from self._calibration(self.deployments)
        depth = GaugeMetricFamily(
            "hemostat_shadow_queue_depth", "Requests that wait to be scored again.", labels=_PLAIN
        )
        for name, count in self.depths.items():
            depth.add_metric([name], count)
        yield depth

    @staticmethod
    def _states(deployments: Sequence[Deployment]) -> Iterator[Metric]:
        state = GaugeMetricFamily(
            "hemostat_deployment_state", "1 for the state that a deployment is in, else 0.", labels=[*_PLAIN, "state"]
        )
        replicas = GaugeMetricFamily(
            "hemostat_deployment_replicas",
            "Serving processes with a valid lease, by state.",
            labels=[*_PLAIN, "state"],
        )
        wanted = GaugeMetricFamily(
            "hemostat_deployment_replicas_wanted", "Serving processes that there should be.", labels=_PLAIN
        )
        for one in deployments:
            serving = [replica.state for replica in one.running if replica.role == "serve"]
            for each in DeploymentState:
                state.add_metric([one.name, each.value], float(one.state is each))
                replicas.add_metric([one.name, each.value], serving.count(each))
            wanted.add_metric([one.name], one.replicas)
        yield from (state, replicas, wanted)

    @staticmethod
    def _calibration(deployments: Sequence[Deployment]) -> Iterator[Metric]:
        info = GaugeMetricFamily(
            "hemostat_calibration_info",
            "1 for the calibration version that is active.",
            labels=[*_PLAIN, "version"],
        )
        mode = GaugeMetricFamily(
            "hemostat_calibration_mode",
            "1 for the mode that a deployment's calibration is in, else 0.",
            labels=[*_PLAIN, "mode"],
        )
        activated = GaugeMetricFamily(
            "hemostat_calibration_activated_timestamp_seconds",
            "When the active version became active; absent if only identity was ever active.",
            labels=_PLAIN,
        )
        promotions = CounterMetricFamily("hemostat_calibration_promotions", "Versions made active.", labels=_PLAIN)
        rollbacks = CounterMetricFamily(
            "hemostat_calibration_rollbacks", "Rollbacks to another version.", labels=_PLAIN
        )
        for one in deployments:
            info.add_metric([one.name, one.active_version], 1)
            for each in CalibrationMode:
                mode.add_metric([one.name, each.value], float(one.calibration is each))
            if one.activated_at is not None:
                activated.add_metric([one.name], one.activated_at)
            promotions.add_metric([one.name], one.promotions)
            rollbacks.add_metric([one.name], one.rollbacks)
        yield from (info, mode, activated, promotions, rollbacks)
