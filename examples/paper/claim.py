"""Claims and the jobs that measure them, as files.

Where a claim's words name a count of a job they point to it, as `{decoders/text/documents}` does at that field of
jobs/decoders.json, so that words and job cannot disagree.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field

from app.contracts.base import Contract

FOLDER: Final = Path(__file__).parent
Name = Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=60)]
Text = Annotated[str, Field(min_length=20, max_length=2000)]
Json = dict[str, Any]
_POINTER: Final = re.compile(r"\{([a-z0-9-]+)/([a-z0-9_/]+)\}")


class Claim(Contract):
    """One claim: what is said, where it comes from, what is measured, and the rule, written before measuring."""

    id: Name
    title: Annotated[str, Field(min_length=5, max_length=100)]
    source: Text = Field(description="what the paper says, in our words")
    statement: Text = Field(description="the claim as it is tested")
    measured: Text
    rule: Text = Field(description="what makes it confirmed, refuted or not identifiable")
    threshold_of: str = Field(default="", max_length=200, description="the larger models that a threshold is of")
    changes: tuple[Text, ...] = Field(
        default=(),
        max_length=3,
        description="each earlier rule, its outcome, and why it was replaced; counted in rulings",
    )
    limits: Text = Field(description="what the model it is tested on can and cannot show")
    jobs: Annotated[tuple[Name, ...], Field(min_length=1, max_length=20)]
    ruling: Annotated[str, Field(pattern=r"^[a-z_]+$")] = Field(description="the rule as code, by its function's name")


def claims(folder: Path = FOLDER) -> tuple[Claim, ...]:
    """All claims, in the order of their file names, with the numbers that they point to. Raises ValueError for a file
    that is none, or that points to what no job has."""
    return tuple(
        Claim.model_validate_json(_filled(path.read_text(encoding="utf-8"), folder), strict=True)
        for path in sorted((folder / "claims").glob("*.json"))
    )


def _filled(words: str, folder: Path) -> str:
    def number(found: re.Match[str]) -> str:
        value: object = request(found[1], folder)
        for name in found[2].split("/"):
            value = value.get(name) if isinstance(value, dict) else None
        if not str(value).isdecimal():
            raise ValueError(f"the job {found[1]} has no number at {found[2]}")
        return str(value)

    return _POINTER.sub(number, words)


def request(job: str, folder: Path = FOLDER) -> Json:
    """The request of a job. Raises OSError where there is no such file."""
    found: Json = json.loads((folder / "jobs" / f"{job}.json").read_text(encoding="utf-8"))
    return found


def jobs_of(listed: tuple[Claim, ...]) -> tuple[str, ...]:
    """The jobs of these claims, each once, in the order in which claims need them."""
    return tuple(dict.fromkeys(job for claim in listed for job in claim.jobs))
