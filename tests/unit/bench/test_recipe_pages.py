"""The pages of the families say what the bench measured, what a step costs and what its limitations are."""

import re

from app.recipes.recipe import STEPS
from tests.bench.mitigation_page import IN_FLOOR, PAGE

FOLDER = PAGE.parent
RECIPES = (FOLDER.parent / "recipes.md").read_text(encoding="utf-8")
FAMILIES = sorted(set(re.findall(r"\| \[[\w-]+\]\(recipes/([\w-]+)\.md\) \|", RECIPES)))
ROW = re.compile(r"^\| (?P<recipe>`.*`) \| (?P<wiki>[\d.]+) \| (?P<other>[\d.]+) \|$", re.MULTILINE)
MEASURED = re.compile(
    r"^\| (?P<recipe>`.*`) \| [\d–]+ \| [\d.]+ "
    rf"\| (?P<wiki>[\d.]+) \[.*?\](?: {IN_FLOOR})? \| (?P<other>[\d.]+) \[.*?\](?: {IN_FLOOR})? \|$",
    re.MULTILINE,
)


def text_of(family: str) -> str:
    return (FOLDER / f"{family}.md").read_text(encoding="utf-8")


def measured() -> dict[str, tuple[str, str]]:
    page = PAGE.read_text(encoding="utf-8")
    return {found["recipe"]: (found["wiki"], found["other"]) for found in MEASURED.finditer(page)}


def test_a_row_of_a_page_has_the_numbers_of_the_bench() -> None:
    known = measured()
    assert len(known) > 40
    wrong = [
        (family, row["recipe"])
        for family in FAMILIES
        for row in ROW.finditer(text_of(family))
        if (row["wiki"], row["other"]) != known[row["recipe"]]
    ]
    assert wrong == []


def test_a_page_without_a_table_of_its_own_has_the_rows_of_the_bench() -> None:
    rows = {"context-moe": 8, "extend": 4, "gradient-pruning": 8, "lowrank": 6}
    assert {family: len(ROW.findall(text_of(family))) for family in rows} == rows


def test_every_type_of_step_is_named_on_a_page_of_a_family() -> None:
    pages = "".join(text_of(family) for family in FAMILIES)
    assert [name for name in STEPS if f"`{name}`" not in pages] == []
