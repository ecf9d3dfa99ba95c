"""The fit's side: which job fits a deployment's profile, and how that ended."""

from __future__ import annotations

from typing import cast

from app.contracts.deployment import DeploymentEventType, Version
from app.deployments import keys
from app.deployments.scripts import Evidence, Scripts, as_text


class FitSide(Scripts):
    """Raises DEPLOYMENT_NOT_FOUND for a deployment that is gone."""

    async def start_fit(self, id: str, job_id: str) -> str:  # noqa: A002
        """The one job that fits this deployment: `job_id`, or the one that somebody named before."""
        answer = cast(str, await self._run("fit", keys.deployment(id), id, "start", job_id))
        await self._checked(id, answer)
        return answer

    async def fit_made(self, id: str, job_id: str) -> None:  # noqa: A002
        """The job that fits it has a record. Repeating it changes nothing."""
        await self._checked(id, await self._run("fit", keys.deployment(id), id, "queued", job_id))

    async def was_fit_made(self, id: str, job_id: str) -> bool:  # noqa: A002
        """Whether the job has had a record: where there is none now, it has run out or was deleted."""
        return bool(await self.client.hget(keys.deployment(id), "fit_queued") == job_id)

    async def fit_ended(
        self,
        id: str,  # noqa: A002
        *,
        refused: bool,
        reason: str,
        version: Version | None = None,
        evidence: Evidence | None = None,
    ) -> None:
        """Says how a fit ended: `fitted`, or `refused` with the reason why identity goes on being served.

        It activates nothing: `promote` does. The same outcome said twice is said once.
        """
        kind = DeploymentEventType.REFUSED if refused else DeploymentEventType.FITTED
        answer = await self._run(
            "fit",
            keys.deployment(id),
            id,
            "end",
            "",
            kind.value,
            as_text(reason),
            version or "",
            as_text(dict(evidence or {})),
        )
        await self._checked(id, answer)
