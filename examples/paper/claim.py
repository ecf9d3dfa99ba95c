"""Claims and the jobs that measure them, as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field

from app.contracts.base import Contract

FOLDER: Final = Path(__file__).parent
Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=60)]
Text = Annotated[str, Field(min_length=20, max_length=2000)]
Json = dict[str, Any]


class Claim(Contract):
    """One claim: what is said, where it comes from, what is measured, and the rule, written before measuring."""

    id: Name
    title: Annotated[str, Field(min_length=5, max_length=100)]
    source: Text = Field(description="what the paper says, in our words")
    statement: Text = Field(description="the claim as it is tested")
    measured: Text
    rule: Text = Field(description="what makes it confirmed, refuted or not identifiable")
    limits: Text = Field(description="what the model it is tested on can and cannot show")
    jobs: Annotated[tuple[Name, ...], Field(min_length=1, max_length=20)]
    ruling: Annotated[str, Field(pattern=r"^[a-z_]+$")] = Field(description="the rule as code, by its function's name")


def claims(folder: Path = FOLDER) -> tuple[Claim, ...]:
    """All claims, in the order of their file names. Raises ValueError for a file that is none."""
    return tuple(
        Claim.model_validate_json(path.read_bytes(), strict=True) for path in sorted((folder / "claims").glob("*.json"))
    )


def request(job: str, folder: Path = FOLDER) -> Json:
    """The request of a job. Raises OSError where there is no such file."""
    found: Json = json.loads((folder / "jobs" / f"{job}.json").read_text(encoding="utf-8"))
    return found


def jobs_of(listed: tuple[Claim, ...]) -> tuple[str, ...]:
    """The jobs of these claims, each once, in the order in which claims need them."""
    return tuple(dict.fromkeys(job for claim in listed for job in claim.jobs))
