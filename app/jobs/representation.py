"""In which form a result is sent, and whether the client has it already."""

import hashlib
from typing import Final

from fastapi import Request
from starlette.responses import Response

from app.contracts.errors import ErrorCode, HemostatError
from app.jobs.negotiation import preferred
from app.openapi import JSON
from app.problems import FieldError, RequestError

HTML: Final = "text/html"
# The page is one file that needs nothing from anywhere and runs no script.
PAGE_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
FORMAT_PARAMETER: Final = {
    "name": "format",
    "in": "query",
    "required": False,
    "description": "Overrides Accept.",
    "schema": {"type": "string", "enum": ["json", "html"]},
}


def query_error(
    parameter: str, detail: str, code: ErrorCode = ErrorCode.INVALID_REQUEST, hint: str = ""
) -> RequestError:
    """A fault of one query parameter."""
    return RequestError([FieldError(code, detail, hint, parameter=parameter)])


def etag_of(*parts: str) -> str:
    """The tag of what these parts decide."""
    return '"' + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32] + '"'


def unchanged(request: Request, etag: str, *, anything: bool = True) -> Response | None:
    """304 where the client has this already; `anything`: there is an answer, so that `*` fits it as well.

    Whatever asks this has more than one form, so the 304 varies as its 200 does (RFC 9110, 15.4.5)."""
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    fits = etag in known or (anything and "*" in known)
    return Response(status_code=304, headers={"etag": etag, "vary": "accept"}) if fits else None


def media_type_of(request: Request, what: str = "The report", *, otherwise: str | None = None) -> str:
    """JSON or HTML, by `?format=` or else by `Accept`; `otherwise` where neither is accepted. Raises RequestError, and
    without `otherwise` NOT_ACCEPTABLE."""
    wanted = request.query_params.get("format")
    if wanted is not None:
        if wanted not in ("json", "html"):
            raise query_error("format", "The format is neither json nor html.")
        return JSON if wanted == "json" else HTML
    media_type = preferred(request.headers.get("accept"), (JSON, HTML)) or otherwise
    if media_type is None:
        raise HemostatError(ErrorCode.NOT_ACCEPTABLE, f"{what} exists as application/json and as text/html.")
    return media_type
