from deploy.reference import FOLDER
from deploy.reference import pages as reference_pages
from tests.bench.pages import DOCS, PART, PARTS, ROOT
from tests.bench.pages import pages as result_pages


def test_the_reference_is_what_the_code_makes() -> None:
    written = {file.name: file.read_text(encoding="utf-8") for file in FOLDER.iterdir()}
    assert written == reference_pages(), "run: make docs"


def test_tables_of_results_are_those_of_the_committed_numbers() -> None:
    made = result_pages()
    assert set((DOCS / "results").iterdir()) <= set(made), "a page of results has no part that is made"
    assert {file: file.read_text(encoding="utf-8") for file in made} == made, "run: make docs"


def test_each_part_that_is_made_is_on_a_page() -> None:
    text = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "README.md", *DOCS.rglob("*.md")))
    assert {part[2] for part in PART.finditer(text)} == PARTS.keys()
