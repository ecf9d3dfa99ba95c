"""Which jobs a page of the list shows."""

import json
from dataclasses import dataclass

from app.contracts.job import JobStatus
from app.jobs import keys


@dataclass(frozen=True)
class Filters:
    """Which jobs a page shows; None and {} are all of them."""

    status: JobStatus | None = None
    kind: str | None = None
    candidate: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()
    owner: str | None = None

    @property
    def index(self) -> str:
        """The set of ids to look through: of the owner, else of the status, else of all jobs."""
        if self.owner is not None:
            return keys.owner(self.owner)
        return keys.INDEX if self.status is None else keys.status(self.status)

    def needs_records(self) -> bool:
        """Whether the index alone does not show it."""
        by_owner = self.owner is not None and self.status is not None
        return by_owner or self.kind is not None or self.candidate is not None or bool(self.metadata)

    def fits(self, kind: str | None, candidate: str | None, metadata: str | None, status: str | None) -> bool:
        """Whether a record with these fields is shown."""
        if kind is None or (self.kind is not None and kind != self.kind):
            return False
        if self.status is not None and status != self.status:
            return False
        if self.candidate is not None and candidate != self.candidate:
            return False
        if not self.metadata:
            return True
        try:
            given = json.loads(metadata or "{}")
        except ValueError:
            return False
        return isinstance(given, dict) and all(given.get(name) == value for name, value in self.metadata)
