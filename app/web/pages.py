"""What every page is made with: its templates, and one style sheet that its own policy allows."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"
REPORTS = TEMPLATES.parents[1] / "reports"


@cache
def environment() -> Environment:
    """The templates. Values are escaped, and a name that is not given is an error."""
    return Environment(
        loader=FileSystemLoader([TEMPLATES, REPORTS]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page(template: str, **shown: object) -> str:
    """A template as a page: the style sheet and its hash beside what is shown."""
    style, digest = _style()
    return environment().get_template(template).render(style=style, style_digest=digest, **shown)


@cache
def _style() -> tuple[Markup, str]:
    """The style sheet, and its hash: the page's own policy allows this one and no other."""
    css = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return Markup(css), f"sha256-{digest}"  # noqa: S704 - our own file
