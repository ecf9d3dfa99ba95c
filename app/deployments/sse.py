"""A deployment's events as server-sent events, named by their type; the stream ends with `deleted`."""

from redis.exceptions import RedisError

from app.contracts.deployment import DeploymentEventType
from app.contracts.errors import HemostatError
from app.deployments.store import DeploymentStore
from app.jobs.sse import Framed, NumberedStream, written
from app.state import State


class DeploymentStream(NumberedStream):
    """The events of one deployment after number `last`."""

    def __init__(self, state: State, deployment_id: str, last: int, newest: int) -> None:
        super().__init__(
            deployment_id,
            last,
            newest,
            stopping=state.stopping,
            heartbeat_s=state.settings.sse_heartbeat_s,
            poll_s=state.settings.sse_poll_s,
        )
        self.store: DeploymentStore = state.deployments

    async def events(self, after: int, block_s: float) -> list[Framed]:
        """The deployment's events that follow."""
        return [
            Framed(
                number,
                written(event.type.value, event.model_dump_json(), number),
                last=event.type is DeploymentEventType.DELETED,
            )
            for number, event in await self.store.events(self.name, after, block_s)
        ]

    async def quiet(self) -> bytes | None:
        """Nothing will come where the deployment is gone and all its events are reported."""
        try:
            if await self.store.events(self.name, self.last, count=1):
                return None
            await self.store.get(self.name)
        except HemostatError:
            return b""
        except (RedisError, OSError):
            return None
        return None
