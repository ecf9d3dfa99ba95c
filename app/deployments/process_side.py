"""The side of the agent and of the processes that it runs: leases, which run out, and what is reported with them.

A key with expiry for each replica's lease. State and reason of a deployment are derived, by the scripts, from the
leases, the wanted replicas and what the agent reports.
"""

from __future__ import annotations

import builtins
import json
import time
from typing import Literal, cast

from app.contracts.deployment import DeploymentState, Replica
from app.deployments import keys
from app.deployments.report import AgentReport
from app.deployments.scripts import Scripts

Settled = DeploymentState | Literal["forgotten"]


class ProcessSide(Scripts):
    """Serving, shadow and verify processes, and the agent."""

    async def register(self, deployment_id: str, replica: Replica) -> None:
        """A process of the deployment says that it is there. Its lease runs out after `settings.replica_lease_s`."""
        await self.renew(deployment_id, replica)

    async def renew(self, deployment_id: str, replica: Replica) -> None:
        """Renews the lease and says how it is: call it every `settings.replica_renew_s`, and at once at a change.

        A lease that ran out, or that Redis lost, is taken again by it. Raises DEPLOYMENT_NOT_FOUND for a deployment
        that was deleted: the process is to end."""
        seen = replica.model_copy(update={"seen_at": time.time()}).model_dump(mode="json")
        said = json.dumps(seen | {"secret": replica.secret}, ensure_ascii=False)
        lease_ms = int(self.settings.replica_lease_s * 1000)
        await self._checked(
            deployment_id,
            await self._run("renew", keys.deployment(deployment_id), deployment_id, replica.id, lease_ms, said),
        )

    async def leave(self, deployment_id: str, replica_id: str) -> None:
        """The process goes, of its own will. A deployment that is gone already is no error."""
        await self._run("renew", keys.deployment(deployment_id), deployment_id, replica_id, 0, "")

    async def replicas(self, deployment_id: str) -> builtins.list[Replica]:
        """The processes whose lease holds, by id."""
        names = sorted(cast("builtins.list[str]", await self.client.hkeys(keys.replicas(deployment_id))))
        texts = await self.client.mget([keys.replica(deployment_id, name) for name in names]) if names else []
        return [Replica.model_validate_json(text) for text in texts if text is not None]

    async def report(
        self, deployment_id: str, report: AgentReport, *, leaves: bool = False
    ) -> Settled | Literal["other"]:
        """What the agent knows of the deployment's processes, with a lease like a replica's; `leaves`: it gives it up.

        An agent has the places that it reports until it leaves or falls silent; "other" answers one who reports a place
        of another agent, and nothing is changed.
        """
        lease_ms = 0 if leaves else int(self.settings.replica_lease_s * 1000)
        said = report.model_dump_json()
        answer = await self._run("report", keys.deployment(deployment_id), deployment_id, lease_ms, said, report.agent)
        return "other" if answer == "other" else self._settled(answer)

    async def settle(self, deployment_id: str) -> Settled:
        """Brings state and reason to what is known now: leases that ran out are noticed by anyone who calls this."""
        return self._settled(await self._run("settle", keys.deployment(deployment_id), deployment_id))

    @staticmethod
    def _settled(answer: str) -> Settled:
        return "forgotten" if answer in ("forgotten", "missing") else DeploymentState(answer)
