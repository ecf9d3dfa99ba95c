"""The fit's side: which job fits a deployment's profile, and how that ended."""

from __future__ import annotations

from typing import cast

from app.contracts.deployment import DeploymentEventType, Version
from app.deployments import keys
from app.deployments.scripts import Evidence, Scripts, as_text


class FitSide(Scripts):
    """Raises DEPLOYMENT_NOT_FOUND for a deployment that is gone."""

    async def start_fit(self, deployment_id: str, job_id: str) -> str:
        """The one job that fits this deployment: `job_id`, or the one that somebody named before."""
        answer = cast(str, await self._run("fit", keys.deployment(deployment_id), deployment_id, "start", job_id))
        await self._checked(deployment_id, answer)
        return answer

    async def fit_made(self, deployment_id: str, job_id: str) -> None:
        """The job that fits it has a record. Repeating it changes nothing."""
        await self._checked(
            deployment_id, await self._run("fit", keys.deployment(deployment_id), deployment_id, "queued", job_id)
        )

    async def was_fit_made(self, deployment_id: str, job_id: str) -> bool:
        """Whether the job has had a record: where there is none now, it has run out or was deleted."""
        return bool(await self.client.hget(keys.deployment(deployment_id), "fit_queued") == job_id)

    async def fit_ended(
        self,
        deployment_id: str,
        *,
        refused: bool,
        reason: str,
        version: Version | None = None,
        evidence: Evidence | None = None,
    ) -> None:
        """Says how a fit ended: `fitted`, or `refused` with the reason why identity goes on being served.

        It activates nothing: `promote` does. The same outcome said twice is reported once.
        """
        kind = DeploymentEventType.REFUSED if refused else DeploymentEventType.FITTED
        answer = await self._run(
            "fit",
            keys.deployment(deployment_id),
            deployment_id,
            "end",
            "",
            kind.value,
            as_text(reason),
            version or "",
            as_text(dict(evidence or {})),
        )
        await self._checked(deployment_id, answer)
