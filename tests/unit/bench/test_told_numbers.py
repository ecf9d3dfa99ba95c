"""What README and the pages of the families write out by hand of the bench is what its CSV has."""

from pathlib import Path

from tests.bench.mitigation_page import read

ROOT = Path(__file__).parents[3]
FOUND = read()


def told(page: str) -> str:
    """A page's words, whatever lines they stand in."""
    return " ".join((ROOT / page).read_text(encoding="utf-8").split())


def ratio(case: str, against: str, text: str = "wiki") -> float:
    """Of the two divergences on `text`, as it was measured where there is a bar, else of the numbers as they stand."""
    of = FOUND[case]
    return of.get(f"ratio_to_{against}_{text}", of[f"kl_{text}"] / FOUND[against][f"kl_{text}"])


def test_the_readme_tells_what_dynamic_scaling_leaves_and_that_it_takes_no_more_bytes() -> None:
    wiki, other = (100 * ratio("dynamic_4", "rtn_4", text) for text in ("wiki", "unfitted"))
    assert (
        f"Dynamic quantization scaling, for one, leaves {wiki:.0f} % of what round to nearest at 4 bits loses on "
        f"WikiText-2 and {other:.0f} % on other text, in the same bytes."
    ) in told("README.md")
    assert FOUND["dynamic_4"]["model_bytes"] == FOUND["rtn_4"]["model_bytes"]
