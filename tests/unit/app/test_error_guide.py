from pathlib import Path

from app.contracts.errors import CATALOGUE, ErrorCode
from app.error_guide import GUIDE, page

DOCS = Path(__file__).resolve().parents[3] / "docs"


def test_every_code_is_in_the_catalogue_and_in_the_guide() -> None:
    assert set(CATALOGUE) == set(GUIDE) == set(ErrorCode)


def test_the_page_in_docs_is_this_version() -> None:
    assert (DOCS / "errors.md").read_text() == page(), "run: python -m app.error_guide > docs/errors.md"
