"""What the same job finds again where this one has no result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def kept(job: Mapping[str, Any]) -> str:
    """What was kept of a job that was cancelled once a worker had begun it; empty of every other one."""
    if job["status"] != "cancelled" or not job.get("attempt"):
        return ""
    return (
        "Submitted again, it starts over, but it finds the reference's states and the checkpoints that were made, as "
        "long as there is room for them. All else that was measured is gone."
    )
