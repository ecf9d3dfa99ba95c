"""A report as JSON data, read back: what the page and the terminal both begin with."""

from __future__ import annotations

from pydantic import ValidationError

from app.contracts.errors import ErrorCode, HemostatError
from app.contracts.report import SCHEMA, Report
from app.kinds.registry import kind_of


def parse(report: object) -> Report:
    """The report as data. Fields that this version does not know are dropped: a newer one may have added them.

    Raises `HemostatError`: INVALID_REQUEST for anything that is not a report of schema `hemostat.report/1`,
    JOB_UNREADABLE for one that does not fit it.
    """
    schema = report.get("schema") if isinstance(report, dict) else None
    if schema != SCHEMA:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"this is not a report of schema {SCHEMA}: its schema is {str(schema)[:100]!r}",
            hint="give the JSON of GET /v1/diagnosis/jobs/{id}/report",
            pointer="/schema",
        )
    name = report.get("kind") if isinstance(report, dict) else None
    kind = kind_of(name)
    if kind is None:
        raise HemostatError(
            ErrorCode.INVALID_REQUEST,
            f"this version of Hemostat cannot show reports of kind {str(name)[:100]!r}",
            hint="use the version that made it",
            pointer="/kind",
        )
    try:
        return kind.report.model_validate(report, extra="ignore")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = "/" + "/".join(map(str, first["loc"]))
        raise HemostatError(
            ErrorCode.JOB_UNREADABLE,
            f"the report does not fit this version's schema {SCHEMA}: {place}: {first['msg']}",
            hint="another version wrote it, or it was edited: show it with that version, or submit its job again",
        ) from None
