from typing import Final

from deploy.reference import FOLDER
from deploy.reference import pages as reference_pages
from tests.bench.pages import DOCS
from tests.bench.pages import pages as result_pages

# Its bench keeps no rows yet.
BY_HAND: Final = {DOCS / "results" / "statistics.md"}


def test_the_reference_is_what_the_code_makes() -> None:
    written = {file.name: file.read_text(encoding="utf-8") for file in FOLDER.iterdir()}
    assert written == reference_pages(), "run: make docs"


def test_tables_of_results_are_those_of_the_committed_numbers() -> None:
    made = result_pages()
    assert set((DOCS / "results").iterdir()) - BY_HAND <= set(made), "a page of results has no part that is made"
    assert {file: file.read_text(encoding="utf-8") for file in made} == made, "run: make docs"
